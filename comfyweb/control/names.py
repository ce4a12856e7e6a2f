"""Watches where ComfyUI's name leads while the machine is on: beside the loop, which never waits for a name server."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from comfyweb.machine.decide import UP
from comfyweb.machine.model import MachineSeen, NameSeen, Observation

log = logging.getLogger(__name__)

# While the host doesn't answer by its name; a name that works is looked at now and then.
SILENT_EVERY_SECONDS = 60.0
HEARD_EVERY_SECONDS = 600.0


class NameWatch:
    """Looks `name` up by `look`, one look at a time. `monotonic` is in seconds."""

    def __init__(
        self, name: str, *, look: Callable[[str], Awaitable[NameSeen]], monotonic: Callable[[], float]
    ) -> None:
        self._name = name
        self._look = look
        self._monotonic = monotonic
        self._address = ""
        self._seen: NameSeen | None = None
        self._asked: float | None = None
        self._task: asyncio.Task[None] | None = None

    def observe(self, seen: Observation) -> NameSeen | None:
        """Return what was last seen of the name for the machine as it is, and look anew when that is due."""
        machine = seen.machine
        address = machine.external_ip if isinstance(machine, MachineSeen) and machine.status in UP else ""
        if address != self._address:
            # Names follow a machine: what was true of its last address says nothing of this one.
            self._address, self._seen, self._asked = address, None, None
        if not address:
            return None
        every = HEARD_EVERY_SECONDS if seen.host is not None and seen.host.by_https else SILENT_EVERY_SECONDS
        due = self._asked is None or self._monotonic() - self._asked >= every
        if due and (self._task is None or self._task.done()):
            self._asked = self._monotonic()
            self._task = asyncio.create_task(self._find_out(address), name="name")
        return self._seen

    async def close(self) -> None:
        """End the look that is going on."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _find_out(self, address: str) -> None:
        try:
            seen = await self._look(self._name)
        except Exception:
            log.exception("%s could not be looked up", self._name)
            seen = NameSeen(name=self._name, addresses=None)
        if address == self._address:
            self._seen = seen
