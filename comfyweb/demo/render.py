"""The world in Compute Engine's JSON: ids and 64-bit numbers are strings, what is empty is left out."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from comfyweb.demo.bodies import fingerprint_of
from comfyweb.demo.model import Machine, Operation, OperationError, Refusal, Status
from comfyweb.demo.world import PROJECT, World

ROOT = "https://www.googleapis.com/compute/v1"
PROJECT_LINK = f"{ROOT}/projects/{PROJECT}"
PROJECT_NUMBER = 464646464646
_PACIFIC = timezone(timedelta(hours=-8))
_OFF = frozenset({Status.TERMINATED, Status.SUSPENDED, Status.PROVISIONING})


def at(time: datetime) -> str:
    """RFC 3339 with milliseconds and the offset of California, as Google writes it."""
    return time.astimezone(_PACIFIC).isoformat(timespec="milliseconds")


def zone_link(zone: str) -> str:
    """Write the address of a zone."""
    return f"{PROJECT_LINK}/zones/{zone}"


def machine_link(machine: Machine) -> str:
    """Write the address of a machine."""
    return f"{zone_link(machine.zone)}/instances/{machine.name}"


def _present(**fields: object) -> dict[str, Any]:
    """Keep the fields that have a value."""
    return {name: value for name, value in fields.items() if value not in (None, "", [], {})}


def instance(machine: Machine) -> dict[str, Any]:
    """Write a machine as `instances.get` answers it."""
    zone = zone_link(machine.zone)
    terminates = machine.terminates_at
    return _present(
        kind="compute#instance",
        id=str(machine.id),
        creationTimestamp=at(machine.created_at),
        name=machine.name,
        tags={"items": ["http-server", "https-server"], "fingerprint": "6smc4R4d39I="},
        machineType=f"{zone}/machineTypes/{machine.machine_type}",
        status=machine.status.value,
        zone=zone,
        canIpForward=False,
        networkInterfaces=[_network(machine)],
        disks=[_disk(machine, 0, machine.name, "50"), _disk(machine, 1, "comfyui", "200")],
        metadata=metadata(machine),
        serviceAccounts=[
            {
                "email": f"{PROJECT_NUMBER}-compute@developer.gserviceaccount.com",
                "scopes": ["https://www.googleapis.com/auth/devstorage.read_only"],
            }
        ],
        selfLink=machine_link(machine),
        scheduling=machine.scheduling,
        cpuPlatform="Unknown CPU Platform" if machine.status in _OFF else "Intel Broadwell",
        labelFingerprint="42WmSpB8rSM=",
        startRestricted=False,
        deletionProtection=False,
        fingerprint=fingerprint_of({"status": machine.status, "ip": machine.external_ip}),
        guestAccelerators=[
            {"acceleratorType": f"{zone}/acceleratorTypes/{machine.accelerator}", "acceleratorCount": 1}
        ],
        lastStartTimestamp=at(machine.last_start) if machine.last_start else None,
        lastStopTimestamp=at(machine.last_stop) if machine.last_stop else None,
        resourceStatus={"scheduling": {"terminationTimestamp": at(terminates)} if terminates else {}},
    )


def _network(machine: Machine) -> dict[str, Any]:
    region = machine.zone.rpartition("-")[0]
    access = _present(
        kind="compute#accessConfig",
        type="ONE_TO_ONE_NAT",
        name="External NAT",
        natIP=machine.external_ip,
        networkTier="PREMIUM",
    )
    return {
        "kind": "compute#networkInterface",
        "network": f"{PROJECT_LINK}/global/networks/default",
        "subnetwork": f"{PROJECT_LINK}/regions/{region}/subnetworks/default",
        "networkIP": machine.internal_ip,
        "name": "nic0",
        "accessConfigs": [access],
        "fingerprint": "FQJqxSQcJUc=",
        "stackType": "IPV4_ONLY",
    }


def _disk(machine: Machine, index: int, name: str, size: str) -> dict[str, Any]:
    boot = index == 0
    return {
        "kind": "compute#attachedDisk",
        "type": "PERSISTENT",
        "mode": "READ_WRITE",
        "source": f"{zone_link(machine.zone)}/disks/{name}",
        "deviceName": "persistent-disk-0" if boot else name,
        "index": index,
        "boot": boot,
        "autoDelete": boot,
        "interface": "SCSI",
        "diskSizeGb": size,
    }


def metadata(machine: Machine) -> dict[str, Any]:
    """Write a machine's metadata with its fingerprint."""
    items = [{"key": key, "value": value} for key, value in machine.metadata.items()]
    return _present(kind="compute#metadata", fingerprint=fingerprint_of(machine.metadata), items=items)


