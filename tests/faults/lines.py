"""What a played fault looks like as a line of docs/faults.md."""

from itertools import groupby

from comfyweb.machine.model import Phase
from tests.faults.stage import READ, Called, Moment, Record, Wish

MOST_TIMES = 6
_PHASES = {
    Phase.OFF: "off",
    Phase.READY: "ready to use",
    Phase.MISSING: "missing",
    Phase.STOPPING: "stopping",
    Phase.FAULT: "unusable",
}
_WISHES = {
    Wish.MET: "As asked",
    Wish.REFUSED: "Refused, in those words",
    Wish.OPEN: "Still tried",
    Wish.NONE: "",
}


def line(record: Record) -> str:
    """Return the line: fault, when, what the page says, what the loop did, how it ended."""
    cells = (record.scenario.name, record.scenario.moment.value, says(record), did(record), ended(record))
    return f"| {' | '.join(cells)} |"


def says(record: Record) -> str:
    """Return what the page told of, in its order: troubles, notices, and why it stopped."""
    told = [f"**{fault['title']}.** {fault['what']}" for fault in record.faults]
    told += [f"Notice: {notice.partition('. ')[0].rstrip('.')}." for notice in record.notices]
    stop = record.page["last_stop"]
    if record.scenario.moment is Moment.USE and stop is not None:
        told.append(f"Last stop: {stop['words']}")
    return "<br>".join(told) or "Nothing: it goes on as if nothing had happened."


def did(record: Record) -> str:
    """Return the calls that change something, a repetition under one `requestId` as one, and the looks in vain."""
    changes = (call for call in record.calls if call.verb not in READ)
    told = [f"{verb} {_called(list(group))}" for verb, group in groupby(changes, key=lambda call: call.verb)]
    lost = [call for call in record.calls if call.verb == "look" and call.failed]
    if lost:
        told.append(f"looked in vain {_times(lost)}")
    lost = [call for call in record.calls if call.verb == "operation" and call.failed]
    if lost:
        told.append(f"could not read how it goes {_times(lost)}")
    return "; ".join(told) or "looked, called nothing"


def ended(record: Record) -> str:
    """Return how it ended, and when it was settled."""
    wish, phase = _WISHES[record.wish], _PHASES[record.phase]
    if record.wish is Wish.NONE:
        return f"{phase.capitalize()}"
    return f"{wish}: {phase}, {_span(record.ended)} after the click"


def _called(calls: list[Called]) -> str:
    different = len({call.request_id for call in calls})
    once = {len(calls): "", 1: " as one call"}.get(different, f" as {different} calls")
    return _times(calls) + once


def _times(calls: list[Called]) -> str:
    at = [_span(call.at) for call in calls]
    if len(at) == 1:
        return f"at {at[0]}"
    if len(at) <= MOST_TIMES:
        return f"at {', '.join(at[:-1])} and {at[-1]}"
    return f"{len(at)} times, {at[0]} to {at[-1]}"


def _span(seconds: float) -> str:
    minutes, left = divmod(round(seconds), 60)
    return f"{minutes} min {left} s" if minutes else f"{left} s"
