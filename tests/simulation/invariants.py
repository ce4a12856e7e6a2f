"""What must hold in every world-line. Each judges by what truly happened, not by what the app believes.

`docs/testing.md` has the list.
"""

import json
from collections import deque
from datetime import datetime, timedelta
from typing import Any

from comfyweb.demo.model import Operation
from comfyweb.machine.model import Attempt, Fault, Guard, Intent, Run, StopMode, StopReason, Verb, Wanted
from comfyweb.machine.snapshot import Snapshot
from tests.simulation.facts import Ask, End, Facts, Invariant
from tests.simulation.outside import GUEST_OPERATION, PREEMPTED_OPERATION, TIME_LIMIT_OPERATION, Outside

OFF = ("TERMINATED", "STOPPED", "MISSING")
MOMENT = timedelta(seconds=1)
LONGEST_POLL = timedelta(seconds=15)
# While Google asks for fewer calls.
SLOWED_POLL = timedelta(seconds=20)
MINUTE = timedelta(minutes=1)
FRESH = timedelta(seconds=30)
GIVEN_UP = timedelta(minutes=15)
BOOT_GRACE = timedelta(minutes=15)
FIRST_BOOT_GRACE = timedelta(minutes=45)
ANNOUNCED = timedelta(minutes=10)
GOOGLES_SLACK = timedelta(minutes=15)
HEARTBEAT_FRESH = timedelta(seconds=150)


def announced_before(cap: timedelta) -> timedelta:
    """Return how long before its end a session's end is told."""
    return min(ANNOUNCED, cap / 4)


class About(Invariant):
    """An invariant that knows the machine's true run."""

    def __init__(self, facts: Facts, outside: Outside) -> None:
        super().__init__(facts)
        self.outside = outside

    @property
    def run_started(self) -> datetime | None:
        """When the machine came on, while it is on."""
        machine = self.outside.machine
        return machine.last_start if machine is not None and self.facts.true_status == "RUNNING" else None

    @property
    def ours(self) -> bool:
        """Whether the newest start that succeeded was ours."""
        started = self.run_started
        return started is not None and any(
            each.kind == "start" and each.ended_at == started and each.error is None for each in self.facts.operations
        )

    def well_since(self, moment: datetime) -> bool:
        """Whether the app was alive and nothing was wrong outside since then."""
        return self.facts.alive and self.facts.healthy_since <= moment and self.facts.born_at <= moment


class SnapshotTrue(About):
    name = "snapshot-true"

    def __init__(self, facts: Facts, outside: Outside) -> None:
        super().__init__(facts, outside)
        self._ready_since: datetime | None = None
        self._unseen_before: Fault | None = None

    def on_snapshot(self, before: Snapshot) -> None:
        self._judge(before, self._unseen_before)

    def on_round(self) -> None:
        facts = self.facts
        slowed = facts.now - facts.asked_for_fewer_calls_at <= MINUTE
        if facts.machine_every > (SLOWED_POLL if slowed else LONGEST_POLL):
            self.broken(f"the next look is {facts.machine_every} away")
        assert facts.snapshot is not None
        self._judge(facts.snapshot, facts.look_fault)
        self._unseen_before = facts.look_fault
        body = facts.snapshot.body
        # A look that Google answers late is still told for what it is: a fault.
        if facts.look_fault is not None and body["fault"] is None:
            self.broken(f"Google can't be reached ({facts.look_fault.code}) and people are not told")
        if facts.open_intent is not None and facts.open_intent.wanted is Wanted.ON and body["phase"] == "off":
            self.broken("somebody asked for the machine and is shown that it is off")
        guest = self.outside.guest
        if not (guest.ready and guest.https):
            self._ready_since = None
        elif self._ready_since is None:
            self._ready_since = facts.now
        elif body["phase"] == "booting" and not _excused(body, facts.look_fault):
            late = facts.now - self._ready_since - facts.waiting_since(self._ready_since)
            if late > LONGEST_POLL + MOMENT:
                self.broken(f"ComfyUI answers for {late} and people are shown that it boots")

    def _judge(self, snapshot: Snapshot, unseen: Fault | None) -> None:
        """Hold a picture against the truth; `unseen` is why the look behind it failed, if it did."""
        body = snapshot.body
        if _excused(body, unseen):
            return
        status = body["status"] or ("MISSING" if body["phase"] == "missing" else "")
        if not status:
            self.broken("nothing is shown, and no fault")
        told: list[tuple[str, tuple[str, ...]]] = [(status, (status,))]
        if body["phase"] == "off":
            told.append(("off", OFF))
        elif body["phase"] in {"ready", "booting", "draining"}:
            told.append((body["phase"], ("RUNNING",)))
        if body["external_ip"] and status == "RUNNING":
            machine = self.outside.machine
            if machine is not None and machine.external_ip and machine.external_ip != body["external_ip"]:
                told.append(("an old address", ()))
        for word, statuses in told:
            true = self.facts.last_true(*statuses) if statuses else self.facts.changes[-1][0]
            false_for = self.facts.now - true - self.facts.waiting_since(true)
            if false_for > self.facts.machine_every + MOMENT:
                self.broken(f"{word} is shown, and has been false for {self.facts.now - true}")


