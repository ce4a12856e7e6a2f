"""What people have, in Compute Engine's JSON: machines and what they say, disks, snapshots, addresses."""

from typing import Any

from comfyweb.demo.bodies import fingerprint_of
from comfyweb.demo.estate import Estate
from comfyweb.demo.model import (
    SERVICE_ACCOUNT,
    Address,
    Attachment,
    Disk,
    Machine,
    Refusal,
    Snapshot,
    Status,
    region_of,
)
from comfyweb.demo.render import at, link, present, where

_OFF = frozenset({Status.TERMINATED, Status.SUSPENDED, Status.PROVISIONING})
# The rules that every network begins with, and those that the console makes for a machine that serves the web:
# their names, protocols with ports, sources, and the tag of the machines that they are for.
_RULES: tuple[tuple[str, list[tuple[str, list[str]]], str, str], ...] = (
    ("default-allow-icmp", [("icmp", [])], "0.0.0.0/0", ""),
    ("default-allow-internal", [("tcp", ["0-65535"]), ("udp", ["0-65535"]), ("icmp", [])], "10.128.0.0/9", ""),
    ("default-allow-ssh", [("tcp", ["22"])], "0.0.0.0/0", ""),
    ("default-allow-http", [("tcp", ["80"])], "0.0.0.0/0", "http-server"),
    ("default-allow-https", [("tcp", ["443"])], "0.0.0.0/0", "https-server"),
)
LICENSE = "https://www.googleapis.com/compute/v1/projects/debian-cloud/global/licenses/debian-12-bookworm"


def instance(machine: Machine) -> dict[str, Any]:
    """Write a machine as `instances.get` answers it."""
    zone = link(machine.scope)
    terminates = machine.terminates_at
    return present(
        kind="compute#instance",
        id=str(machine.id),
        creationTimestamp=at(machine.created_at),
        name=machine.name,
        description=machine.description,
        tags=present(items=machine.tags, fingerprint=fingerprint_of(dict.fromkeys(machine.tags, ""))),
        machineType=f"{zone}/machineTypes/{machine.machine_type}",
        status=machine.status.value,
        zone=zone,
        canIpForward=False,
        networkInterfaces=[_network(machine)],
        disks=[_attached(attachment, index) for index, attachment in enumerate(machine.disks)],
        metadata=metadata(machine),
        serviceAccounts=[
            {
                "email": SERVICE_ACCOUNT,
                "scopes": ["https://www.googleapis.com/auth/devstorage.read_only"],
            }
        ],
        selfLink=link(machine.path),
        scheduling=machine.scheduling,
        cpuPlatform="Unknown CPU Platform" if machine.status in _OFF else "Intel Broadwell",
        labels=machine.labels,
        labelFingerprint=fingerprint_of(machine.labels),
        startRestricted=False,
        deletionProtection=False,
        fingerprint=fingerprint_of(
            {"status": machine.status, "ip": machine.external_ip, "type": machine.machine_type}
            | {each.device: each.disk.path for each in machine.disks}
        ),
        guestAccelerators=_accelerators(machine),
        lastStartTimestamp=at(machine.last_start) if machine.last_start else None,
        lastStopTimestamp=at(machine.last_stop) if machine.last_stop else None,
        resourceStatus={"scheduling": {"terminationTimestamp": at(terminates)} if terminates else {}},
    )


def _accelerators(machine: Machine) -> list[dict[str, Any]]:
    if not machine.accelerators:
        return []
    kind = f"{link(machine.scope)}/acceleratorTypes/{machine.accelerator}"
    return [{"acceleratorType": kind, "acceleratorCount": machine.accelerators}]


def _network(machine: Machine) -> dict[str, Any]:
    project = f"projects/{machine.project}"
    access = machine.access and present(
        kind="compute#accessConfig",
        type="ONE_TO_ONE_NAT",
        name=machine.access.name,
        natIP=machine.external_ip or machine.access.reserved,
        networkTier="PREMIUM",
    )
    return present(
        kind="compute#networkInterface",
        network=link(f"{project}/global/networks/default"),
        subnetwork=link(f"{project}/regions/{region_of(machine.zone)}/subnetworks/default"),
        networkIP=machine.internal_ip,
        name="nic0",
        accessConfigs=[access] if access else [],
        fingerprint=fingerprint_of({"access": str(access)}),
        stackType="IPV4_ONLY",
    )


def _attached(attachment: Attachment, index: int) -> dict[str, Any]:
    return {
        "kind": "compute#attachedDisk",
        "type": "PERSISTENT",
        "mode": attachment.mode,
        "source": link(attachment.disk.path),
        "deviceName": attachment.device,
        "index": index,
        "boot": attachment.boot,
        "autoDelete": attachment.auto_delete,
        "interface": "SCSI",
        "diskSizeGb": str(attachment.disk.size_gb),
    }


