"""What the tests of access share: a clock that is moved by hand, a store in memory, and a hasher that counts."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest
from argon2 import PasswordHasher
from pydantic import SecretStr

from comfyweb.access.passwords import Passwords
from comfyweb.access.sessions import Session, Sessions
from comfyweb.access.throttle import Throttle

PASSWORD = "correct horse battery"
SECRET = "9f8e7d6c5b4a39281706f5e4d3c2b1a0" * 2
OTHER_SECRET = SECRET[::-1]
START = datetime(2026, 11, 23, 12, 0, 0, 250_000, tzinfo=UTC)


@dataclass
class Clock:
    at: datetime = START

    def __call__(self) -> datetime:
        return self.at

    def forward(self, **by: float) -> None:
        self.at += timedelta(**by)


class CountingHasher(PasswordHasher):
    """Argon2 at its cheapest. `checked` is how often it was asked."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.checked = 0

    def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:  # noqa: A002 - argon2's name
        self.checked += 1
        return super().verify(hash, password)


class StoreDown(Exception):
    """What this store raises while it is down; `Sessions` knows nothing of it."""


@dataclass
class Store:
    """The ledger's part, in memory. `down` makes every call fail."""

    rows: dict[str, Session] = field(default_factory=dict[str, Session])
    ended: dict[str, datetime] = field(default_factory=dict[str, datetime])
    down: bool = False
    reads: int = 0

    async def add(self, session: Session) -> None:
        self._answer()
        self.rows[session.jti] = session

    async def end(self, jti: str, at: datetime) -> None:
        self._answer()
        self.ended.setdefault(jti, at)

    async def end_all(self, at: datetime) -> None:
        self._answer()
        self.ended = dict.fromkeys(self.rows, at) | self.ended

    async def live(self, now: datetime) -> Iterable[Session]:
        self._answer()
        self.reads += 1
        return [row for jti, row in self.rows.items() if jti not in self.ended and row.expires_at > now]

    def _answer(self) -> None:
        if self.down:
            raise StoreDown


@dataclass
class Bench:
    """Sessions with everything around them in reach."""

    clock: Clock = field(default_factory=Clock)
    store: Store = field(default_factory=Store)
    hasher: CountingHasher = field(default_factory=CountingHasher)
    delays: list[float] = field(default_factory=list[float])

    def sessions(self, *secrets: str) -> Sessions:
        """Return what a process just started would have."""

        async def sleep(seconds: float) -> None:
            self.delays.append(seconds)

        return Sessions(
            secrets=[SecretStr(secret) for secret in secrets or (SECRET,)],
            passwords=Passwords(SecretStr(PASSWORD), hasher=self.hasher),
            throttle=Throttle(now=self.clock),
            store=self.store,
            now=self.clock,
            sleep=sleep,
        )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def bench() -> Bench:
    return Bench()
