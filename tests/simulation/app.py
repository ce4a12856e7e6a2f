"""comfyweb's app in the simulation: the real loop, controller and publisher, in processes that come and go."""

import asyncio
import contextlib
import logging
from datetime import datetime, timedelta
from typing import cast

from comfyweb.access.host_tokens import HostTokens
from comfyweb.access.sessions import Session
from comfyweb.cloud.compute import ComputeEngine
from comfyweb.cloud.host import HostClient
from comfyweb.control.clock import Clock
from comfyweb.control.controller import Controller
from comfyweb.control.loop import Loop
from comfyweb.control.publisher import Publisher
from comfyweb.control.visitors import Visitors
from comfyweb.machine.model import Decision, Policy
from comfyweb.machine.snapshot import Place, Snapshot, nothing_seen_yet
from tests.simulation.books import Books
from tests.simulation.facts import Broken, Facts
from tests.simulation.google import SimulatedCompute
from tests.simulation.guest import SimulatedHostClient
from tests.simulation.outside import Outside
from tests.simulation.process import Killed, Process


class App:
    """One deployment of comfyweb: its database outlives its processes."""

    def __init__(self, outside: Outside, facts: Facts, policy: Policy, place: Place) -> None:
        self._outside = outside
        self._facts = facts
        self._policy = policy
        self._place = place
        self.process = Process(facts.waited)
        self.books = Books(facts, self._step)
        self.controller: Controller | None = None
        self.loop: Loop | None = None
        self._task: asyncio.Task[None] | None = None

    async def _step(self) -> None:
        await self.process.step()

    async def open(self) -> None:
        """Make the database."""
        await self.books.open()

    def start(self) -> None:
        """Begin a process."""
        process = self.process = Process(self._facts.waited)
        clock = Clock(now=self._outside.now, monotonic=asyncio.get_running_loop().time)
        publisher = Publisher(nothing_seen_yet(self._place))
        host = cast(HostClient, SimulatedHostClient(self._outside, self._facts, process))
        loop = self.loop = Loop(
            compute=cast(ComputeEngine, SimulatedCompute(self._outside, self._facts, process)),
            host=host,
            ledger=self.books,
            publisher=publisher,
            policy=self._policy,
            place=self._place,
            clock=clock,
        )
        # No tab asks for a ticket here, so that no keys are needed.
        self.controller = Controller(
            ledger=self.books,
            present=lambda: loop,
            publisher=publisher,
            host=host,
            tokens=cast(HostTokens, None),
            visitors=Visitors(),
        )
        publisher.subscribe(self._shown)
        pause = loop._observer.pause

        def paused(decision: Decision) -> float:
            self._facts.round_ended(decision.machine_every)
            return pause(decision)

        loop._observer.pause = paused  # the last that a turn does
        self._facts.alive, self._facts.born_at = True, self._facts.now
        self._facts.snapshot = publisher.snapshot
        self._facts.look_good_at = None
        self._facts.say("the app starts")
        self._task = asyncio.create_task(self._live(loop, process))

    async def kill(self) -> None:
        """End the process as a power cut would."""
        self.process.alive = False
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    @property
    def alive(self) -> bool:
        """Whether a process runs."""
        return self.process.alive and self._task is not None and not self._task.done()

    async def _live(self, loop: Loop, process: Process) -> None:
        try:
            with contextlib.suppress(Killed):
                await loop.run()
        finally:
            process.alive = False
            self._facts.alive = False
            self._facts.snapshot = None
            self._facts.say("the app is dead")

    async def _shown(self, snapshot: Snapshot) -> None:
        self._facts.shown(snapshot)


class FailedTurns(logging.Handler):
    """Makes a turn of the loop that raised something break an invariant."""

    def __init__(self, facts: Facts) -> None:
        super().__init__(logging.ERROR)
        self._facts = facts

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, Broken) and self._facts.failure is None:
            with contextlib.suppress(Broken):
                self._facts.break_("no-turn-fails", f"{record.getMessage()}: {error!r}")


def session(name: str, now: datetime) -> Session:
    """Return a person's login."""
    return Session(jti=name, issued_at=now, expires_at=now + timedelta(days=1))
