"""Everything that must survive a crash, and every query for it: intents, attempts, runs, sessions, keys.

Each method is one transaction. When the database can't be read or written they raise `LedgerError`, and nothing of that
transaction has happened.
"""

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from sqlmodel import Session as Transaction
from sqlmodel import col, select, update
from sqlmodel.sql.expression import SelectOfScalar

from comfyweb.access.sessions import Session
from comfyweb.control.database import Database
from comfyweb.control.rows import Reader, Row, attempt_of, fault_json, fault_of, intent_of, run_of
from comfyweb.control.tables import AttemptRow, IntentRow, KeyRow, RunRow, SessionRow
from comfyweb.machine.model import Attempt, Fault, Guard, Intent, Run, StopMode, StopReason, Verb, Wanted

T = TypeVar("T")

GUARDS = frozenset(guard.value for guard in Guard)
# As many of the newest calls as a decision can need: an intent makes three, and a few more when it must repeat.
REMEMBERED_ATTEMPTS = 12
REMEMBERED_RUNS = 20
# The usual time of a start is the median of this many.
REMEMBERED_STARTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What the ledger knows of the machine, read in one transaction.

    `stop` is the stop that was asked for last, unless it was refused or called off; a start that still waits for the
    machine to be off doesn't call it off.
    """

    open_intent: Intent | None
    last_intent: Intent | None
    last_intent_fault: Fault | None
    stop: Intent | None
    attempts: tuple[Attempt, ...]
    run: Run | None
    last_run: Run | None
    usual_start: timedelta | None
    booted_before: bool


class Ledger(Database):
    """The database behind one machine and its visitors.

    `fence` looks before each transaction whether it may still be made, and raises LedgerError when not.
    """

    def __init__(self, url: str, *, machine: str, fence: Callable[[Transaction], None] = lambda _: None) -> None:
        super().__init__(url)
        self._machine = machine
        self._fence = fence
        self._reader = Reader()
        # Made once: making them takes as long as asking them, and the loop asks twice a turn.
        self._open_intents = select(IntentRow).where(IntentRow.machine == machine, col(IntentRow.ended_at).is_(None))
        self._newest_intents = _newest(IntentRow, machine, 2)
        self._newest_attempts = _newest(AttemptRow, machine, REMEMBERED_ATTEMPTS)
        self._newest_runs = _newest(RunRow, machine, REMEMBERED_RUNS)

    # -- intents ---------------------------------------------------------------------------------------------------

    async def ask(self, wanted: Wanted, mode: StopMode, by: str, now: datetime) -> Intent:
        """Store what somebody wants. An open intent for the same is kept; another one is ended by this one."""

        def work(db: Transaction) -> Intent:
            row = db.exec(self._open_intents).first()
            if row is not None:
                same = (row.wanted, row.mode) == (wanted.value, mode.value)
                # A guard that ends a session lets it last until then; a person's stop needs nothing to wait for.
                if same and (row.by not in GUARDS or by in GUARDS):
                    return intent_of(row)
                row.ended_at = now
                db.add(row)
            row = IntentRow(machine=self._machine, wanted=wanted.value, mode=mode.value, by=by, asked_at=now)
            db.add(row)
            db.flush()
            return intent_of(row)

        return await self._transact(work)

    async def end_intent(self, intent_id: int, fault: Fault | None, now: datetime) -> None:
        """Close an intent: fulfilled, or refused with a fault."""

        def work(db: Transaction) -> None:
            row = db.get_one(IntentRow, intent_id)
            if row.ended_at is None:
                row.ended_at = now
                row.fault = fault_json(fault)
                db.add(row)

        await self._transact(work)

    # -- attempts --------------------------------------------------------------------------------------------------

    async def begin(self, verb: Verb, zone: str, request_id: str, intent_id: int | None, now: datetime) -> Attempt:
        """Store a call that is about to be made."""

        def work(db: Transaction) -> Attempt:
            row = AttemptRow(
                machine=self._machine,
                intent_id=intent_id,
                verb=verb.value,
                zone=zone,
                request_id=request_id,
                made_at=now,
            )
            db.add(row)
            db.flush()
            return attempt_of(row)

        return await self._transact(work)

    async def called(self, attempt_id: int, operation: str) -> None:
        """Store the operation with which Compute Engine answered."""

        def work(db: Transaction) -> None:
            db.get_one(AttemptRow, attempt_id).operation = operation

        await self._transact(work)

    async def end_attempt(self, attempt_id: int, fault: Fault | None, now: datetime) -> None:
        """Store how a call ended."""

        def work(db: Transaction) -> None:
            row = db.get_one(AttemptRow, attempt_id)
            row.ended_at = now
            row.fault = fault_json(fault)

        await self._transact(work)

    async def stored_by(self, now: datetime) -> None:
        """Bring back to `now` what is stored as of later: an own clock that was fast has stored it."""

        def work(db: Transaction) -> None:
            for table, moment in ((IntentRow, "asked_at"), (AttemptRow, "made_at"), (AttemptRow, "ended_at")):
                late = (col(table.machine) == self._machine, col(getattr(table, moment)) > now)
                db.exec(update(table).where(*late).values({moment: now}))

        await self._transact(work)

    # -- runs ------------------------------------------------------------------------------------------------------

    async def begin_run(self, started_at: datetime, asked_at: datetime | None) -> None:
        """Store that the machine came on."""

        def work(db: Transaction) -> None:
            db.add(RunRow(machine=self._machine, started_at=started_at, asked_at=asked_at))

        await self._transact(work)

    async def note_run(
        self, run_id: int, *, ready_at: datetime | None, stops_at: datetime | None, boot_id: str
    ) -> None:
        """Store what the host told of the run."""

        def work(db: Transaction) -> None:
            row = db.get_one(RunRow, run_id)
            row.ready_at, row.stops_at, row.boot_id = ready_at, stops_at, boot_id

        await self._transact(work)

    async def note_reason(self, run_id: int, reason: StopReason | None) -> None:
        """Store why the machine is going off; None when it stays on after all."""

        def work(db: Transaction) -> None:
            db.get_one(RunRow, run_id).reason = reason.value if reason else None

        await self._transact(work)

    async def end_run(self, run_id: int, at: datetime, reason: StopReason) -> None:
        """Store when and why the machine went off."""

        def work(db: Transaction) -> None:
            row = db.get_one(RunRow, run_id)
            row.ended_at, row.reason = at, reason.value

        await self._transact(work)

    async def standing(self) -> Standing:
        """Read all that a round of the loop needs."""

        def work(db: Transaction) -> Standing:
            read = self._reader.read
            opened = db.exec(self._open_intents).all()
            wishes = list(read(intent_of, db.exec(self._newest_intents).all()))
            newest = wishes[0] if wishes else None
            attempts = db.exec(self._newest_attempts).all()
            runs = [run for _, run in read(run_of, db.exec(self._newest_runs).all())]
            return Standing(
                open_intent=next((made for _, made in read(intent_of, opened)), None),
                last_intent=newest[1] if newest else None,
                last_intent_fault=fault_of(newest[0].fault) if newest else None,
                stop=_stop([row for row, _ in wishes]),
                attempts=tuple(attempt for _, attempt in read(attempt_of, reversed(attempts))),
                run=next((run for run in runs if run.ended_at is None), None),
                last_run=next((run for run in runs if run.ended_at is not None), None),
                usual_start=_usual_start(runs),
                booted_before=any(run.ready_at is not None for run in runs),
            )

        return await self._transact(work)

    # -- sessions (the store behind access.sessions) ---------------------------------------------------------------

    async def add(self, session: Session) -> None:
        """Store a login."""

        def work(db: Transaction) -> None:
            db.add(SessionRow(jti=session.jti, issued_at=session.issued_at, expires_at=session.expires_at))

        await self._transact(work)

    async def end(self, jti: str, at: datetime) -> None:
        """Store a logout."""

        def work(db: Transaction) -> None:
            row = db.get(SessionRow, jti)
            if row is not None and row.ended_at is None:
                row.ended_at = at

        await self._transact(work)

    async def end_all(self, at: datetime) -> None:
        """Store that everybody is logged out."""

        def work(db: Transaction) -> None:
            db.exec(update(SessionRow).where(col(SessionRow.ended_at).is_(None)).values(ended_at=at))

        await self._transact(work)

    async def live(self, now: datetime) -> Iterable[Session]:
        """Read the sessions that have neither ended nor expired."""

        def work(db: Transaction) -> list[Session]:
            rows = db.exec(
                select(SessionRow).where(col(SessionRow.ended_at).is_(None), col(SessionRow.expires_at) > now)
            )
            return [Session(jti=r.jti, issued_at=r.issued_at, expires_at=r.expires_at) for r in rows]

        return await self._transact(work)

    async def unrevoked(self, now: datetime) -> list[str]:
        """Read the sessions that have ended before their time and of which the host has not been told."""

        def work(db: Transaction) -> list[str]:
            return list(
                db.exec(
                    select(SessionRow.jti).where(
                        col(SessionRow.ended_at).is_not(None),
                        col(SessionRow.revoked_at).is_(None),
                        col(SessionRow.expires_at) > now,
                    )
                )
            )

        return await self._transact(work)

    async def revoked(self, jtis: Sequence[str], at: datetime) -> None:
        """Store that the host knows of the end of these sessions."""

        def work(db: Transaction) -> None:
            db.exec(update(SessionRow).where(col(SessionRow.jti).in_(jtis)).values(revoked_at=at))

        await self._transact(work)

    # -- keys ------------------------------------------------------------------------------------------------------

    async def key(self, name: str, make: Callable[[], str]) -> str:
        """Return the key of that name; make and store it when there is none."""

        def work(db: Transaction) -> str:
            row = db.get(KeyRow, name)
            if row is None:
                row = KeyRow(name=name, value=make())
                db.add(row)
            return row.value

        return await self._transact(work)

    async def _transact(self, work: Callable[[Transaction], T]) -> T:
        def fenced(db: Transaction) -> T:
            self._fence(db)
            return work(db)

        return await super()._transact(fenced)


def _newest(table: type[Row], machine: str, most: int) -> SelectOfScalar[Row]:
    return select(table).where(table.machine == machine).order_by(col(table.id).desc()).limit(most)


def _stop(newest_first: Sequence[IntentRow]) -> Intent | None:
    """Return the newest intent if it is a stop, or the stop before a start that still waits."""
    waits = bool(newest_first) and newest_first[0].wanted == Wanted.ON.value and newest_first[0].ended_at is None
    row = next(iter(newest_first[waits:]), None)
    return intent_of(row) if row is not None and row.wanted == Wanted.OFF.value and row.fault is None else None


def _usual_start(runs: Iterable[Run]) -> timedelta | None:
    took = [r.ready_at - r.asked_at for r in runs if r.ready_at is not None and r.asked_at is not None]
    if not took:
        return None
    return timedelta(seconds=statistics.median(each.total_seconds() for each in took[:REMEMBERED_STARTS]))
