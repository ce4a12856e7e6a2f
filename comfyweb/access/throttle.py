"""Slows down who guesses the password, and can't be used to lock the owner out.

Per address it refuses; over all addresses it only delays, because a limit over all would let any stranger close the
door for everybody. The work behind an attempt is bounded separately, in `passwords`, where a flood has to stand in
line: whoever comes from where the password was known before goes first, then who comes from a network that has tried
least. Attempts are counted when they begin, so that a hundred at once are not a hundred free ones; a success gives its
address a clean sheet.

It counts in this process only: N workers allow N times as much.
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from comfyweb.access.addresses import counted_as, neighbourhood

ATTEMPTS = 10
WINDOW = timedelta(minutes=10)
ADDRESSES = 10_000
FREE_IN_ALL = 50
DELAY_STEP_SECONDS = 0.05
DELAY_MAX_SECONDS = 3.0
KNOWN_ADDRESSES = 1000
KNOWN_RANK = -1
LAST_RANK = 20


class TooManyAttempts(Exception):
    """Refused without a look at the password. `retry_after` is how many seconds to wait, at least 1."""

    def __init__(self, retry_after: float) -> None:
        self.retry_after = max(1, math.ceil(retry_after))
        super().__init__(f"Too many attempts. Try again in {self.retry_after} seconds.")


@dataclass(frozen=True, slots=True)
class Turn:
    """An attempt that may be made after `delay` seconds. Of those who wait then, the lowest `rank` goes first."""

    delay: float
    rank: int


class Throttle:
    """Counts attempts to log in. Remembers at most `addresses` addresses and forgets those longest unheard of first."""

    def __init__(self, *, now: Callable[[], datetime], addresses: int = ADDRESSES) -> None:
        self._now = now
        self._by_address = _Recent(ATTEMPTS, addresses)
        self._by_neighbourhood = _Recent(LAST_RANK, addresses)
        self._in_all: deque[datetime] = deque(maxlen=FREE_IN_ALL + int(DELAY_MAX_SECONDS / DELAY_STEP_SECONDS))
        self._known: dict[str, None] = {}

    def begin(self, address: str) -> Turn:
        """Count an attempt and return its turn. Raises TooManyAttempts instead of counting it."""
        now, key = self._now(), counted_as(address)
        recent = self._by_address.of(key, now)
        if len(recent) == ATTEMPTS:
            raise TooManyAttempts((recent[0] + WINDOW - now).total_seconds())
        recent.append(now)
        near = self._by_neighbourhood.of(neighbourhood(address), now)
        rank = len(near)
        near.append(now)
        _forget(self._in_all, now)
        self._in_all.append(now)
        if key in self._known:
            return Turn(0.0, KNOWN_RANK)
        return Turn(min(DELAY_MAX_SECONDS, DELAY_STEP_SECONDS * max(0, len(self._in_all) - FREE_IN_ALL)), rank)

    def succeeded(self, address: str) -> None:
        """Forget the attempts from an address that knew the password, and remember that it did."""
        key = counted_as(address)
        self._by_address.pop(key, None)
        self._known.pop(key, None)
        self._known[key] = None
        if len(self._known) > KNOWN_ADDRESSES:
            del self._known[next(iter(self._known))]


class _Recent(dict[str, deque[datetime]]):
    """The newest times by name, at most so many of at most so many names; the most recently heard of stands last."""

    def __init__(self, times: int, names: int) -> None:
        super().__init__()
        self._times, self._names = times, names

    def of(self, name: str, now: datetime) -> deque[datetime]:
        """Return the times of this name within the window, to add to."""
        times = self.pop(name, None) or deque(maxlen=self._times)
        self[name] = times
        if len(self) > self._names:
            del self[next(iter(self))]
        _forget(times, now)
        return times


def _forget(times: deque[datetime], now: datetime) -> None:
    # A time that lies ahead was counted before the clock was set back.
    while times and not now - WINDOW < times[0] <= now:
        times.popleft()
