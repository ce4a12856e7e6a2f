"""Reads the machine that a caller wants to have made, with its disks, GPUs and address; nothing is made here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from comfyweb.demo import catalog
from comfyweb.demo.addresses import Addresses
from comfyweb.demo.alterations import Alterations, fitting, mode_in
from comfyweb.demo.bodies import items_in, labels_in, name_in, scheduling_in
from comfyweb.demo.links import in_scope
from comfyweb.demo.model import AccessConfig, Attachment, Disk, Machine, Refusal
from comfyweb.demo.quotas import of_disk, of_machine
from comfyweb.demo.storage import Storage

Body = Mapping[str, Any]


@dataclass(slots=True, kw_only=True)
class Arrival:
    """A machine to be made, and the disks to be made with it."""

    machine: Machine
    attachments: list[Attachment] = field(default_factory=list[Attachment])
    new_disks: list[Disk] = field(default_factory=list[Disk])

    def amounts(self) -> dict[str, float]:
        """Count all that it would use of the quotas."""
        found: dict[str, float] = {"INSTANCES": 1, **of_machine(self.machine)}
        for disk in self.new_disks:
            for metric, amount in of_disk(disk.kind, disk.size_gb).items():
                found[metric] = found.get(metric, 0) + amount
        return found


class Arrivals(Storage, Addresses, Alterations):
    """What is asked of new machines; what isn't emulated (shielding and the like) is accepted and forgotten."""

    def arrival_in(self, zone: str, body: Body) -> Arrival:
        """Read the whole of it. Raises `Refusal`."""
        scope = f"{self.path}/zones/{self.zone(zone)}"
        name = name_in(body.get("name"), "resource.name")
        if (zone, name) in self.machines:
            raise Refusal.exists(f"{scope}/instances/{name}")
        machine = Machine(
            name=name,
            zone=zone,
            id=self.register.number(),
            created_at=self.now,
            project=self.project,
            internal_ip=self.free_internal_ip(),
            machine_type=self._size(body, scope),
            accelerator="",
            accelerators=0,
            access=self._access(zone, body),
            description=body.get("description", ""),
            labels=labels_in(body.get("labels", {})),
            tags=list(body.get("tags", {}).get("items", [])),
            metadata=items_in(body.get("metadata", {})),
        )
        self._add_gpus(machine, body)
        machine.scheduling = scheduling_in(body.get("scheduling", {}), has_gpu=bool(machine.accelerators))
        found = Arrival(machine=machine)
        self._add_disks(found, body)
        return found

    def _size(self, body: Body, scope: str) -> str:
        if not body.get("machineType"):
            raise Refusal.invalid(
                "Invalid value for field 'resource.machineType': ''. Machine type specified is required."
            )
        name = in_scope(body["machineType"], "resource.machineType", scope, "machineTypes")
        return catalog.machine_type(name, scope).name

    def _add_gpus(self, machine: Machine, body: Body) -> None:
        wanted = catalog.MACHINE_TYPES[machine.machine_type]
        for each in body.get("guestAccelerators", []):
            kind = in_scope(
                each.get("acceleratorType", ""), "resource.guestAccelerators", machine.scope, "acceleratorTypes"
            )
            count = int(each.get("acceleratorCount", 1))
            if not 1 <= count <= catalog.accelerator_type(kind, machine.scope).most or machine.accelerators:
                raise Refusal.invalid(
                    f"Invalid value for field 'resource.guestAccelerators[0].acceleratorCount': '{count}'."
                )
            machine.accelerator, machine.accelerators = kind, count
        if wanted.accelerator or machine.accelerators:
            machine.accelerator, machine.accelerators = fitting(machine, wanted)

    def _access(self, zone: str, body: Body) -> AccessConfig | None:
        interfaces = body.get("networkInterfaces", [])
        if len(interfaces) != 1:
            raise Refusal.invalid(
                "Invalid value for field 'resource.networkInterfaces': ''. Exactly one network interface is emulated."
            )
        configs = interfaces[0].get("accessConfigs", [])
        if len(configs) > 1:
            raise Refusal.invalid(
                "Invalid value for field 'resource.networkInterfaces[0].accessConfigs': At most one access config "
                "currently supported."
            )
        return self.access_in(zone, configs[0]) if configs else None

    def _add_disks(self, found: Arrival, body: Body) -> None:
        disks = body.get("disks", [])
        if not disks or not disks[0].get("boot", False):
            raise Refusal.invalid("Invalid value for field 'resource.disks': ''. The first disk must be a boot disk.")
        names: set[str] = set()
        devices: set[str] = set()
        for index, each in enumerate(disks):
            attachment = self._disk_of(found, each, index)
            if attachment.disk.name in names or attachment.device in devices or (index and attachment.boot):
                raise Refusal.invalid(f"Invalid value for field 'resource.disks[{index}]': it is there twice.")
            if attachment.disk.state == "DELETING":
                raise Refusal(400, "resourceNotReady", f"The resource '{attachment.disk.path}' is not ready")
            if holder := self.holder(attachment.disk, attachment.mode):
                raise Refusal.in_use("disk", attachment.disk.path, holder.path)
            names.add(attachment.disk.name)
            devices.add(attachment.device)
            found.attachments.append(attachment)

    def _disk_of(self, found: Arrival, body: Body, index: int) -> Attachment:
        machine = found.machine
        if body.get("source"):
            return self.attachment_in(machine, body, index)
        where = f"resource.disks[{index}].initializeParams"
        wanted = body.get("initializeParams", {})
        disk = self.disk_in(
            machine.zone,
            {
                "type": wanted.get("diskType", ""),
                "sizeGb": wanted.get("diskSizeGb"),
                **{name: wanted[name] for name in ("sourceImage", "sourceSnapshot", "labels") if name in wanted},
                **({"name": wanted["diskName"]} if wanted.get("diskName") else {}),
            },
            where,
            machine.name if index == 0 else f"{machine.name}-{index}",
        )
        found.new_disks.append(disk)
        return Attachment(
            disk=disk,
            device=body.get("deviceName") or f"persistent-disk-{index}",
            mode=mode_in(body),
            boot=bool(body.get("boot", False)),
            auto_delete=bool(body.get("autoDelete", False)),
        )
