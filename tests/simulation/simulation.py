"""One world-line: the cloud, the machine's inside, the app and the people, on one virtual clock and from one seed."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine, Generator
from functools import lru_cache
from typing import Any

from comfyweb.access.sessions import Session
from comfyweb.control import terms
from comfyweb.control.controller import Controller, NotNow, Unavailable
from comfyweb.machine.model import Policy, StopMode
from comfyweb.machine.snapshot import Place
from comfyweb.settings import load
from tests.simulation.app import App, FailedTurns, session
from tests.simulation.facts import Facts
from tests.simulation.invariants import SessionCap, all_of_them
from tests.simulation.outside import Outside
from tests.simulation.process import Killed
from tests.simulation.virtual_time import VirtualTimeLoop

WATCH_SECONDS = 20.0
BACK_SECONDS = 25 * 60.0
LOOP_LOG = logging.getLogger("comfyweb.control.loop")


class Simulation:
    """A world that can be acted upon. Every action is a coroutine; `live` lets time pass."""

    def __init__(
        self, seed: int, *, cap_hours: float = 10, drain_minutes: float = 30, idle_minutes: float = 30
    ) -> None:
        self.loop = VirtualTimeLoop()
        self.seed = seed
        self.facts = Facts(self.loop)
        policy, place = terms_of(cap_hours, drain_minutes, idle_minutes)
        self.facts.policy_cap, self.facts.policy_drain = policy.session_cap, policy.drain
        self.outside = Outside(self.loop, self.facts, random.Random(seed))  # noqa: S311 - a story, no secret
        self.app = App(self.outside, self.facts, policy, place)
        self.facts.invariants = all_of_them(self.facts, self.outside)
        self._cap = next(each for each in self.facts.invariants if isinstance(each, SessionCap))
        self._tasks: list[asyncio.Task[None]] = []
        self._log = FailedTurns(self.facts)
        LOOP_LOG.addHandler(self._log)
        self.do(self._begin())

    # -- running it --------------------------------------------------------------------------------------------------

    def do(self, action: Coroutine[Any, Any, None]) -> None:
        """Let something happen. Raises Broken when an invariant doesn't hold any more."""
        with self._quiet():
            self.loop.run_until_complete(self._watched(action))
        if self.facts.failure is not None:
            raise self.facts.failure

    def live(self, seconds: float) -> None:
        """Let time pass."""
        self.do(asyncio.sleep(seconds))

    def close(self) -> None:
        """End everything."""
        LOOP_LOG.removeHandler(self._log)
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.app.books._engine.dispose()
        self.loop.close()

    async def _watched(self, action: Coroutine[Any, Any, None]) -> None:
        doing = asyncio.create_task(action)
        while not doing.done() and self.facts.failure is None:
            await asyncio.wait({doing}, timeout=5.0)
        if not doing.done():
            doing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await doing
        elif self.facts.failure is None:
            doing.result()

    @contextlib.contextmanager
    def _quiet(self) -> Generator[None]:
        """The app's own log says what it is told: the story has it already."""
        log = logging.getLogger("comfyweb")
        before, log.propagate = log.propagate, False
        try:
            yield
        finally:
            log.propagate = before

    async def _begin(self) -> None:
        await self.app.open()
        self.app.start()
        self._tasks = [asyncio.create_task(self.outside.run()), asyncio.create_task(self._watch())]

    async def _watch(self) -> None:
        """Judge what must hold also while no turn of the loop ends, and note since when all is well."""
        while True:
            facts = self.facts
            well = self.outside.healthy and self.app.alive and not self.app.process.stands_still
            if not (well and not self.app.books.fails):
                facts.healthy_since = facts.now
            with contextlib.suppress(AssertionError):
                self._cap.judge()
            await asyncio.sleep(WATCH_SECONDS)

    # -- people at the page ------------------------------------------------------------------------------------------

    async def press_start(self, who: str = "anna") -> None:
        await self._press(who, "Start", lambda c, s: c.start(s))

    async def press_stop(self, who: str = "anna") -> None:
        await self._press(who, "Stop", lambda c, s: c.stop(s, StopMode.DRAIN))

    async def press_stop_now(self, who: str = "ben") -> None:
        await self._press(who, "Stop now", lambda c, s: c.stop(s, StopMode.NOW))

    async def press_extend(self, minutes: float = 30) -> None:
        await self._press("anna", f"Extend by {minutes:g}", lambda c, s: c.extend(s, minutes))

    async def press_keep_alive(self) -> None:
        await self._press("ben", "keep-alive", lambda c, s: c.keep_alive(s))

    async def _press(self, who: str, button: str, act: Callable[[Controller, Session], Awaitable[str]]) -> bool:
        facts, controller = self.facts, self.app.controller
        if not self.app.alive or self.app.process.stands_still or controller is None:
            facts.say(f"{who} presses {button}: nothing answers")
            return False
        facts.say(f"{who} presses {button}")
        try:
            words = await act(controller, session(who, facts.now))
        except (NotNow, Unavailable) as error:
            facts.say(f"  is told: {error.words}")
            return False
        except Killed:
            facts.say("  gets no answer")
            return False
        facts.say(f"  is told: {words}")
        return True

    # -- what happens to the app -------------------------------------------------------------------------------------

    async def kill_app(self, after_steps: int = 0, down_seconds: float = 5.0) -> None:
        """Kill the process after it has reached out so many times more, and begin another later."""
        if after_steps:
            self.facts.say(f"the app will be killed after {after_steps} steps")
            self.app.process.steps_left = after_steps
        else:
            await self.app.kill()
        while self.app.alive:
            await asyncio.sleep(0.5)
        self.facts.healthy_since = self.facts.now
        await asyncio.sleep(down_seconds)
        if not self.app.alive:
            self.app.start()

    async def stall_app(self, seconds: float) -> None:
        self.facts.say(f"the app stands still for {seconds:.0f} s")
        self.app.process.stand_still(seconds)

    async def database_fails(self, seconds: float) -> None:
        self.facts.say(f"the database fails for {seconds:.0f} s")
        self.app.books.fails = True
        await asyncio.sleep(seconds)
        self.app.books.fails = False

    async def google_hangs(self, seconds: float, when: str = "before") -> None:
        self.facts.say(f"Google gives no answers for {seconds:.0f} s ({when} it acts)")
        self.outside.hangs = when
        await asyncio.sleep(seconds)
        self.outside.hangs = ""

    # -- the way out -------------------------------------------------------------------------------------------------

    async def heal(self) -> None:
        """Make everything well that a person at the page can't."""
        facts = self.facts
        facts.say("everything outside is well again")
        self.outside.heal()
        self.app.books.fails = False
        if not self.app.alive:
            self.app.start()
        self.app.process.steps_left = None
        self.app.process.stand_still(0)
        facts.healthy_since = facts.now
        await asyncio.sleep(150)

    async def find_the_way_out(self, *, on_first: bool) -> None:
        """From wherever we are, with the world well again, lead to off and to ready by the buttons of the page."""
        await self.heal()
        for on in (True, False, True) if on_first else (False, True, False):
            await self._get(on=on)

    async def _get(self, *, on: bool) -> None:
        facts = self.facts
        wanted = "ready" if on else "off"
        end = self.loop.elapsed + 3 * BACK_SECONDS
        pressed = -BACK_SECONDS
        while self.loop.elapsed < end:
            phase = facts.snapshot.phase.value if facts.snapshot else ""
            if phase == wanted:
                return
            # A person presses again when what he was told is over.
            if self.loop.elapsed - pressed > BACK_SECONDS or (facts.open_intent is None and phase != "booting"):
                pressed = self.loop.elapsed
                await (self.press_start() if on else self.press_stop_now())
            await asyncio.sleep(10)
        with contextlib.suppress(AssertionError):
            facts.break_(
                "always-a-way-out", f"{wanted} can't be reached from {facts.snapshot and facts.snapshot.phase}"
            )


@lru_cache
def terms_of(cap_hours: float, drain_minutes: float, idle_minutes: float) -> tuple[Policy, Place]:
    """Return the terms as production makes them from the settings."""
    settings = load(
        {
            "AUTH_PASSWORD": "a quiet river at dawn",
            "JWT_SECRET": "f8b1c2d3e4a5968778695a4b3c2d1e0f",
            "GCP_PROJECT": "demo-project",
            "SESSION_CAP_HOURS": f"{cap_hours:g}",
            "DRAIN_MINUTES": f"{drain_minutes:g}",
            "IDLE_MINUTES": f"{idle_minutes:g}",
            "STARTUP_SCRIPT_URL": "gs://bucket/host.sh",
        },
        None,
    )
    return terms.policy(settings, '{"keys": []}'), terms.place(settings)
