"""What a process knows of the machine while another one runs its loop: what that one tells."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta

from comfyweb.control.clock import Clock
from comfyweb.control.measures import Durations, Measured
from comfyweb.control.orders import by_google_alone
from comfyweb.control.publisher import Publisher
from comfyweb.control.relay import NEWS_WITHIN, Asked, Told
from comfyweb.machine.faults import named
from comfyweb.machine.guards import latest_end
from comfyweb.machine.model import MachineSeen, Observation, Policy
from comfyweb.machine.orders import Order
from comfyweb.machine.snapshot import Snapshot, troubled

log = logging.getLogger(__name__)

Hook = Callable[[], Awaitable[None]]

# So many questions wait for Redis at most. A question to look is asked soon again by itself.
WAITING_AT_MOST = 100
NO_NEWS = "the process that runs the machine's loop has not been heard lately"


class Follower:
    """Stands where the loop stands in the process that runs it. `asked` is what it wants of that one."""

    def __init__(self, *, publisher: Publisher, policy: Policy, clock: Clock) -> None:
        self._publisher = publisher
        self._policy = policy
        self._clock = clock
        self.seen = Observation()
        self._epoch = 0
        self._time, self._heard = clock.now(), clock.monotonic()
        self.trouble: str | None = NO_NEWS
        self.cut_off = False  # from the database, so that nothing can be asked for here
        self.on_round: list[Hook] = []
        self.asked = asyncio.Queue[Asked](WAITING_AT_MOST)

    def now(self) -> datetime:
        """Return the time by which the loop goes, as far as it was told."""
        return self._time + timedelta(seconds=self._clock.monotonic() - self._heard)

    @property
    def latest_end(self) -> datetime | None:
        """When the run is ended in any case; None while nothing ends it."""
        return latest_end(self.seen, self._policy.session_cap)

    @property
    def measured(self) -> Measured:
        """What is counted here: nothing is called, and no turns are taken."""
        machine, run = self.seen.machine, self.seen.run
        return Measured(
            turns=Durations(),
            failed_turns=0,
            calls={},
            looked_at=machine.at if machine else None,
            silence_seconds=self.seen.silence.total_seconds(),
            run_seconds=max(0.0, (self.now() - run.started_at).total_seconds()) if run else 0.0,
            leads=False,
        )

    def begin(self, seen: Observation, now: datetime, epoch: int) -> None:
        """Follow after having led under `epoch`: with what was seen, and having had no time yet to hear anything."""
        self.seen, self._epoch = seen, epoch
        self._time, self._heard = now, self._clock.monotonic()

    async def take(self, told: Told) -> None:
        """Show what another process saw. One that has lost the lease since is not believed."""
        if told.epoch < self._epoch:
            return
        self._epoch = told.epoch
        self._time, self._heard = told.now, self._clock.monotonic()
        self.seen, self.trouble = told.seen, told.trouble
        snapshot = Snapshot(phase=told.phase, body=told.body)
        await self._publisher.publish(troubled(snapshot, named("ledger")) if self.cut_off else snapshot)

    async def notice_silence(self) -> None:
        """Say so on the page when there has been no news for too long."""
        if self._clock.monotonic() - self._heard > NEWS_WITHIN.total_seconds():
            self.trouble = NO_NEWS
            if self.cut_off:
                return  # That is on the page already, and worse.
            await self._publisher.publish(troubled(self._publisher.snapshot, named("no-news")))

    def order(self, order: Order) -> bool:
        """Have the host told by way of Google; False when it isn't heard that way, or nobody is there to tell it."""
        if self.trouble == NO_NEWS or not by_google_alone(self.seen, self.now()):
            return False
        return self._ask(Asked(order=order))

    def wake(self) -> None:
        """Have the machine looked at at once. Where nobody hears that, it is looked at some seconds later."""
        self._ask(Asked())

    def _ask(self, asked: Asked) -> bool:
        try:
            self.asked.put_nowait(asked)
        except asyncio.QueueFull:
            return False
        return True


def without_metadata(seen: Observation, kept: frozenset[str]) -> Observation:
    """Leave out of the machine's metadata what followers don't need: it holds the whole start-up script."""
    if not isinstance(seen.machine, MachineSeen):
        return seen
    metadata = {key: value for key, value in seen.machine.metadata.items() if key in kept}
    return replace(seen, machine=replace(seen.machine, metadata=metadata))
