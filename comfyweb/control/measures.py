"""What is counted while the process runs, for who watches it. Plain numbers: `api/exposition.py` names them."""

import bisect
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

# Seconds. A turn with a look at Compute Engine takes some tenths; one call of it may take 60 s.
LIMITS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


@dataclass(slots=True)
class Durations:
    """How long something took, so often. `counts` has one number for each of `LIMITS` and one for what is longer."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(LIMITS) + 1))
    total_seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one more."""
        self.counts[bisect.bisect_left(LIMITS, seconds)] += 1
        self.total_seconds += seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The loop and its calls, as of now. `calls` are by Compute Engine's method and how they ended.

    `leads` says whether the loop runs in this process; where it doesn't, nothing is called.
    """

    turns: Durations
    failed_turns: int
    calls: Mapping[tuple[str, str], int]
    looked_at: datetime | None
    silence_seconds: float
    run_seconds: float
    leads: bool = True