def firewalls(machine: Machine, estate: Estate) -> dict[str, Any]:
    """Write which of the firewall's rules apply to a machine, by its tags."""
    return {
        "firewalls": [
            present(
                kind="compute#firewall",
                id=str(1000 + index),
                creationTimestamp=at(estate.began),
                name=name,
                network=link(f"{estate.path}/global/networks/default"),
                priority=1000 if tag else 65534,
                sourceRanges=[source],
                targetTags=[tag] if tag else [],
                allowed=[present(IPProtocol=protocol, ports=ports) for protocol, ports in traffic],
                direction="INGRESS",
                logConfig={"enable": False},
                selfLink=link(f"{estate.path}/global/firewalls/{name}"),
            )
            | {"disabled": False}
            for index, (name, traffic, source, tag) in enumerate(_RULES)
            if not tag or tag in machine.tags
        ]
    }


def metadata(machine: Machine) -> dict[str, Any]:
    """Write a machine's metadata with its fingerprint."""
    items = [{"key": key, "value": value} for key, value in machine.metadata.items()]
    return present(kind="compute#metadata", fingerprint=fingerprint_of(machine.metadata), items=items)


def guest_attributes(machine: Machine, query_path: str, variable_key: str) -> dict[str, Any]:
    """Write what the guest said below `query_path` (`name/`, `name/key`) or as `variable_key`. Raises `Refusal`."""
    wanted = variable_key or query_path
    namespace, _, key = wanted.partition("/")
    values = machine.guest_attributes.get(namespace, {})
    items = [
        {"namespace": namespace, "key": name, "value": value} for name, value in values.items() if key in ("", name)
    ]
    if not items or (variable_key and not key):
        raise Refusal(404, "notFound", f"The resource '{wanted}' of type 'Guest Attribute' was not found.")
    kind = {"kind": "compute#guestAttributes", "selfLink": f"{link(machine.path)}/getGuestAttributes/{wanted}"}
    if variable_key:
        return {**kind, "variableKey": variable_key, "variableValue": values[key]}
    return {**kind, "queryPath": query_path, "queryValue": {"items": items}}


def serial(machine: Machine, start: int) -> dict[str, Any]:
    """Write what came out of the serial port since byte `start` (negative: that many from the end)."""
    written = machine.serial.encode()
    begin = max(0, len(written) + start) if start < 0 else min(start, len(written))
    return {
        "kind": "compute#serialPortOutput",
        "selfLink": f"{link(machine.path)}/serialPort",
        "contents": written[begin:].decode(errors="replace"),
        "start": str(begin),
        "next": str(len(written)),
    }


def disk(found: Disk, estate: Estate) -> dict[str, Any]:
    """Write a disk as `disks.get` answers it."""
    snapshot = "/snapshots/" in found.source
    source = {"sourceSnapshot" if snapshot else "sourceImage": link(found.source)} if found.source else {}
    return {
        **present(
            kind="compute#disk",
            id=str(found.id),
            creationTimestamp=at(found.created_at),
            name=found.name,
            description=found.description,
            sizeGb=str(found.size_gb),
            status=found.state,
            selfLink=link(found.path),
            sourceSnapshotId=str(found.source_id) if snapshot else "",
            type=link(f"{found.scope}/diskTypes/{found.kind}"),
            licenses=[LICENSE] if found.source and not snapshot else [],
            users=[link(machine.path) for machine in estate.users_of(found)],
            labels=found.labels,
            labelFingerprint=fingerprint_of(found.labels),
            lastAttachTimestamp=at(found.attached_at) if found.attached_at else None,
            lastDetachTimestamp=at(found.detached_at) if found.detached_at else None,
            physicalBlockSizeBytes="4096",
        ),
        **where(found.scope),
        **source,
    }


def snapshot(found: Snapshot) -> dict[str, Any]:
    """Write a snapshot as `snapshots.get` answers it."""
    return present(
        kind="compute#snapshot",
        id=str(found.id),
        creationTimestamp=at(found.created_at),
        name=found.name,
        description=found.description,
        status=found.state,
        sourceDisk=link(found.source),
        sourceDiskId=str(found.source_id),
        diskSizeGb=str(found.size_gb),
        storageBytes="0" if found.state == "CREATING" else str(found.size_gb * 2**20),
        storageBytesStatus="UPDATING" if found.state == "CREATING" else "UP_TO_DATE",
        selfLink=link(found.path),
        labels=found.labels,
        labelFingerprint=fingerprint_of(found.labels),
    )


def address(found: Address, estate: Estate) -> dict[str, Any]:
    """Write a reserved address as `addresses.get` answers it."""
    holder = estate.user_of(found)
    return {
        **present(
            kind="compute#address",
            id=str(found.id),
            creationTimestamp=at(found.created_at),
            name=found.name,
            description=found.description,
            address=found.address,
            status="IN_USE" if holder else found.state,
            selfLink=link(found.path),
            users=[link(holder.path)] if holder else [],
            networkTier="PREMIUM",
            addressType="EXTERNAL",
            labels=found.labels,
            labelFingerprint=fingerprint_of(found.labels),
        ),
        **where(found.scope),
    }
