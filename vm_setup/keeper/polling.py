"""A thread that looks at something again and again, so that whoever needs the answer never waits for it."""

import logging
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

_LOG = logging.getLogger(__name__)
T = TypeVar("T")


class Poller(Generic[T]):
    """Calls `look` every `every` seconds until `over`; `now` is the clock that never jumps."""

    def __init__(
        self, name: str, look: Callable[[], T], *, every: float, now: Callable[[], float], over: threading.Event
    ) -> None:
        self._look = look
        self._every = every
        self._now = now
        self._latest: tuple[float, T] | None = None
        self._over = over
        self._began = now()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def latest(self, *, within: float | None = None) -> T | None:
        """Return what was seen last; None when nothing was, or not in the last `within` seconds."""
        latest = self._latest
        if latest is None or (within is not None and self._now() - latest[0] > within):
            return None
        return latest[1]

    @property
    def has_looked(self) -> bool:
        """Whether anything was seen yet."""
        return self._latest is not None

    def age(self) -> float:
        """Return for how many seconds nothing new was seen."""
        return self._now() - (self._latest[0] if self._latest else self._began)

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                self._latest = (self._now(), self._look())
            except Exception:  # noqa: BLE001 - whatever it was, the next look may go well
                _LOG.exception("%s failed; it is tried again.", self._thread.name)
            self._over.wait(self._every)
