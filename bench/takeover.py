"""How soon another process runs the machine's loop when the one that did is killed, stands still, or ends in order."""

import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from bench.rows import Row
from tests.replicas.servers import POSTGRESQL, REDIS, PostgreSQLServer, RedisServer
from tests.replicas.town import App, Town, town, until

TIMES = 3
BAR_SECONDS = 10


async def takeover() -> list[Row]:
    """Do that to whole processes with real servers; not measured where those aren't installed."""
    if POSTGRESQL is None or REDIS is None:
        return [Row(what="Takeover", figure="not measured: PostgreSQL or Redis is not installed")]
    return await asyncio.to_thread(_measured)


def _measured() -> list[Row]:
    ends: dict[str, Callable[[App], None]] = {
        "kill -9": App.kill,
        "SIGSTOP": App.stand_still,
        "SIGTERM": App.end,
    }
    with tempfile.TemporaryDirectory() as folder, PostgreSQLServer() as postgresql, RedisServer() as redis:
        rows: list[Row] = []
        for name, end in ends.items():
            took: list[float] = []
            for _ in range(TIMES):
                with town(Path(folder), postgresql.url(), redis.url) as here:
                    took.append(_seconds(here, end))
            figure = f"{median(took):.1f} s (of {TIMES}: {min(took):.1f} to {max(took):.1f})"
            held = max(took) <= BAR_SECONDS
            rows.append(Row(what=f"{name} → another runs the loop", figure=figure, bar=f"≤ {BAR_SECONDS} s", held=held))
    return rows


def _seconds(here: Town, end: Callable[[App], None]) -> float:
    leader = here.app(0)
    until(lambda: leader.leads)
    follower = here.app(1)
    follower.shows("off")
    begin = time.monotonic()
    end(leader)
    until(lambda: follower.leads)
    return time.monotonic() - begin
