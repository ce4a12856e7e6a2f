"""The world with a clock and a guest: time goes on, and the machine's electricity follows its status."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from comfyweb.demo.clock import Clock, SystemClock
from comfyweb.demo.cloud import Cloud
from comfyweb.demo.guest import Guest, NoGuest
from comfyweb.demo.identity import Identity
from comfyweb.demo.model import Machine
from comfyweb.demo.world import World

TICK_SECONDS = 0.05
_log = logging.getLogger(__name__)


class Box:
    """The emulator's state, made of a cloud or of its first project.

    `cloud`, and `world`, which is its first project, are up to date whenever they are asked for.

    All machines share one metadata server and one guest: those of the machine that has electricity, else the first.
    """

    def __init__(
        self,
        cloud: Cloud | World,
        *,
        clock: Clock | None = None,
        guest: Guest | None = None,
        identity: Identity | None = None,
    ) -> None:
        self._cloud = Cloud(cloud) if isinstance(cloud, World) else cloud
        self.clock = clock or SystemClock()
        self.guest = guest or NoGuest()
        self.identity = identity or Identity()
        self._powered = ""
        self._closed = False
        self._tick = asyncio.Event()

    @property
    def cloud(self) -> Cloud:
        """All projects as of now."""
        self._cloud.advance(self.clock.now())
        return self._cloud

    @property
    def world(self) -> World:
        """The first project as of now."""
        return self.cloud.first

    def machine(self) -> Machine | None:
        """Find the machine whose inside is emulated; None when all were deleted."""
        machines = [machine for world in self.cloud.projects.values() for machine in world.machines.values()]
        return next((machine for machine in machines if machine.boot_id), next(iter(machines), None))

    def poweroff(self) -> None:
        """Switch the machine off, as its guest does."""
        machine = self.machine()
        if machine is not None:
            self.cloud.project(machine.project).guest_shutdown(machine)

    async def until(
        self, holds: Callable[[], bool], seconds: float, *, given_up: Callable[[], Awaitable[bool]]
    ) -> None:
        """Wait until `holds`, `seconds` of real time are over, the asker has given up or the box is closed."""
        end = asyncio.get_running_loop().time() + seconds
        while not (self._closed or holds() or asyncio.get_running_loop().time() >= end or await given_up()):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(end):
                    await self._tick.wait()

    async def run(self) -> None:
        """Let time go on and drive the guest. Cancel it to close the box: then the guest loses its electricity."""
        try:
            while True:
                machine = self.machine()
                await self._supply(machine.boot_id if machine else "")
                self._tick.set()
                self._tick = asyncio.Event()
                await asyncio.sleep(TICK_SECONDS)
        finally:
            self._closed = True
            self._tick.set()
            await self._supply("")

    async def _supply(self, boot_id: str) -> None:
        """Give the guest the electricity of this boot. Its failures are its own: Compute Engine goes on."""
        if boot_id == self._powered:
            return
        before, self._powered = self._powered, boot_id
        try:
            if before:
                await self.guest.power_off()
            if boot_id:
                await self.guest.power_on(boot_id)
        except Exception:  # noqa: BLE001 - whatever it is, Compute Engine must go on without its guest
            _log.exception("the guest failed")
