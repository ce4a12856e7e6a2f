"""When comfyweb itself ends a run: the longest session is over, or the host has been silent for too long.

Both are for machines that somebody forgot while the host's own idle stop is dead or kept from stopping. A run that was
started elsewhere and whose host was never heard is left alone: it may be somebody else's work.
"""

from datetime import datetime, timedelta

from comfyweb.machine.model import Ending, Guard, Intent, MachineSeen, Observation, Policy, Run, StopMode

# The end of a session is announced this long before, and no new prompts are taken from then on.
ANNOUNCED = timedelta(minutes=10)
# A host that has been asked in vain for this long is given up; people are told from the shorter time on.
GIVEN_UP = timedelta(minutes=15)
SUSPECTED = timedelta(minutes=3)
# A host may take this long to be heard after the machine came on, the first time and later.
FIRST_BOOT_GRACE = timedelta(minutes=45)
BOOT_GRACE = timedelta(minutes=15)


def guarded(run: Run | None) -> bool:
    """Whether we may stop this run without being asked: we started it, or its host has told us of itself."""
    return run is not None and (run.ours or bool(run.boot_id) or run.ready_at is not None)


def session_end(run: Run | None, cap: timedelta) -> datetime | None:
    """Return when the session cap ends this run; None for one that is not ours to end."""
    return run.started_at + cap if run is not None and guarded(run) else None


def latest_end(seen: Observation, cap: timedelta) -> datetime | None:
    """Return when this run is ended in any case, by the session cap or by Compute Engine; None when nothing does."""
    machine = seen.machine if isinstance(seen.machine, MachineSeen) else None
    limits = (machine.terminates_at if machine else None, session_end(seen.run, cap))
    return min((limit for limit in limits if limit is not None), default=None)


def ending(seen: Observation, policy: Policy, now: datetime) -> Ending | None:
    """Return the end that is announced by now, the earlier of the two; None while there is none."""
    run = seen.run
    if run is None or not guarded(run):
        return None
    ends: list[Ending] = []
    cap = run.started_at + policy.session_cap
    # Of a very short session most must be left to work in.
    if now >= cap - min(ANNOUNCED, policy.session_cap / 4):
        ends.append(Ending(guard=Guard.SESSION_CAP, at=cap))
    if seen.silence >= SUSPECTED:
        ends.append(Ending(guard=Guard.SILENT_HOST, at=now + max(GIVEN_UP - seen.silence, timedelta())))
    return min(ends, key=lambda each: each.at, default=None)


def due(seen: Observation, policy: Policy, now: datetime) -> tuple[Guard, StopMode] | None:
    """Return which guard has to act now, and how; None while none has."""
    end = ending(seen, policy, now)
    if end is None:
        return None
    if end.guard is Guard.SESSION_CAP:
        return end.guard, StopMode.DRAIN
    return (end.guard, StopMode.NOW) if seen.silence >= GIVEN_UP else None


def drain_until(intent: Intent, run: Run | None, policy: Policy) -> datetime:
    """Return the time at which a stop that waits for prompts waits no longer."""
    cap = session_end(run, policy.session_cap)
    if cap is not None and intent.guard is Guard.SESSION_CAP:
        return cap
    until = intent.asked_at + policy.drain
    return min(until, cap) if cap is not None else until


def silence(before: timedelta, passed: timedelta, seen: Observation, grace: timedelta, *, heard: bool) -> timedelta:
    """Return how long the host has been silent now, `passed` after the last time that we listened.

    A gap in our own listening (a stalled process) counts as one minute at most: whoever didn't listen heard nothing.
    """
    machine, run = seen.machine, seen.run
    if heard or run is None or not isinstance(machine, MachineSeen) or machine.at - run.started_at < grace:
        return timedelta()
    return before + min(passed, timedelta(minutes=1))
