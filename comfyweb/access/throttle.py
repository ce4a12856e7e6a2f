"""Slows down who guesses the password, and can't be used to lock the owner out.

Per address it refuses; over all addresses it only delays, because a limit over all would let any stranger close the
door for everybody. The work behind an attempt is bounded separately, in `passwords`. Attempts are counted when they
begin, so that a hundred at once are not a hundred free ones; a success gives its address a clean sheet.

It counts in this process only: N workers allow N times as much.
"""

import ipaddress
import math
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta

ATTEMPTS = 10
WINDOW = timedelta(minutes=10)
ADDRESSES = 10_000
FREE_IN_ALL = 50
DELAY_STEP_SECONDS = 0.05
DELAY_MAX_SECONDS = 3.0


class TooManyAttempts(Exception):
    """Refused without a look at the password. `retry_after` is how many seconds to wait, at least 1."""

    def __init__(self, retry_after: float) -> None:
        self.retry_after = max(1, math.ceil(retry_after))
        super().__init__(f"Too many attempts. Try again in {self.retry_after} seconds.")


class Throttle:
    """Counts attempts to log in. Remembers at most `addresses` addresses and forgets those longest unheard of first."""

    def __init__(self, *, now: Callable[[], datetime], addresses: int = ADDRESSES) -> None:
        self._now = now
        self._addresses = addresses
        self._by_address: dict[str, deque[datetime]] = {}
        self._in_all: deque[datetime] = deque(maxlen=FREE_IN_ALL + int(DELAY_MAX_SECONDS / DELAY_STEP_SECONDS))

    def begin(self, address: str) -> float:
        """Count an attempt and return how many seconds to delay it. Raises TooManyAttempts instead of counting it."""
        now, key = self._now(), counted_as(address)
        recent = self._by_address.pop(key, None) or deque(maxlen=ATTEMPTS)
        self._by_address[key] = recent  # the most recently heard of stands last
        _forget(recent, now)
        if len(recent) == ATTEMPTS:
            raise TooManyAttempts((recent[0] + WINDOW - now).total_seconds())
        recent.append(now)
        if len(self._by_address) > self._addresses:
            del self._by_address[next(iter(self._by_address))]
        _forget(self._in_all, now)
        self._in_all.append(now)
        return min(DELAY_MAX_SECONDS, DELAY_STEP_SECONDS * max(0, len(self._in_all) - FREE_IN_ALL))

    def succeeded(self, address: str) -> None:
        """Forget the attempts from an address that knew the password."""
        self._by_address.pop(counted_as(address), None)


def _forget(times: deque[datetime], now: datetime) -> None:
    while times and times[0] <= now - WINDOW:
        times.popleft()


def counted_as(address: str) -> str:
    """Return what an address counts as: IPv6 as its /64, which one household has to itself; the unreadable as one."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ip.ipv4_mapped or ipaddress.IPv6Address(int(ip) >> 64 << 64))
    return str(ip)
