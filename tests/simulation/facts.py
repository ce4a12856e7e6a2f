"""What truly happened, for the invariants to judge and for people to read: the story of a world-line."""

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from comfyweb.demo.model import Operation
from comfyweb.machine.model import Attempt, Fault, Intent, Run, StopMode, StopReason, Wanted
from comfyweb.machine.snapshot import Snapshot
from tests.simulation.virtual_time import BEGAN, VirtualTimeLoop


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How a run truly ended: by which operation, and what was going on inside."""

    started: datetime
    left: datetime
    kind: str
    by_us: bool
    system: bool
    request_id: str
    jobs: int
    why_off: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """An intent as it was stored, and which was open before it."""

    intent: Intent
    before: Intent | None
    wanted: Wanted
    mode: StopMode
    by: str


class Broken(AssertionError):
    """An invariant doesn't hold. `name` says which."""

    def __init__(self, name: str, words: str) -> None:
        super().__init__(f"{name}: {words}")
        self.name = name


class Invariant:
    """Something that must hold all the while. Each hook is called after what its name says; `broken` ends the run."""

    name = ""

    def __init__(self, facts: "Facts") -> None:
        self.facts = facts

    def broken(self, words: str) -> None:
        """Say that it doesn't hold."""
        self.facts.break_(self.name, words)

    def on_status(self) -> None: ...
    def on_look(self, fault: Fault | None) -> None: ...
    def on_ask(self, ask: Ask) -> None: ...
    def on_begin(self, attempt: Attempt) -> None: ...
    def on_intent_end(self, intent: Intent, fault: Fault | None) -> None: ...
    def on_run_end(self, run: Run, reason: StopReason) -> None: ...
    def on_operation(self, operation: Operation) -> None: ...
    def on_leave(self, end: End) -> None: ...
    def on_snapshot(self, before: Snapshot) -> None: ...
    def on_round(self) -> None: ...


