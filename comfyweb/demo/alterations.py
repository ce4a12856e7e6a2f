"""What callers may change about a machine: metadata, labels, scheduling, size and disks."""

from collections.abc import Mapping
from typing import Any

from comfyweb.demo import catalog
from comfyweb.demo.bodies import STOPPED_ONLY, fingerprint_of, labels_in, metadata_in, scheduling_in
from comfyweb.demo.estate import Estate
from comfyweb.demo.faults import not_ready
from comfyweb.demo.links import in_scope
from comfyweb.demo.model import (
    CALLER,
    Attachment,
    Disk,
    Machine,
    Mode,
    Operation,
    OperationError,
    Refusal,
    Status,
)
from comfyweb.demo.storage import disk_in_use

Body = Mapping[str, Any]
_STALE_METADATA = "Supplied fingerprint does not match current metadata fingerprint."
_STALE_LABELS = "Labels fingerprint either invalid or resource labels have changed"


class Alterations(Estate):
    """Each is looked at now, and again when the change is made. Everything raises `Refusal`."""

    def set_metadata(self, machine: Machine, body: Body, *, user: str = CALLER) -> Operation:
        """Replace the metadata; the fingerprint guards what others write meanwhile."""
        metadata, fingerprint = metadata_in(body)
        if fingerprint != fingerprint_of(machine.metadata):
            raise Refusal(412, "conditionNotMet", _STALE_METADATA)

        def apply() -> OperationError | None:
            if fingerprint != fingerprint_of(machine.metadata):
                return _condition_not_met(_STALE_METADATA)
            machine.metadata = metadata
            return None

        return self.edit(self.open("setMetadata", machine, user), apply)

    def set_labels(self, machine: Machine, body: Body, *, user: str = CALLER) -> Operation:
        """Replace the labels; the fingerprint guards what others write meanwhile."""
        labels, fingerprint = labels_in(body.get("labels", {})), body.get("labelFingerprint", "")
        if fingerprint != fingerprint_of(machine.labels):
            raise Refusal(412, "conditionNotMet", _STALE_LABELS)

        def apply() -> OperationError | None:
            if fingerprint != fingerprint_of(machine.labels):
                return _condition_not_met(_STALE_LABELS)
            machine.labels = labels
            return None

        return self.edit(self.open("setLabels", machine, user), apply)

    def set_scheduling(self, machine: Machine, body: Body, *, user: str = CALLER) -> Operation:
        """Replace the scheduling; some of it can be changed only while it is TERMINATED."""
        wanted = scheduling_in(body, has_gpu=bool(machine.accelerators))
        off = machine.is_off
        for name in STOPPED_ONLY:
            if not off and wanted.get(name) != machine.scheduling.get(name):
                raise Refusal.invalid(
                    f"Scheduling field '{name}' of '{machine.path}' can only be changed while the instance is "
                    f"stopped (TERMINATED); it is {machine.status}."
                )

        def apply() -> OperationError | None:
            if off and not machine.is_off:
                return not_ready(machine.path)
            machine.scheduling = wanted
            return None

        return self.edit(self.open("setScheduling", machine, user), apply)

    def set_machine_type(self, machine: Machine, body: Body, *, user: str = CALLER) -> Operation:
        """Give it another size, with the GPUs that belong to that size. Fails as not ready unless it is TERMINATED."""
        name = in_scope(body.get("machineType", ""), "machineType", machine.scope, "machineTypes")
        wanted = catalog.machine_type(name, machine.scope)
        accelerator, accelerators = fitting(machine, wanted)

        def apply() -> OperationError | None:
            if not machine.is_off:
                return not_ready(machine.path)
            machine.machine_type, machine.accelerator, machine.accelerators = wanted.name, accelerator, accelerators
            return None

        return self.edit(self.open("setMachineType", machine, user), apply)

    def attach_disk(self, machine: Machine, body: Body, *, user: str = CALLER) -> Operation:
        """Attach a disk of the same zone. Whoever has it already, alone, is named in the operation's error."""
        attachment = self.attachment_in(machine, body)

        def apply() -> OperationError | None:
            if not (machine.is_off or (machine.status is Status.RUNNING and not machine.doing)):
                return not_ready(machine.path)
            if attachment.disk.state == "DELETING":
                return not_ready(attachment.disk.path)
            if holder := self.holder(attachment.disk, attachment.mode):
                return disk_in_use(attachment.disk, holder.path)
            if any(each.device == attachment.device for each in machine.disks):
                return disk_in_use(attachment.disk, machine.path)
            self.attach(machine, attachment)
            return None

        return self.edit(self.open("attachDisk", machine, user), apply)

    def attachment_in(self, machine: Machine, body: Body, index: int | None = None) -> Attachment:
        """Read how a caller wants to attach a disk that exists."""
        if "initializeParams" in body:
            raise Refusal.invalid("Invalid value for field 'resource.initializeParams'. A disk to attach must exist.")
        place = len(machine.disks) if index is None else index
        name = in_scope(body.get("source", ""), "resource.source", machine.scope, "disks")
        device = body.get("deviceName") or f"persistent-disk-{place}"
        boot = bool(body.get("boot", False))
        if any(each.device == device for each in machine.disks):
            raise Refusal.invalid(
                f"Invalid value for field 'resource.deviceName': '{device}'. The device name is already in use."
            )
        if boot and any(each.boot for each in machine.disks):
            raise Refusal.invalid("Invalid value for field 'resource.boot': 'true'. It has a boot disk.")
        return Attachment(
            disk=self.disk(machine.zone, name),
            device=device,
            mode=mode_in(body),
            boot=boot,
            auto_delete=bool(body.get("autoDelete", False)),
        )

    def holder(self, disk: Disk, mode: Mode) -> Machine | None:
        """Find the machine that keeps a disk from being attached in this mode: one writes alone, or all only read."""
        for machine in self.users_of(disk):
            found = machine.attachment(disk)
            if found and "READ_WRITE" in (mode, found.mode):
                return machine
        return None

    def attach(self, machine: Machine, attachment: Attachment) -> None:
        """Attach a disk that nobody keeps."""
        machine.disks.append(attachment)
        machine.disks.sort(key=lambda each: not each.boot)
        attachment.disk.attached_at = self.now

    def detach(self, machine: Machine, attachment: Attachment) -> None:
        """Take a disk away from a machine."""
        machine.disks.remove(attachment)
        attachment.disk.detached_at = self.now

    def detach_disk(self, machine: Machine, device: str, *, user: str = CALLER) -> Operation:
        """Take the disk of that device name away; the boot disk only while the machine is off."""
        attachment = next((each for each in machine.disks if each.device == device), None)
        if attachment is None:
            raise Refusal.invalid(
                f"Invalid value for field 'disk': '{device}'. No attached disk found with device name '{device}'"
            )

        def apply() -> OperationError | None:
            if attachment not in machine.disks or (attachment.boot and not machine.is_off):
                return not_ready(machine.path)
            self.detach(machine, attachment)
            return None

        return self.edit(self.open("detachDisk", machine, user), apply)


