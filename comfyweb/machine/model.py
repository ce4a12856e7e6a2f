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
    FORCE_STOP = "force-stop"
    SET_METADATA = "set-metadata"
    SET_SCHEDULING = "set-scheduling"
    SEND_COMMANDS = "send-commands"


class Guard(StrEnum):
    """What stops a machine that nobody stops: its intents carry this as `by`, which no session's id can be."""

    SESSION_CAP = "guard:session-cap"
    SILENT_HOST = "guard:silent-host"


class StopReason(StrEnum):
    """Why a run ended. `stops.py` has the words."""

    IDLE = "idle"
    DRAINED = "drained"
    STOPPED_NOW = "stopped-now"
    SESSION_CAP = "session-cap"
    SILENT_HOST = "silent-host"
    MAX_RUN_DURATION = "max-run-duration"
    PREEMPTED = "preempted"
    ELSEWHERE = "elsewhere"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that went wrong, in words for the person at the page.

    `passes` says whether it goes away by itself. `retry` says when the loop repeats the call without asking anybody:
    so many seconds after each failure in turn, the last of them from then on; never when it is empty.
    """

    code: str
    title: str
    what: str
    todo: str
    passes: bool = False
    retry: tuple[int, ...] = ()


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
    """What somebody asked for and has neither got nor been refused yet. `by` is a session's id, or a `Guard`."""

    id: int
    wanted: Wanted
    asked_at: datetime
    mode: StopMode = StopMode.DRAIN
    by: str = ""

    @property
    def guard(self) -> Guard | None:
        """Return the guard that asked for it; None for a person."""
        return next((guard for guard in Guard if guard == self.by), None)


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
    """What Compute Engine said of the machine. `at` is when the question was sent: nothing in it is newer.

    `told_at` is when it was answered by Google's clock, in whole seconds; None when that is unknown. `disks` are the
    names under which its guest finds them. `service_account` is the email of the one it runs with, empty without one.
    """

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
    told_at: datetime | None = None
    disks: tuple[str, ...] = ()
    service_account: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineMissing:
    """Compute Engine said that there is no such machine."""

    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """A limit of a project, by Google's name for it, and how much of it is used."""

    metric: str
    limit: float
    usage: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of the host's boot. `state` is `waiting`, `running`, `done` or `failed`; seconds."""

    name: str
    state: str
    seconds: float | None = None
    expected_seconds: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """The certificate that the host has: `mode` is `none`, `self-signed`, `letsencrypt` or `cloudflare`.

    `trusted` says whether browsers take it without asking, as far as the machine can tell.
    """

    mode: str
    trusted: bool
    name: str = ""
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSeen:
    """What the host said of itself, by HTTPS (`_host/status`) or by guest attributes (a shorter form).

    `acks` are the commands that it took from metadata lately, by their `jti`.
    """

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
    certificate: Certificate | None = None
    acks: tuple[str, ...] = ()

    @property
    def jobs(self) -> int:
        """Prompts that are known to run or wait."""
        return (self.queue_running or 0) + (self.queue_pending or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class NameSeen:
    """Where ComfyUI's name leads. `addresses` is None when no name server answered, and empty when it has none.

    Of a name behind a proxy `reached` says whether the machine's host answered by it, and `reached_words` what did
    instead; None is unknown.
    """

    name: str
    addresses: tuple[str, ...] | None
    reached: bool | None = None
    reached_words: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What was last heard, each with its time. Never guessed; `decide` judges its age.

    `machine_fault` is set while the newest look at Compute Engine failed; `attempts` are the newest calls, oldest
    first; `call_fault` says why one that is still in flight has no answer, if that is known, and a call that was lost
    is not repeated before `call_again`; `phase` is the phase decided before, and `since` when it was first. `silence`
    is how long the host of this run has been asked in vain, by both channels, since its boot's grace time was over; it
    is measured on a clock that never jumps, and only while we listened. `name` is where ComfyUI's name leads,
    and `unheard` why the host did not answer by HTTPS when it was asked last, empty when it did.
    """

    machine: MachineSeen | MachineMissing | None = None
    machine_fault: Fault | None = None
    call_fault: Fault | None = None
    call_again: datetime | None = None
    host: HostSeen | None = None
    attempts: tuple[Attempt, ...] = ()
    run: Run | None = None
    phase: Phase | None = None
    since: datetime | None = None
    silence: timedelta = timedelta()
    name: NameSeen | None = None
    unheard: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What `decide` is held to; made from the settings once.

    `metadata` are the keys that the machine must carry before a start (an empty value means: must be absent),
    `running_metadata` the names among them that are also kept right while it runs.
    """

    metadata: Mapping[str, str]
    running_metadata: frozenset[str]
    max_run: timedelta
    session_cap: timedelta
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
    """Ask the host to let no new prompt in and to power off when the others are done, at the latest at `until`.

    With `stay` it keeps the machine on until then although nothing runs: people were promised that time.
    """

    until: datetime
    stay: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelDrain:
    """Ask the host to go on working after all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Enforce:
    """Store a guard's intent to stop; it is carried out as a person's would be."""

    guard: Guard
    mode: StopMode


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """A run that `guard` will stop at the time `at`, if nothing changes."""

    guard: Guard
    at: datetime


Act = Call | Replay | AskDrain | CancelDrain | Enforce


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How an intent ended: `fault` is None when the person got what they asked for."""

    fault: Fault | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What follows from an observation: the phase to show, what to do, the intent's end, and when to look again.

    `retry_at` is when the call that `fault` tells of is repeated; None where that is not settled, or soon and often.
    """

    phase: Phase
    act: Act | None = None
    verdict: Verdict | None = None
    machine_every: timedelta
    host_every: timedelta | None = None
    fault: Fault | None = None
    retry_at: datetime | None = None
    ending: Ending | None = None
