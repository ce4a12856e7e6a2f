"""Looks at the machine, its host and its name when that is due, and knows what was seen last."""

import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

from comfyweb.cloud.cloud_error import CloudError
from comfyweb.cloud.compute import ComputeEngine
from comfyweb.cloud.host import HostClient, HostRefused, HostSilent, from_guest_attributes
from comfyweb.control.clock import CorrectedClock
from comfyweb.control.ledger import Ledger, Standing
from comfyweb.machine.decide import HOST_FRESH, MOVING, UP, current_host
from comfyweb.machine.guards import BOOT_GRACE, FIRST_BOOT_GRACE, silence
from comfyweb.machine.model import Attempt, Decision, MachineSeen, NameSeen, Observation, Phase
from comfyweb.machine.snapshot import Place, address

log = logging.getLogger(__name__)

# Guest attributes are read at each look while the machine boots, and afterwards at most this often.
GUEST_ATTRIBUTES_EVERY = timedelta(minutes=1)


class Observer:
    """Observes one machine.

    `seen` is replaced by whoever learns something; `missing_permissions` is None until they were looked at. The machine
    and its host are looked at next when they are due, on the monotonic clock: 0 is at once.
    """

    def __init__(
        self,
        *,
        compute: ComputeEngine,
        host: HostClient,
        ledger: Ledger,
        place: Place,
        clock: CorrectedClock,
        name: Callable[[Observation], NameSeen | None],
    ) -> None:
        self.seen = Observation()
        self.missing_permissions: tuple[str, ...] | None = None
        self.machine_due = self.host_due = 0.0
        self._compute = compute
        self._host = host
        self._ledger = ledger
        self._place = place
        self._clock = clock
        self._name = name
        self._looked = self._asked = 0.0
        self._may_look = True
        self._host_answers = False
        self._guest_due = 0.0
        self._guest_readable = True
        self._listened = clock.monotonic()

    async def observe(self, standing: Standing, follow: Callable[[Attempt], Awaitable[None]]) -> None:
        """Look at what is due. Calls in flight are followed before the machine is looked at, which shows their end."""
        self.seen = replace(self.seen, attempts=standing.attempts, run=standing.run)
        if self._clock.monotonic() >= self.machine_due:
            first = self.seen.machine is None
            if first:
                await self._learn_the_time()
            in_flight = [a for a in standing.attempts if a.in_flight] if self.seen.machine is not None else []
            for attempt in in_flight:
                await follow(attempt)
            if in_flight or not first:
                await self._look_at_machine()
            self._looked, self.machine_due = self._clock.monotonic(), math.inf
        if self._clock.monotonic() >= self.host_due:
            await self._look_at_host()
            self._asked, self.host_due = self._clock.monotonic(), math.inf
        self.seen = replace(self.seen, name=self._name(self.seen))

    def listen(self, standing: Standing) -> None:
        """Measure how long the host has been silent. A channel that we can't read is not a silent one."""
        before, self._listened = self._listened, self._clock.monotonic()
        passed = timedelta(seconds=self._listened - before) if self._guest_readable else timedelta()
        heard = current_host(self.seen, self._clock.now()) is not None
        grace = BOOT_GRACE if standing.booted_before else FIRST_BOOT_GRACE
        now_silent = silence(self.seen.silence, passed, self.seen, grace, heard=heard)
        self.seen = replace(self.seen, silence=now_silent)

    def wake(self) -> None:
        """Look at all of it at once, and repeat a lost call at once."""
        self.machine_due = self.host_due = 0.0
        self.seen = replace(self.seen, call_again=None)

    def pause(self, decision: Decision) -> float:
        """Set when to look next, unless something asked for an earlier look; return the seconds until then."""
        self.machine_due = min(self.machine_due, self._looked + decision.machine_every.total_seconds())
        host_every = decision.host_every.total_seconds() if decision.host_every else math.inf
        self.host_due = min(self.host_due, self._asked + host_every)
        return max(min(self.machine_due, self.host_due) - self._clock.monotonic(), 0.0)

    async def _learn_the_time(self) -> None:
        """Look before anything is judged or stored by our own clock, which may be wrong."""
        await self._look_at_machine()
        if self.seen.machine is not None:
            await self._ledger.stored_by(self._clock.now())

    async def _look_at_machine(self) -> None:
        asked = self._clock.monotonic()
        try:
            machine = await self._compute.look(self._place.zone)
        except CloudError as error:
            self.seen = replace(self.seen, machine_fault=error.fault)
            if error.fault.code == "permission" and self.missing_permissions is None:
                await self._look_at_permissions()  # It may not be the only one that is missing.
                self._may_look = False
        else:
            machine = self._clock.set_by(machine, asked)
            self.seen = replace(self.seen, machine=machine, machine_fault=None)
            if self.missing_permissions is None or not self._may_look:
                await self._look_at_permissions()
                self._may_look = True

    async def _look_at_permissions(self) -> None:
        """Find out once, at the beginning, what Google will refuse later."""
        try:
            self.missing_permissions = await self._compute.missing_permissions(self._place.zone)
        except CloudError as error:
            log.warning("permissions could not be checked: %s", error)
            self.missing_permissions = ()
        for permission in self.missing_permissions:
            log.warning("missing permission: %s", permission)

    async def _look_at_host(self) -> None:
        machine = self.seen.machine
        if not isinstance(machine, MachineSeen) or machine.status not in UP:
            return
        url = address(machine, self._place)
        try:
            if url:
                # An answer is as old as its question, whatever the host's clock says.
                asked = self._clock.now()
                host = replace(await self._host.status(url), at=asked)
                self.seen = replace(self.seen, host=host, unheard="")
                self._host_answers = True
                return
        except (HostSilent, HostRefused) as error:
            log.debug("the host does not answer: %s", error)
            self.seen = replace(self.seen, unheard=str(error))
            if self._host_answers:  # It has just fallen silent: Compute Engine may know why.
                self._host_answers, self.machine_due = False, 0.0
        await self._read_guest_attributes()

    async def _read_guest_attributes(self) -> None:
        """While HTTPS is silent, hear the host by way of Google. What it says there can be forged: it informs only."""
        host = self.seen.host
        answered_lately = host is not None and host.by_https and self._clock.now() - host.at < HOST_FRESH
        if answered_lately or self._clock.monotonic() < self._guest_due:
            return
        every = MOVING if self.seen.phase is Phase.BOOTING else GUEST_ATTRIBUTES_EVERY
        self._guest_due = self._clock.monotonic() + every.total_seconds()
        try:
            values = await self._compute.guest_attributes(self._place.zone)
        except CloudError as error:
            log.debug("guest attributes: %s", error)
            self._guest_readable = False
            return
        self._guest_readable = True
        told = from_guest_attributes(values, self._clock.now())
        boot = self.seen.run.boot_id if self.seen.run else ""
        if told is not None and boot in ("", told.boot_id):
            self.seen = replace(self.seen, host=told)
