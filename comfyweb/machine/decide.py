"""What to do next: the judgement of the loop, as a pure function of what was asked and what was seen.

`decide` is total: every status, known today or not, observations of any age, and every mixture of attempts have an
answer. It never acts on an old look, makes one call at a time, and leaves a person a way out of every phase.
"""

from datetime import datetime, timedelta

from comfyweb.machine.faults import MACHINE_FAULTS, NOT_LOOKED_YET, named
from comfyweb.machine.model import (
    Act,
    AskDrain,
    Attempt,
    Call,
    CancelDrain,
    Decision,
    HostSeen,
    Intent,
    MachineMissing,
    MachineSeen,
    Observation,
    Phase,
    Policy,
    Replay,
    StopMode,
    Verb,
    Verdict,
    Wanted,
)
from comfyweb.machine.preparation import metadata_changes, needs_scheduling, wanted_metadata

OFF = frozenset({"TERMINATED", "STOPPED"})
COMING = frozenset({"PENDING", "PROVISIONING", "STAGING"})
UP = frozenset({"RUNNING"})
GOING = frozenset({"STOPPING", "PENDING_STOP"})

MOVING = timedelta(seconds=2)
BOOTING = timedelta(milliseconds=500)
STILL = timedelta(seconds=15)
# The host costs no quota, and people queue prompts that nobody tells us of: ask it more often than Google.
AT_WORK = timedelta(seconds=5)

# A look is acted on only while it is fresh: a machine may have been started or stopped by others since.
FRESH = timedelta(seconds=30)
# The host says how it is every 15 s at least; one that was silent this long no longer counts as answering.
HOST_FRESH = timedelta(seconds=45)
# By way of Google it tells a heartbeat a minute, which is read once a minute.
HEARTBEAT_FRESH = timedelta(seconds=150)
# The host powers off at its drain's deadline; the app calls stop a minute later.
AFTER_DEADLINE = timedelta(minutes=1)
# With this much or less left before an idle stop, the host is asked as often as when something moves.
SOON = timedelta(minutes=6)
BACK_OFF = (timedelta(seconds=2), timedelta(seconds=5), timedelta(seconds=15), timedelta(seconds=30))
# A start that could not be tried for this long is not carried out any more: a machine must not come on after a weekend.
KEPT = timedelta(hours=1)
RUNNING_METADATA_EVERY = timedelta(minutes=10)


def decide(intent: Intent | None, seen: Observation, policy: Policy, now: datetime) -> Decision:
    """Say what follows from what was asked and what was seen.

    Never raises. An `act` is returned only on a look younger than `FRESH`; a `verdict` ends `intent`.
    """
    machine = seen.machine
    if machine is None:
        phase = seen.phase or Phase.FAULT
        return Decision(phase=phase, fault=seen.machine_fault or NOT_LOOKED_YET, machine_every=MOVING)
    if isinstance(machine, MachineMissing):
        return _missing(intent, seen)
    fresh = seen.machine_fault is None and now - machine.at <= FRESH
    host = current_host(seen, now)
    phase = _phase(machine, host, intent, seen)
    fault = seen.machine_fault or MACHINE_FAULTS.get(machine.status)
    act: Act | None = None
    verdict: Verdict | None = None
    if fresh:
        if intent is None:
            act = _tidy(machine, seen, policy, now)
        elif intent.wanted is Wanted.ON:
            act, verdict = _towards_on(intent, machine, host, seen, policy, now)
        else:
            act, verdict = _towards_off(intent, machine, host, seen, policy, now)
    machine_every, host_every = _cadence(phase, machine, host, intent if verdict is None else None, seen, now)
    return Decision(
        phase=phase, act=act, verdict=verdict, fault=fault, machine_every=machine_every, host_every=host_every
    )


def current_host(seen: Observation, now: datetime) -> HostSeen | None:
    """Return what the host said, if it is of this run and not older than `HOST_FRESH` or `HEARTBEAT_FRESH`."""
    host, machine = seen.host, seen.machine
    if host is None or not isinstance(machine, MachineSeen) or machine.status not in UP | GOING:
        return None
    # Guest attributes outlive a run. (The loop forgets an HTTPS answer when its run ends.)
    if not host.by_https and machine.last_started is not None and host.at < machine.last_started:
        return None
    return host if now - host.at <= (HOST_FRESH if host.by_https else HEARTBEAT_FRESH) else None


