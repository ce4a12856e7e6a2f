"""How long after its start the app serves its login page, from a built state."""

import time
from statistics import median

from bench.rows import Row
from bench.site import answers, end, site, start

STARTS = 5
BAR_SECONDS = 2.5


async def start_up() -> list[Row]:
    """Start the app several times beside a running cloud, as a supervisor does."""
    async with site() as where:
        await end(where.app)
        seconds: list[float] = []
        for _ in range(STARTS):
            begin = time.monotonic()
            app = await start("comfyweb", where.environment)
            try:
                seconds.append(await answers(where.port, "/login", app) - begin)
            finally:
                await end(app)
    figure = f"{median(seconds):.2f} s (of {STARTS}: {min(seconds):.2f} to {max(seconds):.2f})"
    held = median(seconds) <= BAR_SECONDS
    return [Row(what="Process start → login page, median", figure=figure, bar=f"≤ {BAR_SECONDS} s", held=held)]
