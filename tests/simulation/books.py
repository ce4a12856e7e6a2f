"""The real ledger, in memory and without its thread: what it says is what SQLite says."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TypeVar

from sqlmodel import Session as Transaction

from comfyweb.control.database import LedgerError
from comfyweb.control.ledger import Ledger, Standing
from comfyweb.machine.model import Attempt, Fault, Intent, StopMode, StopReason, Verb, Wanted
from tests.simulation.facts import Facts

T = TypeVar("T")


class Books(Ledger):
    """Outlives the processes of the app, each of which can be killed before any transaction.

    `standing` is read again only after something was written: nobody else writes here, and reading is most of what
    a simulated day would take.
    """

    def __init__(self, facts: Facts, step: Callable[[], Awaitable[None]]) -> None:
        super().__init__("sqlite://", machine="simulated")
        self._facts = facts
        self._step = step
        self._standing: Standing | None = None
        self._nothing_to_revoke = False
        self._reads = False
        self.fails = False

    async def standing(self) -> Standing:
        await self._step()
        if self._standing is None or self.fails:
            self._standing = await self._reading(super().standing())
        return self._standing

    async def unrevoked(self, now: datetime) -> list[str]:
        if self._nothing_to_revoke and not self.fails:
            return []
        await self._step()
        found = await self._reading(super().unrevoked(now))
        self._nothing_to_revoke = not found
        return found

    async def ask(self, wanted: Wanted, mode: StopMode, by: str, now: datetime) -> Intent:
        before = self._standing.open_intent if self._standing else None
        intent = await super().ask(wanted, mode, by, now)
        self._facts.asked(intent, before, wanted, mode, by)
        return intent

    async def end_intent(self, intent_id: int, fault: Fault | None, now: datetime) -> None:
        await super().end_intent(intent_id, fault, now)
        self._facts.intent_ended(intent_id, fault)

    async def begin(self, verb: Verb, zone: str, request_id: str, intent_id: int | None, now: datetime) -> Attempt:
        attempt = await super().begin(verb, zone, request_id, intent_id, now)
        self._facts.began(attempt)
        return attempt

    async def end_run(self, run_id: int, at: datetime, reason: StopReason) -> None:
        run = (await self.standing()).run
        await super().end_run(run_id, at, reason)
        self._facts.run_ended(run, reason)

    async def _transact(self, work: Callable[[Transaction], T]) -> T:
        if not self._reads:
            await self._step()
        if self.fails:
            raise LedgerError("the database failed: simulated")
        if not self._reads:
            self._standing, self._nothing_to_revoke = None, False
        return await super()._transact(work)

    async def _reading(self, query: Awaitable[T]) -> T:
        """Make a query that waits for nothing, so that no write comes between it and what is remembered of it."""
        self._reads = True
        try:
            return await query
        finally:
            self._reads = False

    async def _in_thread(self, work: Callable[[], T], **_: object) -> T:
        return work()