def _missing(intent: Intent | None, seen: Observation) -> Decision:
    not_found = named("not-found")
    verdict = None
    if intent is not None:
        verdict = Verdict(fault=not_found if intent.wanted is Wanted.ON else None)
    return Decision(phase=Phase.MISSING, verdict=verdict, fault=seen.machine_fault or not_found, machine_every=STILL)


def _phase(machine: MachineSeen, host: HostSeen | None, intent: Intent | None, seen: Observation) -> Phase:
    status = machine.status
    starting = intent is not None and intent.wanted is Wanted.ON
    if status in OFF:
        return Phase.STARTING if starting or _in_flight(seen, Verb.START) else Phase.OFF
    if status in COMING:
        return Phase.STOPPING if _stop_asked(intent, seen) else Phase.STARTING
    if status in GOING:
        return Phase.STOPPING
    if status in UP:
        return _phase_up(host, intent, seen)
    if status in MACHINE_FAULTS:
        return Phase.FAULT
    # A status that nobody knows today: what was true before stays true until a known one comes.
    return seen.phase or Phase.FAULT


def _phase_up(host: HostSeen | None, intent: Intent | None, seen: Observation) -> Phase:
    draining = intent is not None and intent.wanted is Wanted.OFF and intent.mode is StopMode.DRAIN
    if _stop_asked(intent, seen) and not draining:
        return Phase.STOPPING
    if _in_flight(seen, Verb.STOP):
        return Phase.STOPPING
    if draining or (host is not None and host.drain_until is not None):
        return Phase.DRAINING
    ready_before = seen.run is not None and seen.run.ready_at is not None
    if host is not None and host.by_https:
        return Phase.READY if host.comfyui_ready else Phase.BOOTING
    return Phase.READY if ready_before else Phase.BOOTING


def _stop_asked(intent: Intent | None, seen: Observation) -> bool:
    return _in_flight(seen, Verb.STOP) or (intent is not None and intent.wanted is Wanted.OFF)


def _in_flight(seen: Observation, verb: Verb) -> bool:
    return any(a.verb is verb and a.in_flight for a in seen.attempts)


def _lost(seen: Observation) -> Attempt | None:
    """Return the attempt whose answer never came: its call may or may not have been made."""
    return next((a for a in seen.attempts if a.in_flight and not a.operation), None)


def _of(intent: Intent, seen: Observation, *verbs: Verb) -> list[Attempt]:
    return [a for a in seen.attempts if a.intent_id == intent.id and a.verb in verbs]


def _towards_on(
    intent: Intent, machine: MachineSeen, host: HostSeen | None, seen: Observation, policy: Policy, now: datetime
) -> tuple[Act | None, Verdict | None]:
    if lost := _lost(seen):
        return Replay(attempt=lost), None
    if any(a.in_flight for a in seen.attempts):
        return None, None
    status = machine.status
    if status in UP:
        if host is not None and host.drain_until is not None:
            return CancelDrain(), None
        return None, Verdict()
    if status in OFF:
        return _start(intent, machine, seen, policy, now)
    if fault := MACHINE_FAULTS.get(status):
        out_of_patience = now - intent.asked_at > policy.start_patience
        return None, Verdict(fault=fault) if out_of_patience or not fault.passes else None
    return None, None


def _start(
    intent: Intent, machine: MachineSeen, seen: Observation, policy: Policy, now: datetime
) -> tuple[Act | None, Verdict | None]:
    tried = _of(intent, seen, Verb.START, Verb.SET_METADATA, Verb.SET_SCHEDULING)
    if now - intent.asked_at > KEPT:
        return None, Verdict(fault=named("asked-long-ago"))
    last = tried[-1] if tried else None
    if last is not None and last.ended_at is not None:
        if machine.at <= last.ended_at:
            return None, None  # This look is older than the call's end: look again before judging by it.
        if last.fault is None and last.verb is Verb.START:
            return None, Verdict(fault=named("stopped-at-once"))
        if last.fault is not None:
            if not last.fault.retry or now - intent.asked_at > policy.start_patience:
                return None, Verdict(fault=last.fault)
            if now < last.ended_at + _back_off(tried):
                return None, None
    if metadata_changes(machine.metadata, wanted_metadata(policy.metadata, machine.metadata)):
        return Call(verb=Verb.SET_METADATA), None
    if needs_scheduling(machine.scheduling, policy.max_run):
        return Call(verb=Verb.SET_SCHEDULING), None
    return Call(verb=Verb.START), None


