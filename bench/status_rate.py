"""How many requests a second `GET /api/instance/status` answers, beside a bare endpoint on the same server."""

import asyncio
import os
from statistics import median

from bench.rows import Row
from bench.site import Site, end, site, start

CONNECTIONS = (1, 32, 100)
ROUNDS = 5
SECONDS = 2.0
SHARE = 0.5
PATHS = {"bare": "/bench/bare", "status": "/api/instance/status"}


async def status_rate() -> list[Row]:
    """Measure both in turns, so that whatever else the machine does meets both."""
    rows: list[Row] = []
    async with site("bench.served") as where:
        for connections in CONNECTIONS:
            rates: dict[str, list[float]] = {name: [] for name in PATHS}
            costs: dict[str, list[float]] = {name: [] for name in PATHS}
            for _ in range(ROUNDS):
                for name, path in PATHS.items():
                    before = where.cpu_seconds()
                    answered = await _load(where, path, connections)
                    rates[name].append(answered / SECONDS)
                    costs[name].append((where.cpu_seconds() - before) / answered * 1e6)
            bare, ours = median(rates["bare"]), median(rates["status"])
            share = median(one / other for one, other in zip(rates["status"], rates["bare"], strict=True))
            cost = f"{median(costs['status']):.0f} against {median(costs['bare']):.0f} µs of processor time each"
            what = f"Requests a second, {connections} connection{'s' if connections > 1 else ''}"
            figure = f"{ours:.0f}, bare {bare:.0f}: {share:.2f} of it; {cost}"
            rows.append(Row(what=what, figure=figure, bar=f"≥ {SHARE} of bare", held=share >= SHARE, binding=True))
    return rows


async def _load(where: Site, path: str, connections: int) -> int:
    process = await start(
        "bench.load", dict(os.environ), str(where.port), path, where.token, str(connections), str(SECONDS), talks=True
    )
    try:
        async with asyncio.timeout(SECONDS + 30):
            return int((await process.communicate())[0])
    finally:
        await end(process)
