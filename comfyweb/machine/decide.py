"""What to do next: the judgement of the loop, as a pure function of what was asked and what was seen.

`decide` is total: every status, known today or not, observations of any age, and every mixture of attempts have an
answer. It never acts on an old look, makes one call at a time, and leaves a person a way out of every phase.
"""

from datetime import datetime, timedelta

from comfyweb.machine import guards
from comfyweb.machine.faults import MACHINE_FAULTS, NOT_LOOKED_YET, in_vain, named
from comfyweb.machine.model import (
    Act,
    AskDrain,
    Attempt,
    Call,
    CancelDrain,
    Decision,
    Enforce,
    Fault,
    Guard,
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
STARTS = (Verb.START, Verb.SET_METADATA, Verb.SET_SCHEDULING)
STOPS = (Verb.STOP, Verb.FORCE_STOP)

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
# A start that could not be tried for this long is not carried out any more: a machine must not come on after a weekend.
KEPT = timedelta(hours=1)
RUNNING_METADATA_EVERY = timedelta(minutes=10)
# Compute Engine gives a guest up to two minutes to end (its documentation of `skipGuestOsShutdown`), and is usually
# done sooner. A stop that takes longer than this is called again, by force, and as often until it has ended.
STOP_STUCK = timedelta(minutes=5)
# Getting a GPU machine takes a minute or so; a stock-out was recorded to show after 96 s.
START_STUCK = timedelta(minutes=10)
# A guard's stop that Google refuses is tried again this often: nobody may be there to press a button.
GUARD_BACK_OFF = timedelta(minutes=5)


def decide(intent: Intent | None, seen: Observation, policy: Policy, now: datetime) -> Decision:
    """Say what follows from what was asked and what was seen.

    Never raises. An `act` is returned only on a look younger than `FRESH`; a `verdict` ends `intent`.
    """
    machine = seen.machine
    if machine is None:
        phase = seen.phase or Phase.FAULT
        every = _spaced(MOVING, seen)
        return Decision(phase=phase, fault=seen.machine_fault or NOT_LOOKED_YET, machine_every=every)
    if isinstance(machine, MachineMissing):
        return _missing(intent, seen)
    fresh = seen.machine_fault is None and abs(now - machine.at) <= FRESH
    host = current_host(seen, now)
    phase = _phase(machine, host, intent, seen, now)
    fault = seen.machine_fault or MACHINE_FAULTS.get(machine.status)
    retry_at: datetime | None = None
    if fault is None:
        fault, retry_at = _trouble(phase, intent, machine, seen, now)
    act: Act | None = None
    verdict: Verdict | None = None
    if fresh:
        if intent is None:
            act = _enforce(machine, seen, policy, now) or _tidy(machine, seen, policy, now)
        elif intent.wanted is Wanted.ON:
            act, verdict = _towards_on(intent, machine, host, seen, policy, now)
        else:
            act, verdict = _towards_off(intent, machine, host, seen, policy, now)
    machine_every, host_every = _cadence(phase, machine, host, intent if verdict is None else None, seen, now)
    return Decision(
        phase=phase,
        act=act,
        verdict=verdict,
        fault=fault,
        retry_at=retry_at,
        machine_every=_spaced(machine_every, seen),
        host_every=host_every,
        ending=guards.ending(seen, policy, now) if machine.status in UP else None,
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


def _phase(
    machine: MachineSeen, host: HostSeen | None, intent: Intent | None, seen: Observation, now: datetime
) -> Phase:
    status = machine.status
    starting = intent is not None and intent.wanted is Wanted.ON
    if status in OFF:
        return Phase.STARTING if starting or _in_flight(seen, Verb.START) else Phase.OFF
    if status in COMING:
        return Phase.STOPPING if _stop_asked(intent, seen) else Phase.STARTING
    if status in GOING:
        return Phase.STOPPING
    if status in UP:
        return _phase_up(host, intent, seen, now)
    if status in MACHINE_FAULTS:
        return Phase.FAULT
    # A status that nobody knows today: what was true before stays true until a known one comes.
    return seen.phase or Phase.FAULT


def _powering_off(seen: Observation, now: datetime) -> bool:
    """Whether the host itself has begun to switch the machine off, which Compute Engine shows some seconds later."""
    host = seen.host
    return host is not None and host.by_https and host.phase == "stopping" and now - host.at <= STOP_STUCK


def _phase_up(host: HostSeen | None, intent: Intent | None, seen: Observation, now: datetime) -> Phase:
    draining = intent is not None and intent.wanted is Wanted.OFF and intent.mode is StopMode.DRAIN
    if _stop_asked(intent, seen) and not draining:
        return Phase.STOPPING
    if _in_flight(seen, *STOPS) or _powering_off(seen, now):
        return Phase.STOPPING
    if draining or (host is not None and host.drain_until is not None):
        return Phase.DRAINING
    ready_before = seen.run is not None and seen.run.ready_at is not None
    if host is not None and host.by_https:
        return Phase.READY if host.comfyui_ready else Phase.BOOTING
    return Phase.READY if ready_before else Phase.BOOTING


def _trouble(
    phase: Phase, intent: Intent | None, machine: MachineSeen, seen: Observation, now: datetime
) -> tuple[Fault | None, datetime | None]:
    """Return what people must know although the loop goes on, and when the call that failed is made again.

    A call fails and is repeated, its answer is lost, or something takes too long.
    """
    verbs, waiting = (STARTS, OFF) if intent is not None and intent.wanted is Wanted.ON else (STOPS, COMING | UP)
    tried = _of(intent, seen, *verbs) if intent is not None and machine.status in waiting else []
    if intent is not None and tried and tried[-1].fault is not None:
        again = _again(tried, intent)
        return tried[-1].fault, again if again is not None and again > now else None
    if seen.call_fault is not None and any(a.in_flight for a in seen.attempts):
        ahead = _lost(seen) is not None and seen.call_again is not None and seen.call_again > now
        return seen.call_fault, seen.call_again if ahead else None
    lasting = now - seen.since if seen.phase is phase and seen.since is not None else timedelta()
    if phase is Phase.STOPPING and max([lasting, *(now - a.made_at for a in _stop_calls(seen))]) > STOP_STUCK:
        return named("stop-stuck"), None
    if phase is Phase.STARTING and lasting > START_STUCK:
        return named("start-stuck"), None
    return None, None


def _stop_asked(intent: Intent | None, seen: Observation) -> bool:
    return _in_flight(seen, *STOPS) or (intent is not None and intent.wanted is Wanted.OFF)


def _in_flight(seen: Observation, *verbs: Verb) -> bool:
    return any(a.verb in verbs and a.in_flight for a in seen.attempts)


def _lost(seen: Observation) -> Attempt | None:
    """Return the attempt whose answer never came: its call may or may not have been made."""
    return next((a for a in seen.attempts if a.in_flight and not a.operation), None)


def _replay(lost: Attempt, seen: Observation, now: datetime) -> Act | None:
    return Replay(attempt=lost) if seen.call_again is None or now >= seen.call_again else None


def _of(intent: Intent, seen: Observation, *verbs: Verb) -> list[Attempt]:
    return [a for a in seen.attempts if a.intent_id == intent.id and a.verb in verbs]


def _towards_on(
    intent: Intent, machine: MachineSeen, host: HostSeen | None, seen: Observation, policy: Policy, now: datetime
) -> tuple[Act | None, Verdict | None]:
    if lost := _lost(seen):
        return _replay(lost, seen, now), None
    status = machine.status
    if status in GOING or _in_flight(seen, *STOPS):
        return _force(machine, seen, now), None
    if any(a.in_flight for a in seen.attempts):
        return None, None
    if status in UP:
        if machine.at <= intent.asked_at or _powering_off(seen, now):
            return None, None  # It may be on its way off: then the start comes after that.
        session_is_ending = guards.due(seen, policy, now) is not None
        # Guest attributes can be forged, and there is no cancelling by them: a start must not stay open for their sake.
        if host is not None and host.by_https and host.drain_until is not None and not session_is_ending:
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
    tried = _of(intent, seen, *STARTS)
    if now - intent.asked_at > KEPT:
        return None, Verdict(fault=named("asked-long-ago"))
    last = tried[-1] if tried else None
    if last is not None and last.ended_at is not None:
        if machine.at <= last.ended_at:
            return None, None  # This look is older than the call's end: look again before judging by it.
        if last.fault is None and last.verb is Verb.START:
            return None, Verdict(fault=named("stopped-at-once"))
        if last.fault is not None:
            again = _again(tried, intent)
            if again is None:
                return None, Verdict(fault=last.fault)
            if now - intent.asked_at > policy.start_patience:
                return None, Verdict(fault=in_vain(last.fault, policy.start_patience))
            if now < again:
                return None, None
    return _next_call(machine, policy), None


def _next_call(machine: MachineSeen, policy: Policy) -> Call:
    """Return what a start needs next of a machine that is off."""
    if metadata_changes(machine.metadata, wanted_metadata(policy.metadata, machine.metadata)):
        return Call(verb=Verb.SET_METADATA)
    if needs_scheduling(machine.scheduling, policy.max_run):
        return Call(verb=Verb.SET_SCHEDULING)
    return Call(verb=Verb.START)


def _towards_off(
    intent: Intent, machine: MachineSeen, host: HostSeen | None, seen: Observation, policy: Policy, now: datetime
) -> tuple[Act | None, Verdict | None]:
    status = machine.status
    if lost := _lost(seen):
        return _replay(lost, seen, now), None
    if status in OFF:
        # A start that is still under way would bring the machine up after we called it off.
        settled = machine.at > intent.asked_at and not any(a.in_flight for a in seen.attempts)
        return None, Verdict() if settled and _looked_after_attempts(machine, seen) else None
    if status in GOING or _in_flight(seen, *STOPS):
        return _force(machine, seen, now), None
    if status not in COMING | UP:
        return None, Verdict(fault=MACHINE_FAULTS[status]) if status in MACHINE_FAULTS else None
    stops = _of(intent, seen, *STOPS)
    if stops and (fault := stops[-1].fault) is not None:
        again = _again(stops, intent)
        if again is None:
            return None, Verdict(fault=fault)
        if now < again:
            return None, None
    capped = intent.guard is Guard.SESSION_CAP
    if status in COMING or intent.mode is StopMode.NOW or (_nothing_can_run(host, seen) and not capped):
        return Call(verb=Verb.STOP), None
    return _drain(intent, host, seen, policy, now), None


def _drain(intent: Intent, host: HostSeen | None, seen: Observation, policy: Policy, now: datetime) -> Act | None:
    until = guards.drain_until(intent, seen.run, policy)
    capped = intent.guard is Guard.SESSION_CAP
    if now >= (until if until == guards.session_end(seen.run, policy.session_cap) else until + AFTER_DEADLINE):
        return Call(verb=Verb.STOP)
    if host is None:
        return None  # Nobody answers for the queue: wait for the deadline. The page offers to stop at once.
    if host.drain_until is None:
        return AskDrain(until=until, stay=capped)
    # What came by way of Google may be a minute old, and can be forged: such a host powers off by itself.
    if host.by_https and host.drain_remaining == 0 and not capped:
        return Call(verb=Verb.STOP)
    return None


def _force(machine: MachineSeen, seen: Observation, now: datetime) -> Act | None:
    """Call a stop that does not end again, by force."""
    if seen.phase is not Phase.STOPPING or seen.since is None:
        return None
    calls = _stop_calls(seen) + [a for a in seen.attempts if a.verb in STOPS and a.made_at >= seen.since]
    last = max((a.ended_at or a.made_at for a in calls), default=seen.since)
    return Call(verb=Verb.FORCE_STOP) if now - last >= STOP_STUCK and machine.status not in OFF else None


def _stop_calls(seen: Observation) -> list[Attempt]:
    """Return the calls of this run that Google took on: a new process has seen only the rest of the stop."""
    run = seen.run
    return [a for a in seen.attempts if run and a.verb in STOPS and a.fault is None and a.made_at >= run.started_at]


def _enforce(machine: MachineSeen, seen: Observation, policy: Policy, now: datetime) -> Act | None:
    if machine.status not in UP or _in_flight(seen, *STOPS):
        return None
    found = guards.due(seen, policy, now)
    return Enforce(guard=found[0], mode=found[1]) if found else None


def _nothing_can_run(host: HostSeen | None, seen: Observation) -> bool:
    """ComfyUI has not come up in this run, by either channel: nobody can have queued anything."""
    was_ready = seen.run is not None and seen.run.ready_at is not None
    return not was_ready and (host is None or not host.comfyui_ready) and seen.phase is not Phase.READY


def _looked_after_attempts(machine: MachineSeen, seen: Observation) -> bool:
    return all(a.ended_at is None or machine.at > a.ended_at for a in seen.attempts)


def _tidy(machine: MachineSeen, seen: Observation, policy: Policy, now: datetime) -> Act | None:
    """Without an intent: finish what was begun, and keep the keys right by which the host knows us."""
    if lost := _lost(seen):
        return _replay(lost, seen, now)
    if machine.status in GOING or _in_flight(seen, *STOPS):
        return _force(machine, seen, now)
    if machine.status not in UP or any(a.in_flight for a in seen.attempts):
        return None
    wanted = {k: v for k, v in policy.metadata.items() if k in policy.running_metadata}
    if not metadata_changes(machine.metadata, wanted):
        return None
    last = next((a for a in reversed(seen.attempts) if a.verb is Verb.SET_METADATA and a.intent_id is None), None)
    due = last is None or last.ended_at is None or now - last.ended_at >= RUNNING_METADATA_EVERY
    return Call(verb=Verb.SET_METADATA) if due else None


def _again(tried: list[Attempt], intent: Intent) -> datetime | None:
    """Return when the call that failed last is made again; None: not without being asked."""
    last = tried[-1]
    pauses = last.fault.retry if last.fault is not None else ()
    if last.ended_at is None or not (pauses or intent.guard):
        return None
    failed = sum(1 for a in tried if a.fault is not None)
    pause = timedelta(seconds=pauses[min(failed, len(pauses)) - 1]) if pauses else GUARD_BACK_OFF
    return last.ended_at + pause


def _spaced(every: timedelta, seen: Observation) -> timedelta:
    """Look less often where Google asks for fewer calls."""
    pauses = (fault.retry[:1] for fault in (seen.machine_fault, seen.call_fault) if fault is not None)
    return max([every, *(timedelta(seconds=pause) for first in pauses for pause in first)])


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
