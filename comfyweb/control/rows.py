"""Makes of the ledger's rows what the rest of comfyweb knows, and of what it knows what a row holds.

A row may hold what this comfyweb can't read: written by a newer one, or by hand. It is left out, and the log says so
once: one such row must not keep the loop, which also stops forgotten machines, from turning.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, fields
from typing import Any, TypeVar, cast

from comfyweb.control.tables import AttemptRow, IntentRow, RunRow
from comfyweb.machine.faults import named
from comfyweb.machine.model import Attempt, Fault, Intent, Run, StopMode, StopReason, Verb, Wanted

log = logging.getLogger(__name__)

Row = TypeVar("Row", IntentRow, AttemptRow, RunRow)
T = TypeVar("T")


class Reader:
    """Reads rows; remembers which it has already complained of."""

    def __init__(self) -> None:
        self._told: set[tuple[str, int | None]] = set()

    def read(self, make: Callable[[Row], T], rows: Iterable[Row]) -> Iterator[tuple[Row, T]]:
        """Yield the rows that can be read, each with what it says."""
        for row in rows:
            try:
                made = make(row)
            except (ValueError, TypeError, AttributeError) as error:
                if (which := (str(row.__tablename__), row.id)) not in self._told:
                    self._told.add(which)
                    log.warning("the database's %s %s can't be read and is left out: %s", *which, error)
            else:
                yield row, made


def intent_of(row: IntentRow) -> Intent:
    """Raise ValueError when it can't be read."""
    return Intent(id=row.id or 0, wanted=Wanted(row.wanted), mode=StopMode(row.mode), by=row.by, asked_at=row.asked_at)


def attempt_of(row: AttemptRow) -> Attempt:
    """Raise ValueError when it can't be read."""
    return Attempt(
        id=row.id or 0,
        verb=Verb(row.verb),
        zone=row.zone,
        request_id=row.request_id,
        made_at=row.made_at,
        intent_id=row.intent_id,
        operation=row.operation,
        ended_at=row.ended_at,
        fault=fault_of(row.fault),
    )


def run_of(row: RunRow) -> Run:
    """Raise ValueError when it can't be read."""
    return Run(
        id=row.id or 0,
        started_at=row.started_at,
        asked_at=row.asked_at,
        ready_at=row.ready_at,
        ended_at=row.ended_at,
        reason=StopReason(row.reason) if row.reason else None,
        stops_at=row.stops_at,
        boot_id=row.boot_id,
    )


def fault_json(fault: Fault | None) -> dict[str, Any] | None:
    """Return what `fault_of` reads again."""
    return None if fault is None else asdict(fault)


def fault_of(value: object) -> Fault | None:
    """Return the fault; that something failed is known even where its words can't be read."""
    if value is None:
        return None
    said = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    words = {name: said[name] for name in ("code", "title", "what", "todo") if isinstance(said.get(name), str)}
    if len(words) < len(fields(Fault)) - 2:  # without `passes` and `retry`
        return named("unknown")
    retry = said.get("retry")  # JSON makes a list of a tuple, and of what was yes or no once, nothing
    pauses = cast("list[object]", retry) if isinstance(retry, list) else []
    seconds = tuple(pause for pause in pauses if isinstance(pause, int) and pause >= 0)
    return Fault(**words, passes=said.get("passes") is True, retry=seconds)
