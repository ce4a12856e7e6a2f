"""What one process does with the lease: a loop that has ended is followed by another one of the same process."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import cast

import pytest

from comfyweb.control.clock import Clock
from comfyweb.control.follower import Follower
from comfyweb.control.lease import Lease
from comfyweb.control.loop import Loop
from comfyweb.control.publisher import Publisher
from comfyweb.control.replica import Replica
from comfyweb.machine.model import Observation
from comfyweb.machine.snapshot import nothing_seen_yet
from tests.control.driving import PLACE, POLICY
from tests.replicas.servers import PostgreSQLServer

pytestmark = pytest.mark.slow


class Ending:
    """Stands in for a loop that was deposed, or has broken: it ends at once. The second goes on."""

    def __init__(self, fails: Exception | None, *, ends: bool) -> None:
        self._fails, self._ends = fails, ends
        self.seen = Observation()
        self.on_round: list[object] = []

    def now(self) -> datetime:
        return datetime.now(UTC)

    async def run(self) -> None:
        if self._fails is not None:
            raise self._fails
        if not self._ends:
            await asyncio.Event().wait()


@pytest.mark.parametrize("fails", [None, RuntimeError("a mistake of ours")], ids=["deposed", "broken"])
async def test_a_loop_that_has_ended_is_followed_by_another(
    postgresql: PostgreSQLServer, fails: Exception | None
) -> None:
    lease = Lease(postgresql.url(), machine="m", holder="one")
    await lease.open()
    second = asyncio.Event()
    made: list[int] = []

    @contextlib.asynccontextmanager
    async def make_loop(_: Lease) -> AsyncGenerator[Loop]:
        made.append(lease.epoch or 0)
        if len(made) > 1:
            second.set()
        yield cast("Loop", Ending(fails if len(made) == 1 else None, ends=len(made) == 1))

    publisher = Publisher(nothing_seen_yet(PLACE))
    follower = Follower(publisher=publisher, policy=POLICY, clock=Clock())
    replica = Replica(lease=lease, relay=None, follower=follower, publisher=publisher, make_loop=make_loop)
    running = asyncio.create_task(replica.run())
    async with asyncio.timeout(30):
        await second.wait()
    assert made == [1, 2], "under a new epoch"
    running.cancel()
    await asyncio.wait({running})
    assert await lease.take(), "it was given back"
    await lease.close()
