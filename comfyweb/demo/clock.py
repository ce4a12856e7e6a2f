"""Where the emulator's time comes from: the computer's clock, or one that a test moves."""

from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Tells the time, in UTC."""

    def now(self) -> datetime:
        """Tell the time."""
        ...


class SystemClock:
    """The computer's own."""

    def now(self) -> datetime:
        """Tell the time."""
        return datetime.now(UTC)


class ManualClock:
    """Stands still unless it is moved."""

    def __init__(self, start: datetime) -> None:
        self._now = start

    def now(self) -> datetime:
        """Tell the time."""
        return self._now

    def advance(self, by: timedelta) -> None:
        """Let time pass."""
        self._now += by