class OneStart(About):
    name = "one-start-per-intent"

    def on_begin(self, attempt: Attempt) -> None:
        intent = self.facts.open_intent
        if attempt.verb is Verb.START and (
            intent is None or intent.wanted is not Wanted.ON or attempt.intent_id != intent.id
        ):
            self.broken("a start is called that nobody waits for")

    def on_operation(self, operation: Operation) -> None:
        if operation.kind != "start":
            return
        attempt = self.facts.attempts.get(operation.request_id)
        if attempt is None:
            self.broken("a start is called that is not in the ledger")
            return
        good = [
            each
            for each in self.facts.operations
            if each.kind == "start"
            and each.error is None
            and (known := self.facts.attempts.get(each.request_id)) is not None
            and known.intent_id == attempt.intent_id
        ]
        if len(good) > 1:
            self.broken(f"intent {attempt.intent_id} starts the machine {len(good)} times")


class FreshLooks(Invariant):
    name = "acts-on-fresh-looks"

    def on_begin(self, attempt: Attempt) -> None:
        good = self.facts.look_good_at
        if self.facts.look_fault is not None or good is None or attempt.made_at - good > FRESH + MOMENT:
            self.broken(f"{attempt.verb} is called on a look of {good}, at {attempt.made_at}")


class NoForgottenIntent(About):
    name = "no-forgotten-intent"

    def on_ask(self, ask: Ask) -> None:
        if (ask.intent.wanted, ask.intent.mode) != (ask.wanted, ask.mode):
            self.broken(
                f"somebody asked for {ask.wanted} {ask.mode}, and {ask.intent.wanted} {ask.intent.mode} is kept"
            )
        if ask.before is not None and ask.before.id != ask.intent.id and ask.intent.guard is not None:
            self.broken(f"{ask.intent.by} ends intent {ask.before.id} that somebody waits for")

    def on_intent_end(self, intent: Intent, fault: Fault | None) -> None:
        if fault is not None:
            if not (fault.title and fault.what and fault.todo):
                self.broken(f"intent {intent.id} is refused without words")
            return
        wanted = ("RUNNING",) if intent.wanted is Wanted.ON else OFF
        true = self.facts.last_true(*wanted)
        if true < intent.asked_at:
            self.broken(
                f"intent {intent.id} ({intent.wanted}) is said to be fulfilled; it was so {true} for the last time"
            )

    def on_round(self) -> None:
        intent = self.facts.open_intent
        if intent is None or not self.facts.alive:
            return
        since = max(intent.asked_at, self.facts.healthy_since, self.facts.born_at, self.facts.touched_at)
        limit = timedelta(minutes=25)
        if intent.wanted is Wanted.OFF and intent.mode is StopMode.DRAIN:
            limit += self.facts.policy_drain
        if self.facts.now - since > limit + self.facts.waiting_since(since):
            self.broken(f"intent {intent.id} ({intent.wanted} {intent.mode}) is open since {intent.asked_at}")


class SessionCap(About):
    name = "session-cap"

    def on_round(self) -> None:
        self.judge()

    def judge(self) -> None:
        """Judge also while the app is dead: then Compute Engine's own limit must hold."""
        started, facts = self.run_started, self.facts
        if started is None or not self.ours or facts.touched_at >= started:
            return
        over = facts.now - started - facts.policy_cap
        if over > GOOGLES_SLACK + MINUTE:
            self.broken(f"a run of ours lasts {facts.now - started}")
        alone = started + facts.policy_cap - announced_before(facts.policy_cap)
        if over - facts.waiting_since(alone) > 3 * MINUTE and self.well_since(alone):
            self.broken(f"comfyweb lets a run last {facts.now - started}")