def _towards_off(
    intent: Intent, machine: MachineSeen, host: HostSeen | None, seen: Observation, policy: Policy, now: datetime
) -> tuple[Act | None, Verdict | None]:
    status = machine.status
    if lost := _lost(seen):
        return Replay(attempt=lost), None
    if status in OFF:
        # A start that is still under way would bring the machine up after we called it off.
        settled = machine.at > intent.asked_at and not any(a.in_flight for a in seen.attempts)
        return None, Verdict() if settled and _looked_after_attempts(machine, seen) else None
    if status in GOING or _in_flight(seen, Verb.STOP):
        return None, None
    if status not in COMING | UP:
        return None, Verdict(fault=MACHINE_FAULTS[status]) if status in MACHINE_FAULTS else None
    stops = _of(intent, seen, Verb.STOP)
    if stops and (fault := stops[-1].fault) is not None:
        if not fault.retry:
            return None, Verdict(fault=fault)
        if now < (stops[-1].ended_at or now) + _back_off(stops):
            return None, None
    if status in COMING or intent.mode is StopMode.NOW or _nothing_can_run(host, seen):
        return Call(verb=Verb.STOP), None
    return _drain(intent, host, policy, now), None


def _drain(intent: Intent, host: HostSeen | None, policy: Policy, now: datetime) -> Act | None:
    until = intent.asked_at + policy.drain
    if now >= until + AFTER_DEADLINE:
        return Call(verb=Verb.STOP)
    if host is None or not host.by_https:
        return None  # Nobody answers for the queue: wait for the deadline. The page offers to stop at once.
    if host.drain_until is None:
        return AskDrain(until=until)
    if host.drain_remaining == 0:
        return Call(verb=Verb.STOP)
    return None


def _nothing_can_run(host: HostSeen | None, seen: Observation) -> bool:
    """ComfyUI has not come up in this run, by either channel: nobody can have queued anything."""
    was_ready = seen.run is not None and seen.run.ready_at is not None
    return not was_ready and (host is None or not host.comfyui_ready) and seen.phase is not Phase.READY


def _looked_after_attempts(machine: MachineSeen, seen: Observation) -> bool:
    return all(a.ended_at is None or machine.at > a.ended_at for a in seen.attempts)


def _tidy(machine: MachineSeen, seen: Observation, policy: Policy, now: datetime) -> Act | None:
    """Without an intent: finish what was begun, and keep the keys right by which the host knows us."""
    if lost := _lost(seen):
        return Replay(attempt=lost)
    if machine.status not in UP or any(a.in_flight for a in seen.attempts):
        return None
    wanted = {k: v for k, v in policy.metadata.items() if k in policy.running_metadata}
    if not metadata_changes(machine.metadata, wanted):
        return None
    last = next((a for a in reversed(seen.attempts) if a.verb is Verb.SET_METADATA and a.intent_id is None), None)
    due = last is None or last.ended_at is None or now - last.ended_at >= RUNNING_METADATA_EVERY
    return Call(verb=Verb.SET_METADATA) if due else None


def _back_off(tried: list[Attempt]) -> timedelta:
    failed = sum(1 for a in tried if a.fault is not None)
    return BACK_OFF[min(max(failed - 1, 0), len(BACK_OFF) - 1)]


def _cadence(
    phase: Phase,
    machine: MachineSeen,
    host: HostSeen | None,
    intent: Intent | None,
    seen: Observation,
    now: datetime,
) -> tuple[timedelta, timedelta | None]:
    """Return how often to look at the machine, and at the host (None: not at all)."""
    calling = any(a.in_flight for a in seen.attempts)
    moving = intent is not None or calling or phase in {Phase.STARTING, Phase.STOPPING}
    machine_every = MOVING if moving else STILL
    if machine.status not in UP:
        return (MOVING if machine.status not in OFF else machine_every), None
    if phase is Phase.BOOTING:
        return MOVING, BOOTING
    if moving or phase is Phase.DRAINING:
        return machine_every, MOVING
    soon = host is not None and host.stops_at is not None and host.stops_at - now <= SOON
    busy = host is not None and host.jobs > 0
    return machine_every, MOVING if busy or soon else AT_WORK
