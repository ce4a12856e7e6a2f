"""A machine, a store of sessions and a clock that tests can set as they like."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from argon2 import PasswordHasher
from pydantic import SecretStr

from comfyweb.access.passwords import Passwords
from comfyweb.access.sessions import LIFETIME, Session, Sessions
from comfyweb.access.throttle import Throttle
from comfyweb.control.publisher import Publisher
from comfyweb.machine.model import Phase, StopMode
from comfyweb.machine.snapshot import Snapshot

PASSWORD: Final = "correct horse battery"


class Store:
    """Sessions that last as long as the test."""

    def __init__(self) -> None:
        self.rows: dict[str, Session] = {}

    async def add(self, session: Session) -> None:
        self.rows[session.jti] = session

    async def end(self, jti: str, at: datetime) -> None:
        self.rows.pop(jti, None)

    async def end_all(self, at: datetime) -> None:
        self.rows.clear()

    async def live(self, now: datetime) -> list[Session]:
        return list(self.rows.values())


class Machine:
    """Notes what was asked of it; `refusal` is what it raises instead."""

    def __init__(self, body: dict[str, Any], gate: str = "") -> None:
        self.publisher = Publisher(Snapshot(phase=Phase(body["phase"]), body=body))
        self.asked: list[str] = []
        self.refusal: Exception | None = None
        self.on_round: list[Any] = []
        self.turned_away: dict[str, str] = {}
        self._gate = gate

    def _note(self, asked: str) -> str:
        self.asked.append(asked)
        if self.refusal:
            raise self.refusal
        return f"Words about {asked}."

    def look(self) -> None:
        self._note("look")

    def locked_out(self, session: Session, address: str) -> str:
        return self.turned_away.get(address, "")

    async def start(self, session: Session) -> str:
        return self._note("start")

    async def stop(self, session: Session, mode: StopMode) -> str:
        return self._note(f"stop {mode.value}")

    async def extend(self, session: Session, minutes: float) -> str:
        return self._note(f"extend {minutes:g}")

    async def keep_alive(self, session: Session) -> str:
        return self._note("keep-alive")

    async def ticket(self, session: Session) -> str:
        self._note("ticket")
        return f"{self._gate}/_host/gate?ticket={self.asked.count('ticket')}"


class Clock:
    """The time as the sessions see it."""

    def __init__(self) -> None:
        self.at = datetime.now(UTC)

    def now(self) -> datetime:
        return self.at

    def expire_sessions(self) -> None:
        self.at += LIFETIME + timedelta(seconds=1)


def sessions(clock: Clock) -> Sessions:
    """Return sessions for PASSWORD, with a hash that is quick to check."""
    return Sessions(
        secrets=[SecretStr("x" * 40)],
        passwords=Passwords(SecretStr(PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(PASSWORD))),
        throttle=Throttle(now=clock.now),
        store=Store(),
        now=clock.now,
    )
