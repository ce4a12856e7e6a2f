"""What the emulated Compute Engine consists of: machines, operations, how long things take, and its refusals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

CALLER = "comfyweb@demo-project.iam.gserviceaccount.com"
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


@dataclass(slots=True, kw_only=True)
class Operation:
    """A zone operation. `ended_at` is None while its end is unknown; `error` says how it failed."""

    name: str
    id: int
    kind: str
    zone: str
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


@dataclass(slots=True, kw_only=True)
class Machine:
    """An instance. `doing` is the verb whose `steps` lie ahead and whose `operations` end with the last of them.

    `boot_id` is empty while the guest has no electricity. `guest_attributes` are namespace, key, value.
    """

    name: str
    zone: str
    id: int
    created_at: datetime
    status: Status = Status.TERMINATED
    machine_type: str = "n1-standard-4"
    accelerator: str = "nvidia-tesla-t4"
    internal_ip: str = "10.128.0.2"
    external_ip: str = ""
    boot_id: str = ""
    last_start: datetime | None = None
    last_stop: datetime | None = None
    terminates_at: datetime | None = None
    preempted: bool = False
    metadata: dict[str, str] = field(default_factory=dict[str, str])
    scheduling: dict[str, Any] = field(default_factory=dict[str, Any])
    guest_attributes: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    serial: str = ""
    doing: str = ""
    steps: list[Step] = field(default_factory=list[Step])
    operations: list[Operation] = field(default_factory=list[Operation])

    @property
    def guest_attributes_enabled(self) -> bool:
        """Whether the metadata allows the guest to write attributes, and others to read them."""
        return self.metadata.get("enable-guest-attributes", "").upper() == "TRUE"
