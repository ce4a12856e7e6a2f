"""What the emulated Compute Engine consists of: machines, disks and the like, operations, refusals, its pace."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Literal, Protocol

PROJECT = "demo-project"
PROJECT_NUMBER = 464646464646
SERVICE_ACCOUNT = f"{PROJECT_NUMBER}-compute@developer.gserviceaccount.com"
"""Whom each machine runs as: Compute Engine's default one."""
CALLER = f"comfyweb@{PROJECT}.iam.gserviceaccount.com"
SYSTEM = "system"


class Status(StrEnum):
    """Compute Engine's words for a machine. Only the first five are reached by themselves; see `World.put_in`."""

    PROVISIONING = "PROVISIONING"
    STAGING = "STAGING"
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"
    TERMINATED = "TERMINATED"
    SUSPENDING = "SUSPENDING"
    SUSPENDED = "SUSPENDED"
    REPAIRING = "REPAIRING"
    DEPROVISIONING = "DEPROVISIONING"


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """How long Compute Engine takes. `pending` is what passes before an accepted operation begins to show."""

    pending: timedelta = timedelta(milliseconds=200)
    provisioning: timedelta = timedelta(seconds=4)
    staging: timedelta = timedelta(seconds=4)
    stopping: timedelta = timedelta(seconds=5)
    edit: timedelta = timedelta(milliseconds=500)

    @classmethod
    def fast(cls) -> "Times":
        """Every transition in at most 0.3 s, a start in 0.3 s altogether."""
        return cls(
            pending=timedelta(milliseconds=20),
            provisioning=timedelta(milliseconds=120),
            staging=timedelta(milliseconds=160),
            stopping=timedelta(milliseconds=250),
            edit=timedelta(milliseconds=50),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationError:
    """How an accepted operation fails: its code, its words and the HTTP status that goes with them."""

    code: str
    message: str
    http_status: int
    http_message: str
    details: Sequence[Mapping[str, Any]] = ()


class Refusal(Exception):
    """A call that is refused at once. `status`, `reason` and `message` make Google's error frame."""

    def __init__(self, status: int, reason: str, message: str, *, domain: str = "global") -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.domain = domain

    @classmethod
    def not_found(cls, what: str) -> "Refusal":
        """Google's 404: `what` is the path of a resource."""
        return cls(404, "notFound", f"The resource '{what}' was not found")

    @classmethod
    def invalid(cls, message: str) -> "Refusal":
        """Google's 400 for a value that cannot be."""
        return cls(400, "invalid", message)

    @classmethod
    def exists(cls, path: str) -> "Refusal":
        """Google's 409 for a name that is taken."""
        return cls(409, "alreadyExists", f"The resource '{path}' already exists")

    @classmethod
    def in_use(cls, kind: str, path: str, user: str) -> "Refusal":
        """Google's 400 for what another resource uses (hashicorp/terraform#12760, #23698)."""
        return cls(400, "resourceInUseByAnotherResource", in_use(kind, path, user))


def in_use(kind: str, path: str, user: str) -> str:
    """Google's words for what another resource uses."""
    return f"The {kind} resource '{path}' is already being used by '{user}'"


class Resource(Protocol):
    """What an operation works on. `scope` is the part of its path that says where: `projects/P/zones/Z`."""

    @property
    def id(self) -> int:
        """Its number."""
        ...

    @property
    def scope(self) -> str:
        """Where it is."""
        ...

    @property
    def path(self) -> str:
        """Its path, from `projects/` on."""
        ...


@dataclass(slots=True, kw_only=True)
class Operation:
    """An operation in `scope`. `ended_at` is None while its end is unknown; `error` says how it failed."""

    name: str
    id: int
    kind: str
    scope: str
    target: str
    target_id: int
    user: str
    inserted_at: datetime
    started_at: datetime
    ended_at: datetime | None = None
    error: OperationError | None = None
    request_id: str = ""

    def status(self, now: datetime) -> str:
        """`PENDING`, `RUNNING` or `DONE`."""
        if self.ended_at is not None:
            return "DONE"
        return "PENDING" if now < self.started_at else "RUNNING"

    def end(self, at: datetime, error: OperationError | None = None) -> None:
        """Be DONE since `at`."""
        self.ended_at = at
        self.started_at = min(self.started_at, at)
        self.error = error


@dataclass(frozen=True, slots=True)
class Step:
    """A state that a machine will be in from `at` on; `None` is the state of a machine that was deleted."""

    at: datetime
    status: Status | None
    error: OperationError | None = None


Mode = Literal["READ_WRITE", "READ_ONLY"]


def region_of(zone: str) -> str:
    """Name the region that a zone is in."""
    return zone.rpartition("-")[0]


@dataclass(slots=True, kw_only=True)
class Disk:
    """A zonal disk. `state` is CREATING, READY or DELETING; `source` the path of the snapshot or image it came from."""

    name: str
    zone: str
    id: int
    created_at: datetime
    project: str = PROJECT
    kind: str = "pd-balanced"
    size_gb: int = 10
    state: str = "READY"
    source: str = ""
    source_id: int = 0
    description: str = ""
    labels: dict[str, str] = field(default_factory=dict[str, str])
    attached_at: datetime | None = None
    detached_at: datetime | None = None

    @property
    def scope(self) -> str:
        """Its zone's path."""
        return f"projects/{self.project}/zones/{self.zone}"

    @property
    def path(self) -> str:
        """Its path."""
        return f"{self.scope}/disks/{self.name}"


@dataclass(slots=True, kw_only=True)
class Attachment:
    """A disk at a machine. `device` is the name under which the guest finds it: /dev/disk/by-id/google-DEVICE."""

    disk: Disk
    device: str
    mode: Mode = "READ_WRITE"
    boot: bool = False
    auto_delete: bool = False


@dataclass(slots=True, kw_only=True)
class Snapshot:
    """A copy of a disk, usable in every zone of the project. `state` is CREATING, READY or DELETING."""

    name: str
    id: int
    created_at: datetime
    source: str
    source_id: int
    size_gb: int
    project: str = PROJECT
    state: str = "CREATING"
    description: str = ""
    labels: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def scope(self) -> str:
        """The project's, for all zones."""
        return f"projects/{self.project}/global"

    @property
    def path(self) -> str:
        """Its path."""
        return f"{self.scope}/snapshots/{self.name}"


@dataclass(slots=True, kw_only=True)
class Address:
    """An external address that was reserved in a region: nobody else gets it. `state` is RESERVING or RESERVED."""

    name: str
    region: str
    id: int
    created_at: datetime
    address: str
    project: str = PROJECT
    state: str = "RESERVING"
    description: str = ""
    labels: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def scope(self) -> str:
        """Its region's path."""
        return f"projects/{self.project}/regions/{self.region}"

    @property
    def path(self) -> str:
        """Its path."""
        return f"{self.scope}/addresses/{self.name}"


@dataclass(slots=True, kw_only=True)
class AccessConfig:
    """A machine's way to an external address: `reserved`, or else one that it gets at each start."""

    name: str = "External NAT"
    reserved: str = ""


@dataclass(slots=True, kw_only=True)
class Machine:
    """An instance. `doing` is the verb whose `steps` lie ahead and whose `operations` end with the last of them.

    `boot_id` is empty while the guest has no electricity. `guest_attributes` are namespace, key, value. `admitted`: its
    processors, GPUs and address count against the quota. `made_with`: the disks that go if its insertion fails.
    """

    name: str
    zone: str
    id: int
    created_at: datetime
    project: str = PROJECT
    status: Status = Status.TERMINATED
    machine_type: str = "n1-standard-4"
    accelerator: str = "nvidia-tesla-t4"
    accelerators: int = 1
    internal_ip: str = "10.128.0.2"
    external_ip: str = ""
    access: AccessConfig | None = field(default_factory=AccessConfig)
    disks: list[Attachment] = field(default_factory=list[Attachment])
    boot_id: str = ""
    last_start: datetime | None = None
    last_stop: datetime | None = None
    terminates_at: datetime | None = None
    preempted: bool = False
    admitted: bool = False
    made_with: list[Disk] = field(default_factory=list[Disk])
    description: str = ""
    labels: dict[str, str] = field(default_factory=dict[str, str])
    tags: list[str] = field(default_factory=lambda: ["http-server", "https-server"])
    metadata: dict[str, str] = field(default_factory=dict[str, str])
    scheduling: dict[str, Any] = field(default_factory=dict[str, Any])
    guest_attributes: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    serial: str = ""
    doing: str = ""
    steps: list[Step] = field(default_factory=list[Step])
    operations: list[Operation] = field(default_factory=list[Operation])

    @property
    def scope(self) -> str:
        """Its zone's path."""
        return f"projects/{self.project}/zones/{self.zone}"

    @property
    def path(self) -> str:
        """Its path."""
        return f"{self.scope}/instances/{self.name}"

    @property
    def is_off(self) -> bool:
        """Whether it is TERMINATED and nothing is about to change that."""
        return self.status is Status.TERMINATED and not self.doing

    @property
    def guest_attributes_enabled(self) -> bool:
        """Whether the metadata allows the guest to write attributes, and others to read them."""
        return self.metadata.get("enable-guest-attributes", "").upper() == "TRUE"

    def attachment(self, disk: Disk) -> Attachment | None:
        """Find how a disk is attached to it."""
        return next((each for each in self.disks if each.disk is disk), None)