def operation(found: Operation, now: datetime) -> dict[str, Any]:
    """Write an operation as `zoneOperations.get` answers it."""
    zone = zone_link(found.zone)
    status = found.status(now)
    error = found.error
    return {
        **_present(
            kind="compute#operation",
            id=str(found.id),
            name=found.name,
            zone=zone,
            clientOperationId=found.request_id,
            operationType=found.kind,
            targetLink=f"{zone}/instances/{found.target}",
            targetId=str(found.target_id),
            status=status,
            user=found.user,
            insertTime=at(found.inserted_at),
            startTime=at(found.started_at) if status != "PENDING" else None,
            endTime=at(found.ended_at) if found.ended_at else None,
            selfLink=f"{zone}/operations/{found.name}",
        ),
        "progress": 100 if found.ended_at else 0,
        **(_failure(error) if error else {}),
    }


def _failure(error: OperationError) -> dict[str, Any]:
    return {
        "error": {"errors": [_present(code=error.code, message=error.message, errorDetails=list(error.details))]},
        "httpErrorStatusCode": error.http_status,
        "httpErrorMessage": error.http_message,
    }


def zone(name: str, world: World) -> dict[str, Any]:
    """Write a zone as `zones.get` answers it."""
    return {
        "kind": "compute#zone",
        "id": str(2000 + world.zones.index(name)),
        "creationTimestamp": "1969-12-31T16:00:00.000-08:00",
        "name": name,
        "description": name,
        "status": "UP",
        "region": f"{PROJECT_LINK}/regions/{name.rpartition('-')[0]}",
        "selfLink": zone_link(name),
        "availableCpuPlatforms": ["Intel Broadwell", "Intel Skylake"],
    }


def project(world: World) -> dict[str, Any]:
    """Write the project as `projects.get` answers it."""
    return {
        "kind": "compute#project",
        "id": str(PROJECT_NUMBER),
        "creationTimestamp": at(world.began),
        "name": PROJECT,
        "commonInstanceMetadata": {"kind": "compute#metadata", "fingerprint": fingerprint_of({})},
        "selfLink": PROJECT_LINK,
    }


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
    kind = {"kind": "compute#guestAttributes", "selfLink": f"{machine_link(machine)}/getGuestAttributes/{wanted}"}
    if variable_key:
        return {**kind, "variableKey": variable_key, "variableValue": values[key]}
    return {**kind, "queryPath": query_path, "queryValue": {"items": items}}


def serial(machine: Machine, start: int) -> dict[str, Any]:
    """Write what came out of the serial port since byte `start` (negative: that many from the end)."""
    written = machine.serial.encode()
    begin = max(0, len(written) + start) if start < 0 else min(start, len(written))
    return {
        "kind": "compute#serialPortOutput",
        "selfLink": f"{machine_link(machine)}/serialPort",
        "contents": written[begin:].decode(errors="replace"),
        "start": str(begin),
        "next": str(len(written)),
    }


def refusal(refused: Refusal) -> dict[str, Any]:
    """Write Google's error frame."""
    one = {"message": refused.message, "domain": refused.domain, "reason": refused.reason}
    return {"error": {"code": refused.status, "message": refused.message, "errors": [one]}}


def listing(kind: str, link: str, items: Sequence[Mapping[str, Any]], next_token: str) -> dict[str, Any]:
    """Write a list: `items` is left out when there are none."""
    return {
        **_present(kind=kind, items=list(items), nextPageToken=next_token),
        "id": link.removeprefix(f"{ROOT}/"),
        "selfLink": link,
    }
