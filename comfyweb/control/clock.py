"""What time it is: by our own clock while it agrees with Google's, and by Google's when it doesn't."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from comfyweb.machine.model import MachineMissing, MachineSeen

log = logging.getLogger(__name__)

# By more than this our clock is wrong: Google's says so in whole seconds, and an answer takes 15 s at most.
CLOCKS_DIFFER = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """Time, injected: `now` for what is told and stored, `monotonic` (seconds) for when to look again."""

    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    monotonic: Callable[[], float] = time.monotonic


class CorrectedClock:
    """A clock that is set at each look at Compute Engine. `monotonic` is the own clock's, which nobody can set."""

    def __init__(self, clock: Clock) -> None:
        self.monotonic = clock.monotonic
        # A time and when that was on the monotonic clock: what time it is follows from both.
        self._time, self._timed = clock.now(), clock.monotonic()
        self._ahead = timedelta()

    def now(self) -> datetime:
        """Return the time, by the last look: an own clock that jumps or is wrong decides nothing.

        Between looks it goes on by a clock that nobody can set.
        """
        return self._time + timedelta(seconds=self.monotonic() - self._timed)

    @property
    def difference(self) -> str:
        """How our own clock is against Google's, such as `3 minutes slower`; empty while they agree."""
        if not self._ahead:
            return ""
        minutes = round(abs(self._ahead) / timedelta(minutes=1))
        return f"{minutes} minute{'s' if minutes > 1 else ''} {'slower' if self._ahead > timedelta() else 'faster'}"

    def set_by(self, machine: MachineSeen | MachineMissing, asked: float) -> MachineSeen | MachineMissing:
        """Set it by what was told to who `asked` then (monotonic); return that with the right time."""
        told = machine.told_at if isinstance(machine, MachineSeen) else None
        before = self._ahead
        self._ahead = told - machine.at if told is not None and abs(told - machine.at) > CLOCKS_DIFFER else timedelta()
        if self._ahead and abs(self._ahead - before) > CLOCKS_DIFFER:
            log.warning("this computer's clock is %s than Google's, which is gone by", self.difference)
        self._time, self._timed = machine.at + self._ahead, asked
        return replace(machine, at=self._time)
