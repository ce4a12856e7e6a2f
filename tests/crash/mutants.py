"""The loop and the ledger, broken on purpose: a crash test that lets one of these pass is worth nothing."""

import asyncio
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Engine
from sqlmodel import create_engine

from comfyweb.control import database as database_module
from comfyweb.control.ledger import Ledger
from comfyweb.control.loop import Loop
from comfyweb.control.messenger import Messenger
from comfyweb.machine.model import Attempt, Call, Decision, Intent, Replay
from comfyweb.machine.snapshot import address

_kept: set[asyncio.Task[Any]] = set()


def become(mutant: str) -> None:
    """Break this process's comfyweb in one way; an empty name leaves it whole."""
    if mutant:
        MUTANTS[mutant][1]()


def _call_before_it_is_stored() -> None:
    act = Loop._act

    async def acts(self: Loop, decision: Decision, intent: Intent | None) -> None:
        if not isinstance(decision.act, Call):
            await act(self, decision, intent)
            return
        verb, at, request_id = decision.act.verb, self._clock.now(), str(uuid.uuid4())
        made = Attempt(id=0, verb=verb, zone=self._place.zone, request_id=request_id, made_at=at)
        operation = await self._attempts._send(made)
        stored = await self._ledger.begin(verb, made.zone, request_id, intent.id if intent else None, at)
        if operation is None:
            await self._ledger.end_attempt(stored.id, None, at)
        else:
            await self._ledger.called(stored.id, operation)

    Loop._act = acts


def _intent_ends_before_the_act() -> None:
    act = Loop._act

    async def acts(self: Loop, decision: Decision, intent: Intent | None) -> None:
        if intent is not None and isinstance(decision.act, Call):
            await self._ledger.end_intent(intent.id, None, self._clock.now())
        await act(self, decision, intent)

    Loop._act = acts


def _another_id_for_a_repeated_call() -> None:
    act = Loop._act

    async def acts(self: Loop, decision: Decision, intent: Intent | None) -> None:
        if isinstance(decision.act, Replay):
            again = replace(decision.act.attempt, request_id=str(uuid.uuid4()))
            decision = replace(decision, act=Replay(attempt=again))
        await act(self, decision, intent)

    Loop._act = acts


def _click_answered_before_it_is_stored() -> None:
    ask = Ledger.ask

    async def asks(self: Ledger, *what: Any) -> Any:
        _later(ask(self, *what))

    Ledger.ask = asks  # pyright: ignore[reportAttributeAccessIssue] - broken on purpose


def _logout_answered_before_it_is_stored() -> None:
    end = Ledger.end

    async def ends(self: Ledger, jti: str, at: datetime) -> None:
        _later(end(self, jti, at))

    Ledger.end = ends


def _logout_noted_as_told_before_it_is() -> None:
    async def revoke(self: Messenger, now: datetime) -> None:
        ended = await self._ledger.unrevoked(now)
        if ended and self._observer.seen.host is not None:
            await self._ledger.revoked(ended, now)
            for jti in ended:
                await self._host.revoke(address(None, self._place), jti)

    Messenger.revoke = revoke


def _tables_made_one_by_one() -> None:
    def engine(url: str) -> Engine:
        return create_engine(url, connect_args={"check_same_thread": False})

    database_module._sqlite = engine


def _later(work: Any) -> None:
    async def soon() -> None:
        await asyncio.sleep(0.001)
        await work

    task = asyncio.get_running_loop().create_task(soon())
    _kept.add(task)
    task.add_done_callback(_kept.discard)


# What is broken: a story in which that shows, and how to break it.
MUTANTS: Mapping[str, tuple[str, Callable[[], None]]] = {
    "a call is stored after it was made": ("refusals", _call_before_it_is_stored),
    "an intent ends before its call is made": ("refusals", _intent_ends_before_the_act),
    "a repeated call gets another request id": ("refusals", _another_id_for_a_repeated_call),
    "a click is answered before it is stored": ("refusals", _click_answered_before_it_is_stored),
    "a logout is answered before it is stored": ("logouts", _logout_answered_before_it_is_stored),
    "a logout counts as told before the host was told": ("logouts", _logout_noted_as_told_before_it_is),
    "the tables are made without a transaction": ("refusals", _tables_made_one_by_one),
}
