"""Hands each new snapshot to everybody who listens: the page's status room, REST's event streams."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable

from comfyweb.machine.snapshot import Snapshot

log = logging.getLogger(__name__)

Listener = Callable[[Snapshot], Awaitable[None]]


class Publisher:
    """Holds the newest snapshot, and its JSON, made once."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.encoded = _encode(snapshot)
        self._listeners: set[Listener] = set()

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` with every snapshot that differs from the one before; the result ends that."""
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    async def publish(self, snapshot: Snapshot) -> None:
        """Make this the newest snapshot; tell everybody, unless nothing changed. A failing listener fails alone."""
        if snapshot == self.snapshot:
            return
        self.snapshot = snapshot
        self.encoded = _encode(snapshot)
        told = await asyncio.gather(*(listener(snapshot) for listener in self._listeners), return_exceptions=True)
        for outcome in told:
            if isinstance(outcome, Exception):
                log.error("a listener failed", exc_info=outcome)


def _encode(snapshot: Snapshot) -> bytes:
    return json.dumps(snapshot.body, separators=(",", ":"), ensure_ascii=False).encode()