class SilentHost(About):
    """A host that can't be heard is given up, and no other; the same for the session cap before its time."""

    name = "silent-host"

    def __init__(self, facts: Facts, outside: Outside) -> None:
        super().__init__(facts, outside)
        self.unheard = timedelta()
        self.heard_in_this_run = False
        self._run: datetime | None = None
        self._born: datetime | None = None
        self._round_at: datetime | None = None
        self._ever_ready = False

    def on_round(self) -> None:
        facts = self.facts
        before, self._round_at = self._round_at, facts.now
        if facts.born_at != self._born:
            self._born, self.unheard, before = facts.born_at, timedelta(), None
        started = self.run_started
        if started != self._run:
            self._run, self.unheard, self.heard_in_this_run = started, timedelta(), False
        if started is None:
            return
        by_https = before is not None and facts.heard_at >= before and facts.heard_at >= started
        told = self._told_by_attributes()
        by_attributes = told is not None and facts.now - told <= HEARTBEAT_FRESH and facts.attributes_readable
        self.heard_in_this_run |= facts.heard_at >= started or (told is not None and told >= started)
        self._ever_ready |= self.outside.guest.ready
        if by_https or by_attributes:
            self.unheard = timedelta()
        elif before is not None and facts.attributes_readable:
            self.unheard += min(facts.now - before, MINUTE)
        self._judge(started)

    def _judge(self, started: datetime) -> None:
        facts = self.facts
        grace = BOOT_GRACE if self._ever_ready else FIRST_BOOT_GRACE
        listened_from = max(started + grace, facts.healthy_since)
        limit = GIVEN_UP + HEARTBEAT_FRESH + 2 * MINUTE
        if self.unheard > limit and facts.now - listened_from > limit and (self.ours or self.heard_in_this_run):
            intent = facts.open_intent
            if intent is None or intent.wanted is not Wanted.OFF:
                self.broken(f"the host is silent for {self.unheard} and the machine stays on")

    def _told_by_attributes(self) -> datetime | None:
        machine = self.outside.machine
        values = machine.guest_attributes.get("comfyweb", {}) if machine else {}
        times = [datetime.fromisoformat(str(json.loads(value)["at"])) for value in values.values()]
        return max(times, default=None)


class NoGuardWithoutCause(About):
    name = "no-guard-without-cause"

    def __init__(self, facts: Facts, outside: Outside, silent: SilentHost) -> None:
        super().__init__(facts, outside)
        self._silent = silent
        self._announced: datetime | None = None

    def on_ask(self, ask: Ask) -> None:
        guard, started = ask.intent.guard, self.run_started
        if guard is None or started is None:
            return
        if not self.ours and not self._silent.heard_in_this_run:
            self.broken(f"{guard} stops a machine that somebody else started and whose host was never heard")
        lasted, cap = self.facts.now - started, self.facts.policy_cap
        if guard is Guard.SESSION_CAP and lasted < cap - announced_before(cap) - MOMENT:
            self.broken(f"the session cap stops a run after {lasted}")
        if guard is Guard.SILENT_HOST:
            if lasted < BOOT_GRACE + GIVEN_UP - MOMENT:
                self.broken(f"a host is given up after {lasted}")
            # What this round has listened is not counted yet.
            if self._silent.unheard + 3 * MINUTE < GIVEN_UP and self._silent.unheard < GIVEN_UP - 2 * MINUTE:
                self.broken(f"a host is given up that was unheard for {self._silent.unheard}")

    def on_status(self) -> None:
        if self.facts.true_status == "RUNNING":
            self._announced = None

    def on_snapshot(self, before: Snapshot) -> None:
        shown = self.facts.snapshot
        ending = shown.body["ending"] if shown else None
        if ending is not None and ending["reason"] == "session-cap" and self._announced is None:
            self._announced = self.facts.now

    def on_leave(self, end: End) -> None:
        attempt = self.facts.attempts.get(end.request_id)
        intent = self.facts.asks[attempt.intent_id].intent if attempt and attempt.intent_id else None
        if intent is None or intent.guard is not Guard.SESSION_CAP:
            return
        lasted, cap = end.left - end.started, self.facts.policy_cap
        if lasted < cap - MOMENT:
            self.broken(f"the session cap ends a run after {lasted}")
        told = announced_before(cap)
        if self.well_since(end.started + cap - told - MINUTE) and (
            self._announced is None or end.left - self._announced < told - 2 * MINUTE
        ):
            self.broken(f"the end of the session was announced {self._announced}, it ended {end.left}")


class NoPromptIsCut(Invariant):
    name = "no-prompt-is-cut"

    def on_leave(self, end: End) -> None:
        attempt = self.facts.attempts.get(end.request_id)
        intent = self.facts.asks[attempt.intent_id].intent if attempt and attempt.intent_id else None
        if not end.jobs or intent is None or intent.guard is not None or intent.mode is StopMode.NOW:
            return
        limit = min(intent.asked_at + self.facts.policy_drain, end.started + self.facts.policy_cap)
        # Somebody may have asked for a stop at once before, and then for a gentle one.
        harder = any(
            ask.mode is StopMode.NOW and ask.wanted is Wanted.OFF and end.started <= ask.intent.asked_at <= end.left
            for ask in self.facts.asks.values()
        )
        if end.left < limit - MOMENT and not harder:
            self.broken(f"a gentle stop kills {end.jobs} prompts {limit - end.left} before its deadline")