@dataclass(slots=True)
class Facts:
    """Everything is written down here first, then shown to the invariants."""

    loop: VirtualTimeLoop
    trace: list[str] = field(default_factory=list[str])
    invariants: list[Invariant] = field(default_factory=list[Invariant])
    failure: Broken | None = None
    # The truth.
    changes: list[tuple[datetime, str]] = field(default_factory=list[tuple[datetime, str]])
    ends: dict[datetime, End] = field(default_factory=dict[datetime, End])
    touched_at: datetime = BEGAN
    healthy_since: datetime = BEGAN
    # What the app did and heard.
    asks: dict[int, Ask] = field(default_factory=dict[int, Ask])
    attempts: dict[str, Attempt] = field(default_factory=dict[str, Attempt])
    operations: list[Operation] = field(default_factory=list[Operation])
    open_intent: Intent | None = None
    look_sent: datetime = BEGAN
    look_fault: Fault | None = None
    look_good_at: datetime | None = None
    heard_at: datetime = BEGAN
    attributes_readable: bool = True
    asked_for_fewer_calls_at: datetime = BEGAN - timedelta(days=1)
    born_at: datetime = BEGAN
    alive: bool = False
    machine_every: timedelta = timedelta()
    snapshot: Snapshot | None = None
    waits: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=400))
    deaf_spans: deque[tuple[datetime, datetime]] = field(default_factory=lambda: deque(maxlen=400))
    policy_cap: timedelta = timedelta()
    policy_drain: timedelta = timedelta()

    @property
    def now(self) -> datetime:
        """The virtual time."""
        return self.loop.now()

    def say(self, text: str) -> None:
        """Add a line to the story."""
        seconds = self.loop.elapsed
        self.trace.append(f"{int(seconds // 3600):3d}:{int(seconds // 60) % 60:02d}:{seconds % 60:05.2f}  {text}")

    def break_(self, name: str, words: str) -> None:
        """Note that an invariant is broken, the first time."""
        if self.failure is None:
            self.failure = Broken(name, words)
            self.say(f"BROKEN {name}: {words}")
            raise self.failure

    # -- the truth ---------------------------------------------------------------------------------------------------

    def status(self, at: datetime, status: str) -> None:
        self.changes.append((at, status))
        self.say(f"machine: {status}")
        for each in self.invariants:
            each.on_status()

    @property
    def true_status(self) -> str:
        """Compute Engine's word for what the machine is."""
        return self.changes[-1][1]

    def last_true(self, *statuses: str) -> datetime:
        """Return the last moment at which the machine was in one of these states; now if it is."""
        if self.true_status in statuses:
            return self.now
        for index in range(len(self.changes) - 2, -1, -1):
            if self.changes[index][1] in statuses:
                return self.changes[index + 1][0]
        return BEGAN - timedelta(days=1)

    def status_at(self, moment: datetime) -> str:
        """Return what the machine was then."""
        index = bisect_right(self.changes, moment, key=lambda change: change[0]) - 1
        return self.changes[max(index, 0)][1]

    def left(self, end: End) -> None:
        self.ends[end.started] = end
        for each in self.invariants:
            each.on_leave(end)

    def touched(self) -> None:
        """Somebody made the machine what it doesn't become by itself."""
        self.touched_at = self.now

    def waited(self, began: float) -> None:
        """The app waited for an answer since then."""
        self.waits.append((began, self.loop.elapsed))

    def waiting_since(self, moment: datetime) -> timedelta:
        """Return how much of the time since then the app has spent waiting for answers."""
        since = (moment - BEGAN).total_seconds()
        waited = 0.0
        for begin, end in reversed(self.waits):
            if end <= since:
                break
            waited += end - max(begin, since)
        return timedelta(seconds=waited)

    # -- what the app hears ------------------------------------------------------------------------------------------

    def looked(self, sent: datetime, fault: Fault | None) -> None:
        self.look_sent, self.look_fault = sent, fault
        if fault is None:
            self.look_good_at = sent
        for each in self.invariants:
            each.on_look(fault)

    def heard(self) -> None:
        """The host answered by HTTPS."""
        self.heard_at = self.now

    def read_attributes(self) -> None:
        self.attributes_readable = True

    def deaf(self) -> None:
        self.attributes_readable = False

    # -- what the app does -------------------------------------------------------------------------------------------

    def asked(self, intent: Intent, before: Intent | None, wanted: Wanted, mode: StopMode, by: str) -> None:
        ask = Ask(intent=intent, before=before, wanted=wanted, mode=mode, by=by)
        self.asks.setdefault(intent.id, ask)
        self.open_intent = intent
        self.say(f"intent {intent.id}: {wanted}{f' {mode}' if wanted is Wanted.OFF else ''} by {by}")
        for each in self.invariants:
            each.on_ask(ask)

    def began(self, attempt: Attempt) -> None:
        self.attempts[attempt.request_id] = attempt
        self.say(f"call: {attempt.verb}")
        for each in self.invariants:
            each.on_begin(attempt)

    def operation_opened(self, operation: Operation) -> None:
        self.operations.append(operation)
        for each in self.invariants:
            each.on_operation(operation)

    def intent_ended(self, intent_id: int, fault: Fault | None) -> None:
        intent = self.asks[intent_id].intent
        if self.open_intent is not None and self.open_intent.id == intent_id:
            self.open_intent = None
        self.say(f"intent {intent_id} ends: {fault.code if fault else 'fulfilled'}")
        for each in self.invariants:
            each.on_intent_end(intent, fault)

    def run_ended(self, run: Run | None, reason: StopReason) -> None:
        if run is not None:
            self.say(f"run {run.id} ended: {reason}")
            for each in self.invariants:
                each.on_run_end(run, reason)

    def shown(self, snapshot: Snapshot) -> None:
        before, self.snapshot = self.snapshot, snapshot
        if before is not None:
            for each in self.invariants:
                each.on_snapshot(before)
        if before is None or _line(before) != _line(snapshot):
            self.say(f"people see: {_line(snapshot)}")

    def round_ended(self, machine_every: timedelta) -> None:
        self.machine_every = machine_every
        for each in self.invariants:
            each.on_round()


def _line(snapshot: Snapshot) -> str:
    body: dict[str, Any] = snapshot.body
    parts = [str(body["phase"]), str(body["status"])]
    if body["fault"]:
        parts.append(f"fault {body['fault']['code']}")
    if body["ending"]:
        parts.append(f"ending {body['ending']['reason']} at {body['ending']['at'][11:16]}")
    if body["last_stop"]:
        parts.append(f"(last stop: {body['last_stop']['reason']})")
    return " ".join(parts)
