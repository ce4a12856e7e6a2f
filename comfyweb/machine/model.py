"""What a machine is: the words that every other module uses. Frozen data, no behaviour beyond reading itself.

Times are timezone-aware UTC, durations are `timedelta`, money is `Decimal` in US dollars. Compute Engine's
words (RUNNING, TERMINATED, zone, operation, fingerprint) and ComfyUI's (prompt, queue, node) are theirs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum


class Phase(StrEnum):
    """Where the machine is, in the words of the page and of REST."""

    OFF = "off"
    WAITING = "waiting"
    STARTING = "starting"
    BOOTING = "booting"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    FAULT = "fault"
    MISSING = "missing"


class Wanted(StrEnum):
    """What somebody asked the machine to be."""

    ON = "on"
    OFF = "off"


class StopMode(StrEnum):
    """How to stop: let running and queued prompts finish first, or at once."""

    DRAIN = "drain"
    NOW = "now"


class Verb(StrEnum):
    """A call that changes something at Compute Engine."""

    START = "start"
    STOP = "stop"
    SET_METADATA = "set-metadata"
    SET_SCHEDULING = "set-scheduling"


class StopReason(StrEnum):
    """Why a run ended. `stops.py` has the words."""

    IDLE = "idle"
    DRAINED = "drained"
    STOPPED_NOW = "stopped-now"
    MAX_RUN_DURATION = "max-run-duration"
    PREEMPTED = "preempted"
    ELSEWHERE = "elsewhere"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that went wrong, in words for the person at the page.

    `passes` says whether it goes away by itself; `retry` whether the loop may repeat the call without asking.
    """

    code: str
    title: str
    what: str
    todo: str
    passes: bool = False
    retry: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One call to Compute Engine. Stored with its `request_id` before the call is made.

    `operation` is empty until Google answered with one; `ended_at` is set once the operation is DONE or the
    call was refused, and `fault` says why when it failed.
    """

    id: int
    verb: Verb
    zone: str
    request_id: str
    made_at: datetime
    intent_id: int | None = None
    operation: str = ""
    ended_at: datetime | None = None
    fault: Fault | None = None

    @property
    def in_flight(self) -> bool:
        """Whether its outcome is still unknown."""
        return self.ended_at is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """What somebody asked for and has neither got nor been refused yet."""

    id: int
    wanted: Wanted
    asked_at: datetime
    mode: StopMode = StopMode.DRAIN
    by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One period during which the machine was on, from Compute Engine's `lastStartTimestamp` to its end."""

    id: int
    started_at: datetime
    asked_at: datetime | None = None
    ready_at: datetime | None = None
    ended_at: datetime | None = None
    reason: StopReason | None = None
    stops_at: datetime | None = None
    boot_id: str = ""

    @property
    def ours(self) -> bool:
        """Whether comfyweb started it; otherwise it was found running and adopted."""
        return self.asked_at is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduling:
    """The part of Compute Engine's `scheduling` that comfyweb reads. Seconds; None where it is not set."""

    max_run_seconds: int | None = None
    termination_action: str = ""
    provisioning_model: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSeen:
    """What Compute Engine said of the machine. `at` is when the question was sent: nothing in it is newer."""

    at: datetime
    status: str
    zone: str
    machine_type: str = ""
    accelerators: tuple[tuple[str, int], ...] = ()
    external_ip: str = ""
    last_started: datetime | None = None
    last_stopped: datetime | None = None
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    scheduling: Scheduling = Scheduling()
    terminates_at: datetime | None = None
    preemptible: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineMissing:
    """Compute Engine said that there is no such machine."""

    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of the host's boot. `state` is `waiting`, `running`, `done` or `failed`; seconds."""

    name: str
    state: str
    seconds: float | None = None
    expected_seconds: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSeen:
    """What the host said of itself, by HTTPS (`_host/status`) or by guest attributes (a shorter form)."""

    at: datetime
    boot_id: str
    phase: str
    by_https: bool = True
    host_version: str = ""
    steps: tuple[Step, ...] = ()
    comfyui_ready: bool = False
    comfyui_version: str = ""
    queue_running: int | None = 0
    queue_pending: int | None = 0
    percent: float | None = None
    node: str = ""
    last_activity: datetime | None = None
    stops_at: datetime | None = None
    drain_until: datetime | None = None
    drain_remaining: int | None = None
    warnings: tuple[str, ...] = ()

    @property
    def jobs(self) -> int:
        """Prompts that are known to run or wait."""
        return (self.queue_running or 0) + (self.queue_pending or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What was last heard, each with its time. Never guessed; `decide` judges its age.

    `machine_fault` is set while the newest look at Compute Engine failed; `attempts` are the newest calls,
    oldest first; `phase` is the phase decided before, and `since` when it was first.
    """

    machine: MachineSeen | MachineMissing | None = None
    machine_fault: Fault | None = None
    host: HostSeen | None = None
    attempts: tuple[Attempt, ...] = ()
    run: Run | None = None
    phase: Phase | None = None
    since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What `decide` is held to; made from the settings once.

    `metadata` are the keys that the machine must carry before a start (an empty value means: must be absent),
    `running_metadata` the names among them that are also kept right while it runs.
    """

    metadata: Mapping[str, str]
    running_metadata: frozenset[str]
    max_run: timedelta
    drain: timedelta
    start_patience: timedelta = timedelta(minutes=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """An estimate of what an hour costs. `source` says where and when the figures come from."""

    per_hour: Decimal
    source: str
    currency: str = "USD"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Call Compute Engine: store a new attempt first, then call."""

    verb: Verb


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """Repeat a stored attempt whose answer was lost, with the same request id."""

    attempt: Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class AskDrain:
    """Ask the host to let no new prompt in and to power off when the others are done, at the latest at `until`."""

    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelDrain:
    """Ask the host to go on working after all."""


Act = Call | Replay | AskDrain | CancelDrain


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How an intent ended: `fault` is None when the person got what they asked for."""

    fault: Fault | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What follows from an observation: the phase to show, what to do, the intent's end, and when to look again."""

    phase: Phase
    act: Act | None = None
    verdict: Verdict | None = None
    machine_every: timedelta
    host_every: timedelta | None = None
    fault: Fault | None = None
