"""How fast a change reaches every tab, what many tabs cost in memory, and that they cost no calls to the cloud."""

import asyncio
import json
import os
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from bench.rows import Row, quantile
from bench.site import Site, end, site, start

TABS_PER_PROCESS = 500
CHANGES = 30
PAUSE_SECONDS = 0.5
WAIT_SECONDS = 10
WATCH_SECONDS = 60
BARS_MS = {300: 60, 1000: 400}
MOST_CALLS = 5
PSS_MB = 350


class Tabs:
    """Open tabs, in processes of their own."""

    def __init__(self, count: int, processes: list[Process]) -> None:
        self.count = count
        self._processes = processes

    async def delays(self) -> list[float]:
        """Return what arrived since the last time: seconds from publication to receipt, of all tabs."""
        found: list[float] = []
        for process in self._processes:
            if process.stdin is None or process.stdout is None:
                raise RuntimeError("the tabs' process can't be talked to")
            process.stdin.write(b"\n")
            found += json.loads(await process.stdout.readline())
        return found


@asynccontextmanager
async def tabs(where: Site, count: int) -> AsyncGenerator[Tabs]:
    """Open so many tabs and close them again."""
    shares = [min(TABS_PER_PROCESS, count - begun) for begun in range(0, count, TABS_PER_PROCESS)]
    processes = [await start("bench.tabs", dict(os.environ), str(where.port), str(n), talks=True) for n in shares]
    try:
        for process in processes:
            if process.stdin is None or process.stdout is None:
                raise RuntimeError("the tabs' process can't be talked to")
            process.stdin.write(f"{where.token}\n".encode())
            if await process.stdout.readline() != b'"open"\n':
                raise RuntimeError("the tabs could not be opened")
        yield Tabs(count, processes)
    finally:
        for process in processes:
            await end(process)


async def fan_out() -> list[Row]:
    """Publish changes and time their way to all tabs."""
    rows: list[Row] = []
    for count, bar in BARS_MS.items():
        async with site("bench.served") as where, tabs(where, count) as opened:
            await _change(where, opened)  # the first finds cold caches
            delays: list[float] = []
            for _ in range(CHANGES):
                delays += await _change(where, opened)
                await asyncio.sleep(PAUSE_SECONDS)
        p50, p99 = (quantile(delays, share) * 1000 for share in (0.5, 0.99))
        figure = f"p50 {p50:.0f} ms, p99 {p99:.0f} ms, slowest {max(delays) * 1000:.0f} ms, {len(delays)} receipts"
        rows.append(Row(what=f"A change reaches {count} tabs", figure=figure, bar=f"p99 ≤ {bar} ms", held=p99 <= bar))
    return rows


async def _change(where: Site, opened: Tabs) -> list[float]:
    """Publish one change and return its delays. Raises TimeoutError when a tab doesn't get it."""
    delays: list[float] = []
    async with where.client as client, asyncio.timeout(WAIT_SECONDS):
        await client.post("/bench/publish")
        while len(delays) < opened.count:
            await asyncio.sleep(0.2)
            delays += await opened.delays()
    return delays


async def costs() -> list[Row]:
    """Watch a machine that is off, with one tab and with 300."""
    calls: dict[int, float] = {}
    pss: dict[int, float] = {}
    for count in (1, 300):
        async with site() as where, tabs(where, count):
            await asyncio.sleep(5)
            before = where.meter.calls
            await asyncio.sleep(WATCH_SECONDS)
            calls[count] = (where.meter.calls - before) * 60 / WATCH_SECONDS
            pss[count] = where.pss_kilobytes() * 1024 / 1_000_000
    few, many = calls[1], calls[300]
    return [
        Row(
            what="Compute Engine calls a minute while nothing moves, 1 tab",
            figure=f"{few:g}",
            bar=f"≤ {MOST_CALLS}",
            held=0 < few <= MOST_CALLS,
            binding=True,
        ),
        Row(
            what="The same with 300 tabs",
            figure=f"{many:g}",
            bar=f"the same, give or take where the minute begins, ≤ {MOST_CALLS}",
            held=0 < many <= MOST_CALLS and abs(many - few) <= 1,
            binding=True,
        ),
        Row(what="PSS of the app's processes, 1 tab", figure=f"{pss[1]:.0f} MB"),
        Row(what="With 300 tabs", figure=f"{pss[300]:.0f} MB", bar=f"≤ {PSS_MB} MB", held=pss[300] <= PSS_MB),
    ]