class TrueReason(About):
    name = "true-reason"

    def on_run_end(self, run: Run, reason: StopReason) -> None:
        end = self._end(run)
        if end is None or self.facts.touched_at >= run.started_at:
            return
        allowed = self._allowed(run, end)
        if allowed and reason not in allowed:
            self.broken(f"{reason} is told, and it was {', '.join(sorted(allowed))}")

    def _end(self, run: Run) -> End | None:
        near = timedelta(milliseconds=2)
        return next((end for at, end in self.facts.ends.items() if abs(at - run.started_at) < near), None)

    def _allowed(self, run: Run, end: End) -> set[StopReason]:
        # Who presses Stop before anybody could see that it goes off by itself is as good a reason.
        unseen_until = end.left + LONGEST_POLL + MOMENT + self.facts.waiting_since(end.left)
        asked = {
            _reason(ask.intent)
            for ask in self.facts.asks.values()
            if ask.wanted is Wanted.OFF and run.started_at <= ask.intent.asked_at <= unseen_until
        }
        allowed: set[StopReason] = set(asked) if end.by_us or end.why_off == "drained" else set()
        if end.by_us:
            return allowed
        if end.kind == GUEST_OPERATION:
            if end.why_off == "idle":
                allowed |= {StopReason.IDLE} | asked
            else:
                allowed |= asked
            if self._was_deaf(end):
                allowed |= {StopReason.ELSEWHERE, StopReason.PREEMPTED}
        elif end.kind == TIME_LIMIT_OPERATION:
            allowed |= {StopReason.MAX_RUN_DURATION} | asked
        elif end.kind == PREEMPTED_OPERATION:
            allowed |= {StopReason.PREEMPTED} | asked
        else:
            allowed |= {StopReason.PREEMPTED if self.outside.spot else StopReason.ELSEWHERE} | asked
        return allowed | self._looks_alike(run, end)

    def _looks_alike(self, run: Run, end: End) -> set[StopReason]:
        """Return what can't be told from the truth by what Compute Engine says."""
        alike: set[StopReason] = set()
        about = timedelta(minutes=2, seconds=30)
        if run.stops_at is not None and abs(end.left - run.stops_at) <= about + MINUTE:
            alike.add(StopReason.IDLE)
        if abs(end.left - end.started - self.facts.policy_cap - GOOGLES_SLACK) <= about:
            alike.add(StopReason.MAX_RUN_DURATION)
        return alike

    def _was_deaf(self, end: End) -> bool:
        """Whether the app couldn't hear the host in the last minutes of the run."""
        return self.facts.heard_at < end.left - timedelta(seconds=20)


class CallsBounded(Invariant):
    name = "calls-bounded"

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self._calls: deque[datetime] = deque()
        self._asks: deque[datetime] = deque()

    def on_ask(self, ask: Ask) -> None:
        self._asks.append(self.facts.now)

    def on_begin(self, attempt: Attempt) -> None:
        now = self.facts.now
        self._calls.append(now)
        for calls in (self._calls, self._asks):
            while calls and now - calls[0] > MINUTE:
                calls.popleft()
        if len(self._calls) > 8 + 4 * len(self._asks):
            self.broken(f"{len(self._calls)} calls in a minute")


def _excused(body: dict[str, Any], unseen: Fault | None) -> bool:
    """Whether the picture says itself that it may be old: Google or the database can't be reached."""
    fault = body["fault"]
    if fault is None:
        return False
    return fault["code"] in {"ledger", "not-looked-yet"} or (unseen is not None and fault["code"] == unseen.code)


def _reason(intent: Intent) -> StopReason:
    match intent.guard:
        case Guard.SESSION_CAP:
            return StopReason.SESSION_CAP
        case Guard.SILENT_HOST:
            return StopReason.SILENT_HOST
        case None:
            return StopReason.STOPPED_NOW if intent.mode is StopMode.NOW else StopReason.DRAINED


def all_of_them(facts: Facts, outside: Outside) -> list[Invariant]:
    """Return every invariant that judges along the way."""
    silent = SilentHost(facts, outside)
    return [
        SnapshotTrue(facts, outside),
        OneStart(facts, outside),
        FreshLooks(facts),
        NoForgottenIntent(facts, outside),
        SessionCap(facts, outside),
        silent,
        NoGuardWithoutCause(facts, outside, silent),
        NoPromptIsCut(facts),
        TrueReason(facts, outside),
        CallsBounded(facts),
    ]
