"""An event loop whose time is virtual: nothing waits, and the clock jumps to whatever is due next.

`asyncio.sleep`, `asyncio.timeout` and every task behave as ever, so the code under test doesn't know. There are no
threads and no sockets in it, so the same program makes the same moves each time.
"""

import asyncio
import selectors
from datetime import UTC, datetime, timedelta

BEGAN = datetime(2026, 3, 2, 8, tzinfo=UTC)


class Deadlock(RuntimeError):
    """Nothing is due and nobody runs: virtual time has no next moment."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Time begins at 0 and moves only when everybody waits."""

    def __init__(self) -> None:
        self.elapsed = 0.0
        super().__init__(_Skipping(self))
        # What is due within this time is due now. The system clock's nanosecond is lost in a float of some years.
        self._clock_resolution = 1e-6

    def time(self) -> float:
        """Return the seconds since the beginning."""
        return self.elapsed

    def now(self) -> datetime:
        """Return the same as a point in time."""
        return BEGAN + timedelta(seconds=self.elapsed)


class _Skipping(selectors.SelectSelector):
    """Waits for nothing: there is no socket that could become ready."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Deadlock
        self._loop.elapsed += max(timeout, 0.0)
        return []
