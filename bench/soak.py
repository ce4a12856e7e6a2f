"""Whether memory stays flat: 1000 tabs for ten minutes, a change every second, and others that come and go."""

import asyncio
import time
from statistics import median

from bench.fan_out import tabs
from bench.rows import Row
from bench.site import site

TABS, GUESTS = 1000, 20
MINUTES = 10
SETTLED_MINUTES = 6  # a closed tab's state is kept for five (rxconfig.py)
SAMPLE_SECONDS, GUESTS_SECONDS = 5, 30
MOST_GROWTH = 0.03


async def soak() -> list[Row]:
    """Watch the app's memory while all that goes on."""
    samples: list[tuple[float, float]] = []
    async with site("bench.served") as where, tabs(where, TABS) as opened:
        began = time.monotonic()

        def minutes() -> float:
            return (time.monotonic() - began) / 60

        async def publish() -> None:
            async with where.client as client:
                while minutes() < MINUTES:
                    (await client.post("/bench/publish")).raise_for_status()
                    await asyncio.sleep(1)

        async def come_and_go() -> None:
            while minutes() < MINUTES:
                async with tabs(where, GUESTS):
                    await asyncio.sleep(GUESTS_SECONDS)

        async def sample() -> None:
            while minutes() < MINUTES:
                samples.append((minutes(), where.pss_kilobytes() * 1024 / 1_000_000))
                await asyncio.sleep(SAMPLE_SECONDS)

        await asyncio.gather(publish(), come_and_go(), sample())
        receipts = len(await opened.delays())
    first, settled, last = (_around(samples, at) for at in (1, SETTLED_MINUTES, MINUTES - 0.5))
    return [
        Row(
            what=f"PSS of the app's processes with {TABS} tabs for {MINUTES} minutes, a change every second, and every "
            f"{GUESTS_SECONDS} s {GUESTS} other tabs that come and go",
            figure=f"{first:.0f} MB after 1 minute, {settled:.0f} after {SETTLED_MINUTES}, {last:.0f} at the end; "
            f"{receipts} receipts",
            bar=f"flat from minute {SETTLED_MINUTES} on (at most {MOST_GROWTH:.0%} more)",
            held=last <= settled * (1 + MOST_GROWTH),
            binding=True,
        )
    ]


def _around(samples: list[tuple[float, float]], at: float) -> float:
    """Return the usual value within half a minute of `at`."""
    return median(value for minute, value in samples if abs(minute - at) <= 0.5)
