"""The lease: of several processes that serve one machine, one runs its loop. PostgreSQL keeps who.

No two clocks are compared. The holder raises `beats` every second; whoever has seen the same number for `TERM` by his
own clock takes over and raises `epoch`. The holder counts from before it sent its last beat, and less than that: it
has stopped by the time when another can begin. What it had under way is stored under its epoch, or not at all.
"""

import time
from collections.abc import Callable
from datetime import timedelta

from sqlalchemy import Update
from sqlmodel import Session as Transaction
from sqlmodel import col, select, update

from comfyweb.cloud.compute import Withheld
from comfyweb.control.database import Database, LedgerError
from comfyweb.control.tables import LeaseRow

BEAT = timedelta(seconds=1)
TERM = timedelta(seconds=5)
# The holder counts so much less: what it calls in its last moment has left it before anybody else begins.
MARGIN = timedelta(seconds=1)


class Deposed(LedgerError, Withheld):
    """Another process runs the machine's loop by now, or may: what was to be done is not."""


def since_boot() -> float:
    """Return seconds on a clock that nobody sets and that goes on while the computer sleeps (Linux)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Lease(Database):
    """One process's hold on the loop of `machine`, or its wait for it. `holder` is a name of its own."""

    def __init__(self, url: str, *, machine: str, holder: str, clock: Callable[[], float] = since_boot) -> None:
        super().__init__(url)
        self._machine = machine
        self._holder = holder
        self._clock = clock
        self._epoch: int | None = None
        self._held_until = 0.0
        self._seen: tuple[int, int] | None = None
        self._seen_first = 0.0

    @property
    def epoch(self) -> int | None:
        """The epoch that this process was given the lease for last; None before it had it."""
        return self._epoch

    @property
    def held(self) -> bool:
        """Whether nobody else can have it yet."""
        return self.left_seconds > 0

    @property
    def left_seconds(self) -> float:
        """For how long nobody else can have it."""
        return max(self._held_until - self._clock(), 0.0)

    async def take(self) -> bool:
        """Take the lease if it is free, was given back, or its holder has not been seen alive for `TERM`.

        Raises LedgerError.
        """
        asked = self._clock()  # before it is held, never after

        def work(db: Transaction) -> int | None:
            row = db.get(LeaseRow, self._machine)
            if row is None:
                row = LeaseRow(machine=self._machine, holder="", epoch=0, beats=0)
            if row.holder and not self._unchanged_for_a_term(row):
                return None
            row.holder, row.epoch, row.beats = self._holder, row.epoch + 1, 0
            db.add(row)
            return row.epoch

        epoch = await self._transact(work)
        if epoch is None:
            return False
        self._epoch, self._seen = epoch, None
        self._hold_from(asked)
        return True

    async def renew(self) -> bool:
        """Hold it for another term; False when another process has it. Raises LedgerError: it may be held still."""
        asked = self._clock()

        def work(db: Transaction) -> bool:
            return db.exec(self._mine().values(beats=col(LeaseRow.beats) + 1)).rowcount == 1

        if await self._transact(work):
            self._hold_from(asked)
            return True
        self._held_until = 0.0
        return False

    async def give_back(self) -> None:
        """Let another process take it at once. Raises LedgerError."""
        self._held_until = 0.0

        def work(db: Transaction) -> None:
            db.exec(self._mine().values(holder=""))

        await self._transact(work)

    def must_be_held(self) -> Callable[[], None]:
        """Return what looks, before something that no transaction can undo, whether it is held still or may be lost.

        It raises Deposed; also when it was lost and taken again since this was called. Any thread may call it.
        """
        epoch = self._epoch

        def look() -> None:
            if self._epoch != epoch or not self.held:
                raise Deposed("this process no longer runs the machine's loop")

        return look

    def fence(self) -> Callable[[Transaction], None]:
        """Return what looks, in a transaction, whether the lease is still the one that is held now.

        It raises Deposed when not. Nobody can take it before that transaction has ended: they wait for each other.
        """
        epoch = self._epoch

        def look(db: Transaction) -> None:
            if db.exec(select(LeaseRow.epoch).where(LeaseRow.machine == self._machine)).first() != epoch:
                raise Deposed("another process runs the machine's loop by now")

        return look

    def _mine(self) -> Update:
        own = (
            col(LeaseRow.machine) == self._machine,
            col(LeaseRow.holder) == self._holder,
            col(LeaseRow.epoch) == self._epoch,
        )
        return update(LeaseRow).where(*own)

    def _hold_from(self, asked: float) -> None:
        self._held_until = asked + (TERM - MARGIN).total_seconds()

    def _unchanged_for_a_term(self, row: LeaseRow) -> bool:
        seen, now = (row.epoch, row.beats), self._clock()  # after it was read, so after the holder's beat
        if seen != self._seen:
            self._seen, self._seen_first = seen, now
        return now - self._seen_first >= TERM.total_seconds()