def mode_in(body: Body) -> Mode:
    """Read how a disk is to be used. Raises `Refusal`."""
    mode = body.get("mode", "READ_WRITE")
    if mode not in ("READ_WRITE", "READ_ONLY"):
        raise Refusal.invalid(f"Invalid value at 'resource.mode': {mode!r}")
    return mode


def fitting(machine: Machine, wanted: catalog.MachineType) -> tuple[str, int]:
    """Find the GPUs, their kind and number, that a machine has once it is of another size. Raises `Refusal`."""
    if wanted.accelerator:
        if machine.accelerators and machine.accelerator != wanted.accelerator:
            raise _unfit(machine.accelerator, wanted)
        return wanted.accelerator, wanted.accelerators
    if catalog.MACHINE_TYPES[machine.machine_type].accelerator:
        return "", 0
    if machine.accelerators and wanted.family not in catalog.GPU_FAMILIES:
        raise _unfit(machine.accelerator, wanted)
    return machine.accelerator, machine.accelerators


def _unfit(accelerator: str, wanted: catalog.MachineType) -> Refusal:
    return Refusal.invalid(f"[{wanted.name}, {accelerator}] features are not compatible for creating instance.")


def _condition_not_met(words: str) -> OperationError:
    return OperationError(code="CONDITION_NOT_MET", message=words, http_status=412, http_message="PRECONDITION FAILED")
