"""How often a host stops a machine wrongly, and how long after its time: a thousand simulated machine-days."""

import asyncio
import os
from concurrent.futures import ProcessPoolExecutor

from bench.rows import Row
from tests.host.machine_days import LATE_SECONDS, Tally, simulate

DAYS = 1000


async def idle() -> list[Row]:
    """Simulate people, jobs, silences, crashes and clock jumps around the keeper's judgement."""
    workers = os.cpu_count() or 1
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(workers) as pool:
        parts = [loop.run_in_executor(pool, _part, DAYS / workers, 10_000_000 * index) for index in range(workers)]
        tallies = await asyncio.gather(*parts)
    days = sum(tally.days for tally in tallies)
    stops = sum(tally.stops for tally in tallies)
    wrong = [words for tally in tallies for words in tally.wrong]
    late = [words for tally in tallies for words in tally.late]
    latest = max(tally.latest for tally in tallies)
    what = f"Stops under somebody, in {days:.0f} machine-days and {stops} stops"
    return [
        Row(what=what, figure=", ".join(wrong[:3]) or "0", bar="0", held=not wrong, binding=True),
        Row(
            what="Idle machines that stayed on longer than half a minute after their time",
            figure=", ".join(late[:3]) or f"0; the latest by {latest:.1f} s",
            bar=f"0, within {LATE_SECONDS:.0f} s",
            held=not late,
            binding=True,
        ),
    ]


def _part(days: float, seed: int) -> Tally:
    return simulate(days, seed=seed)
