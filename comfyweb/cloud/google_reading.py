"""Reading Google's answers: the fields that comfyweb looks at, with their types, and what is made of them.

The client's own messages are typed only in part. The protocols here name what is read of them; `google_calls` casts to
them once, and everything after that is checked.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Protocol

from comfyweb.machine.faults import classify
from comfyweb.machine.model import Fault, MachineSeen, Scheduling

_BAD_REQUEST = 400


class Item(Protocol):
    """A metadata entry, or a guest attribute."""

    key: str
    value: str


class GuestItem(Item, Protocol):
    """A guest attribute."""

    namespace: str


class Metadata(Protocol):
    """`instance.metadata`."""

    fingerprint: str
    items: Sequence[Item]


class GuestValue(Protocol):
    """The list in an answer to getGuestAttributes."""

    items: Sequence[GuestItem]


class GuestAttributes(Protocol):
    """An answer to getGuestAttributes."""

    query_value: GuestValue


class Duration(Protocol):
    """A span of time."""

    seconds: int


class SchedulingShape(Protocol):
    """`instance.scheduling`; `in` tells whether a field was sent."""

    max_run_duration: Duration
    instance_termination_action: str
    provisioning_model: str
    preemptible: bool

    def __contains__(self, field: str) -> bool: ...


class Accelerator(Protocol):
    """One kind of GPU of a machine."""

    accelerator_type: str
    accelerator_count: int


class AccessConfig(Protocol):
    """How a machine is reached from outside."""

    nat_i_p: str


class NetworkInterface(Protocol):
    """A network card of a machine."""

    access_configs: Sequence[AccessConfig]


class AttachedDisk(Protocol):
    """A disk of a machine."""

    device_name: str


class ServiceAccount(Protocol):
    """Whom a machine runs as."""

    email: str


class SchedulingStatus(Protocol):
    """`instance.resource_status.scheduling`."""

    termination_timestamp: str


class ResourceStatus(Protocol):
    """`instance.resource_status`."""

    scheduling: SchedulingStatus


class Instance(Protocol):
    """A machine."""

    name: str
    status: str
    machine_type: str
    guest_accelerators: Sequence[Accelerator]
    network_interfaces: Sequence[NetworkInterface]
    disks: Sequence[AttachedDisk]
    service_accounts: Sequence[ServiceAccount]
    last_start_timestamp: str
    last_stop_timestamp: str
    metadata: Metadata
    scheduling: SchedulingShape
    resource_status: ResourceStatus


class ErrorInfo(Protocol):
    """What a program may read of a reason."""

    metadatas: Mapping[str, str]


class ErrorDetail(Protocol):
    """One of several things said of a reason."""

    error_info: ErrorInfo


class OperationError(Protocol):
    """One reason why an operation failed."""

    code: str
    message: str
    error_details: Sequence[ErrorDetail]


class OperationErrors(Protocol):
    """`operation.error`."""

    errors: Sequence[OperationError]


class Operation(Protocol):
    """What became of a call."""

    name: str
    status: object
    error: OperationErrors
    http_error_status_code: int
    http_error_message: str


class Permissions(Protocol):
    """An answer to testIamPermissions."""

    permissions: Sequence[str]


def machine_seen(instance: Instance, zone: str, at: datetime, date: str) -> MachineSeen:
    """Return what an answer to instances.get says of the machine; `date` is its Date header."""
    configs = [config for card in instance.network_interfaces for config in card.access_configs]
    return MachineSeen(
        at=at,
        status=instance.status,
        zone=zone,
        machine_type=_last(instance.machine_type),
        accelerators=tuple((_last(gpu.accelerator_type), gpu.accelerator_count) for gpu in instance.guest_accelerators),
        external_ip=next((config.nat_i_p for config in configs if config.nat_i_p), ""),
        last_started=_time(instance.last_start_timestamp),
        last_stopped=_time(instance.last_stop_timestamp),
        metadata=values(instance.metadata.items),
        scheduling=scheduling_seen(instance.scheduling),
        terminates_at=_time(instance.resource_status.scheduling.termination_timestamp),
        preemptible=instance.scheduling.preemptible or instance.scheduling.provisioning_model == "SPOT",
        told_at=_date(date),
        disks=tuple(disk.device_name for disk in instance.disks),
        service_account=next((account.email for account in instance.service_accounts), ""),
    )


def scheduling_seen(scheduling: SchedulingShape) -> Scheduling:
    """Return the part of `scheduling` that comfyweb reads."""
    return Scheduling(
        max_run_seconds=scheduling.max_run_duration.seconds if "max_run_duration" in scheduling else None,
        termination_action=scheduling.instance_termination_action,
        provisioning_model=scheduling.provisioning_model,
    )


def values(items: Sequence[Item]) -> dict[str, str]:
    """Return a list of keys and values by key; a key without a value has an empty one."""
    return {item.key: item.value for item in items}


def operation_fault(operation: Operation) -> Fault | None:
    """Return why an operation that is DONE has failed, None when it has not.

    `error.errors` is read first: one without an HTTP status is a failure too, though the client's own polling takes it
    for success.
    """
    faults = [classify(entry.code, entry.message, elsewhere=_elsewhere(entry)) for entry in operation.error.errors]
    if faults:
        return next((fault for fault in faults if fault.code != "unknown"), faults[0])
    code = operation.http_error_status_code
    return classify("", operation.http_error_message, http_status=code) if code >= _BAD_REQUEST else None


def _elsewhere(error: OperationError) -> list[str]:
    """Return the zones that have what this one lacks, where Google says so."""
    said = (detail.error_info.metadatas.get("zonesAvailable", "") for detail in error.error_details)
    return [name.strip() for zones in said for name in zones.split(",")]


def _last(address: str) -> str:
    return address.rpartition("/")[2]


def _time(text: str) -> datetime | None:
    """Read a time of Google's (RFC 3339 with an offset); None when there is none that makes sense."""
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else None
    except (ValueError, OverflowError):
        return None


def _date(header: str) -> datetime | None:
    """Read an HTTP date (RFC 9110, 5.6.7), which is in UTC."""
    try:
        return parsedate_to_datetime(header).replace(tzinfo=UTC)
    except ValueError:
        return None
