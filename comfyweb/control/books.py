"""Keeps the books: stores the beginning, the news and the end of a run, and tells what is shown of the past."""

from dataclasses import replace
from datetime import datetime

from comfyweb.control.ledger import Ledger, Standing
from comfyweb.control.observer import Observer
from comfyweb.machine.decide import COMING, GOING, OFF, UP
from comfyweb.machine.model import Fault, MachineSeen, Observation, Verb, Wanted
from comfyweb.machine.snapshot import History
from comfyweb.machine.stops import why_stopped


async def keep(standing: Standing, ledger: Ledger, observer: Observer) -> Standing:
    """Store what the last look shows of the run; return how things stand then. Raises LedgerError."""
    machine, run = observer.seen.machine, standing.run
    changed = False
    if isinstance(machine, MachineSeen):
        on = machine.status in UP | COMING and machine.last_started is not None
        another = run is not None and on and run.started_at != machine.last_started
        # While a start is going on, Compute Engine still tells the last run's time.
        before = standing.last_run.started_at if standing.last_run else None
        new = on and machine.last_started is not None and machine.last_started != before
        if run is not None and (machine.status in OFF or another):
            # What was stored when it was seen going off is nearer to the truth than what can be told now.
            reason = run.reason or why_stopped(run, machine, standing.stop)
            await ledger.end_run(run.id, machine.last_stopped or machine.at, reason)
            observer.seen = replace(observer.seen, host=None)
            run, changed = None, True
        elif run is not None and machine.status in GOING | UP and (run.reason is None) is (machine.status in GOING):
            reason = why_stopped(run, machine, standing.stop) if machine.status in GOING else None
            await ledger.note_reason(run.id, reason)
            changed = True
        if run is None and new and machine.last_started is not None:
            await ledger.begin_run(machine.last_started, _asked_at(standing))
            changed = True
        elif run is not None and (host := observer.seen.host) is not None and host.at >= run.started_at:
            news = replace(
                run,
                ready_at=run.ready_at or (host.at if host.comfyui_ready else None),
                stops_at=host.stops_at,
                boot_id=host.boot_id if host.by_https else run.boot_id,
            )
            if news != run:
                await ledger.note_run(run.id, ready_at=news.ready_at, stops_at=news.stops_at, boot_id=news.boot_id)
                changed = True
    if changed:
        standing = await ledger.standing()
    observer.seen = replace(observer.seen, attempts=standing.attempts, run=standing.run)
    return standing


def _asked_at(standing: Standing) -> datetime | None:
    """Return when somebody asked for the run that has just begun, or None when it was started elsewhere."""
    intent = standing.last_intent
    if intent is None or intent.wanted is not Wanted.ON:
        return None
    ours = (a for a in standing.attempts if a.intent_id == intent.id and a.verb is Verb.START)
    return intent.asked_at if any(a.fault is None for a in ours) else None


def history(standing: Standing, seen: Observation, notices: tuple[str, ...]) -> History:
    """Return what people are shown besides the machine as it is."""
    refused: Fault | None = None
    intent, machine = standing.last_intent, seen.machine
    if intent is not None and standing.last_intent_fault is not None:
        up = isinstance(machine, MachineSeen) and machine.status in UP | COMING
        # A refusal is told until the machine is what was asked for, or something else is asked for.
        refused = standing.last_intent_fault if up is (intent.wanted is Wanted.OFF) else None
    return History(last_run=standing.last_run, refused=refused, usual_start=standing.usual_start, notices=notices)
