"""Why a run ended, as far as what was seen can tell, and the words for it."""

from datetime import timedelta

from comfyweb.machine.decide import GOING
from comfyweb.machine.model import Guard, Intent, MachineSeen, Run, StopMode, StopReason

WORDS = {
    StopReason.IDLE: "It stopped by itself: nobody had used it for the idle time.",
    StopReason.DRAINED: "Somebody pressed Stop.",
    StopReason.STOPPED_NOW: "Somebody pressed Stop now.",
    StopReason.SESSION_CAP: "The longest session was over.",
    StopReason.SILENT_HOST: "Its own software had been silent for a quarter of an hour, so comfyweb stopped it.",
    StopReason.MAX_RUN_DURATION: "Compute Engine stopped it at the longest run that was allowed.",
    StopReason.PREEMPTED: "It is a Spot machine: Compute Engine took it back, or somebody stopped it outside comfyweb.",
    StopReason.ELSEWHERE: "It was stopped outside comfyweb.",
}

ANNOUNCEMENTS = {
    Guard.SESSION_CAP: "The longest session is nearly over. New prompts are not taken any more; save your work.",
    Guard.SILENT_HOST: "The machine's own software does not answer. Unless it is heard again, comfyweb stops it.",
}

# A host powers off at its time and then needs a moment; the idle time it told last may be one look old.
SLACK = timedelta(minutes=2)
# Compute Engine ends a run up to 30 s after `terminationTimestamp` (its documentation of maxRunDuration).
LATE = timedelta(seconds=30)


def why_stopped(run: Run, machine: MachineSeen, stop: Intent | None) -> StopReason:
    """Return the most likely reason for which `run` ends or has ended; `machine` was seen going off, or off.

    Args:
        run: the run that ends; its `stops_at` is the idle stop that the host told last.
        machine: the machine as it was first seen after the run.
        stop: the stop that was asked for last; not one that was refused or called off.
    """
    stopped = machine.at if machine.status in GOING else machine.last_stopped or machine.at
    if stop is not None and run.started_at <= stop.asked_at <= stopped:
        return _by(stop)
    if run.stops_at is not None and stopped >= run.stops_at - LATE and stopped <= run.stops_at + SLACK:
        return StopReason.IDLE
    if machine.scheduling.max_run_seconds is not None:
        latest = run.started_at + timedelta(seconds=machine.scheduling.max_run_seconds)
        if latest - LATE <= stopped <= latest + SLACK:
            return StopReason.MAX_RUN_DURATION
    return StopReason.PREEMPTED if machine.preemptible else StopReason.ELSEWHERE


def _by(intent: Intent) -> StopReason:
    match intent.guard:
        case Guard.SESSION_CAP:
            return StopReason.SESSION_CAP
        case Guard.SILENT_HOST:
            return StopReason.SILENT_HOST
        case None:
            return StopReason.STOPPED_NOW if intent.mode is StopMode.NOW else StopReason.DRAINED
