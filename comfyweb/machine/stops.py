"""Why a run ended, as far as what was seen can tell, and the words for it."""

from datetime import timedelta

from comfyweb.machine.model import Intent, MachineSeen, Run, StopMode, StopReason, Wanted

WORDS = {
    StopReason.IDLE: "It stopped by itself: nobody had used it for the idle time.",
    StopReason.DRAINED: "Somebody pressed Stop.",
    StopReason.STOPPED_NOW: "Somebody pressed Stop now.",
    StopReason.MAX_RUN_DURATION: "Compute Engine stopped it at the longest run that was allowed.",
    StopReason.PREEMPTED: "It is a Spot machine: Compute Engine took it back, or somebody stopped it outside comfyweb.",
    StopReason.ELSEWHERE: "It was stopped outside comfyweb.",
}

# A host powers off at its time and then needs a moment; the idle time it told last may be one look old.
SLACK = timedelta(minutes=2)
# Compute Engine ends a run up to 30 s after `terminationTimestamp` (its documentation of maxRunDuration).
LATE = timedelta(seconds=30)


def why_stopped(run: Run, machine: MachineSeen, last_intent: Intent | None) -> StopReason:
    """Return the most likely reason for which `run` ended; `machine` was seen off.

    Args:
        run: the run that ended; its `stops_at` is the idle stop that the host told last.
        machine: the machine as seen after the end.
        last_intent: the newest intent, open or fulfilled; not one that was refused.
    """
    stopped = machine.last_stopped or machine.at
    if last_intent is not None and last_intent.wanted is Wanted.OFF and run.started_at <= last_intent.asked_at:
        return StopReason.STOPPED_NOW if last_intent.mode is StopMode.NOW else StopReason.DRAINED
    if run.stops_at is not None and stopped >= run.stops_at - LATE and stopped <= run.stops_at + SLACK:
        return StopReason.IDLE
    if machine.scheduling.max_run_seconds is not None:
        latest = run.started_at + timedelta(seconds=machine.scheduling.max_run_seconds)
        if latest - LATE <= stopped <= latest + SLACK:
            return StopReason.MAX_RUN_DURATION
    return StopReason.PREEMPTED if machine.preemptible else StopReason.ELSEWHERE
