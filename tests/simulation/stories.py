"""A world-line from a seed: people, other people, misfortunes, at random times and in random order."""

import asyncio
import random
from collections.abc import Awaitable, Callable

from comfyweb.demo.model import Status
from tests.simulation.guest import NEVER
from tests.simulation.simulation import Simulation

Action = Callable[[], Awaitable[None]]

REFUSALS = ("permission", "unavailable", "internal", "rate-limit", "too-many-requests", "unauthorized", "bad-gateway")
STOCK_OUTS = ("stockout", "stockout-details", "quota", "quota-region")
VERBS = ("get", "start", "stop", "setMetadata", "setScheduling", "getGuestAttributes", "operations.get", "*")


class Story:
    """What happens in a world-line, drawn from its seed. `calm` is the share of time without misfortune."""

    def __init__(self, seed: int) -> None:
        rng = self._rng = random.Random(f"story {seed}")  # noqa: S311 - a story, no secret
        self.simulation = Simulation(
            seed,
            cap_hours=rng.choice([1, 1, 2, 10]),
            drain_minutes=rng.choice([5, 30]),
            idle_minutes=rng.choice([5, 30]),
        )
        self._pace = rng.choice([60, 300, 1200])
        self._misfortune = rng.choice([0.0, 0.1, 0.3])
        self._others = rng.choice([0.0, 0.05, 0.15])
        self._pending: set[asyncio.Task[None]] = set()

    def run(self, hours: float) -> None:
        """Live that long, then find the way out. Raises Broken."""
        simulation = self.simulation
        try:
            simulation.do(self._live(hours * 3600))
            simulation.do(simulation.find_the_way_out(on_first=self._rng.random() < 0.5))
        finally:
            simulation.close()

    async def _live(self, seconds: float) -> None:
        loop = self.simulation.loop
        end = loop.elapsed + seconds
        while loop.elapsed < end:
            await asyncio.sleep(min(self._rng.expovariate(1 / self._pace), end - loop.elapsed))
            action = self._draw()
            if action is not None:
                task = asyncio.create_task(_run(action))
                self._pending.add(task)
                task.add_done_callback(self._pending.discard)

    def _draw(self) -> Action | None:
        dice = self._rng.random()
        if dice < self._misfortune:
            return self._rng.choice(self._misfortunes())
        if dice < self._misfortune + self._others:
            return self._rng.choice(self._by_others())
        return self._rng.choice(self._by_people())

    def _by_people(self) -> list[Action]:
        s, rng, guest = self.simulation, self._rng, self.simulation.outside.guest

        async def prompts() -> None:
            if guest.queue(rng.choice([20, 90, 600, 3000])):
                s.facts.say("somebody queues a prompt")

        async def pans() -> None:
            guest.use()

        async def again() -> None:
            await s.press_stop_now()
            await asyncio.sleep(rng.uniform(0, 40))
            await s.press_start()

        async def changes_his_mind() -> None:
            await s.press_start()
            await asyncio.sleep(rng.uniform(0, 20))
            await rng.choice([s.press_stop, s.press_stop_now])()

        async def many_clicks() -> None:
            for _ in range(4):
                await s.press_start(rng.choice(["anna", "ben"]))
                await asyncio.sleep(rng.uniform(0, 1))

        return [
            s.press_start, s.press_start, s.press_start, s.press_stop, s.press_stop_now, s.press_keep_alive,
            s.press_extend, prompts, prompts, prompts, pans, pans, again, changes_his_mind, many_clicks,
        ]  # fmt: skip

    def _by_others(self) -> list[Action]:
        s, rng = self.simulation, self._rng

        def console(verb: str) -> Action:
            async def act() -> None:
                s.outside.console(verb)

            return act

        async def deletes_and_makes_anew() -> None:
            s.outside.console("delete")
            await asyncio.sleep(rng.uniform(10, 900))
            s.outside.console("create")

        async def runs_something_else() -> None:
            """Somebody boots another system on it, in which nothing of ours runs."""
            if s.outside.status == "TERMINATED":
                guest = s.outside.guest
                guest.https = guest.attributes = guest.comes_up = False
                guest.frozen = True
                s.outside.console("start")
                await asyncio.sleep(rng.uniform(3000, 9000))
                s.outside.console("stop")
                guest.heal()

        async def preempts() -> None:
            s.outside.preempt()

        async def puts_in() -> None:
            if s.outside.status != "RUNNING":
                return
            status = rng.choice([Status.SUSPENDED, Status.REPAIRING, Status.STOPPING])
            s.outside.put_in(status)
            await asyncio.sleep(rng.uniform(30, 1800))
            if s.outside.status == status != Status.STOPPING:
                s.outside.put_in(rng.choice([Status.TERMINATED, Status.RUNNING]))

        return [console("start"), console("start"), console("stop"), console("reset"), preempts, preempts, puts_in,
                deletes_and_makes_anew, runs_something_else, runs_something_else]  # fmt: skip

    def _misfortunes(self) -> list[Action]:
        s, rng = self.simulation, self._rng

        async def refused() -> None:
            verb = rng.choice(VERBS)
            if rng.random() < 0.5:
                s.outside.fault(rng.choice(REFUSALS), verb, times=rng.randint(1, 5))
            else:
                s.outside.fault(rng.choice(REFUSALS), verb, times=None, seconds=rng.choice([20, 200, 2000]))

        async def no_capacity() -> None:
            s.outside.fault(rng.choice(STOCK_OUTS), times=rng.randint(1, 3))

        async def lost() -> None:
            s.outside.fault(
                "lost-answer", rng.choice(["start", "start", "stop", "setMetadata"]), times=rng.randint(1, 3)
            )

        async def hangs() -> None:
            await s.google_hangs(rng.choice([10, 60, 600]), rng.choice(["before", "after"]))

        async def killed() -> None:
            await s.kill_app(rng.choice([0, rng.randint(1, 12)]), rng.choice([1, 20, 900, 8000]))

        async def stalled() -> None:
            await s.stall_app(rng.choice([20, 120, 1500]))

        async def database() -> None:
            await s.database_fails(rng.choice([5, 120]))

        return [refused, refused, refused, no_capacity, no_capacity, lost, lost, hangs, killed, killed, stalled,
                database, *self._ill_health()]  # fmt: skip

    def _ill_health(self) -> list[Action]:
        s, rng, guest = self.simulation, self._rng, self.simulation.outside.guest

        async def silent() -> None:
            channels = rng.choice([("https",), ("attributes",), ("https", "attributes"), ("https", "attributes")])
            s.facts.say(f"the host is silent by {' and '.join(channels)}")
            for channel in channels:
                setattr(guest, channel, False)
            await asyncio.sleep(rng.choice([60, 800, 5000]))
            guest.heal()

        async def frozen() -> None:
            s.facts.say("the machine's system hangs")
            guest.frozen = True
            await asyncio.sleep(rng.choice([600, 9000]))
            guest.heal()

        async def lies() -> None:
            s.facts.say("a program on the machine writes heartbeats of its own")
            guest.lies = True
            guest.https = rng.random() < 0.3
            await asyncio.sleep(rng.choice([600, 9000]))
            guest.heal()

        async def never_up() -> None:
            s.facts.say("ComfyUI does not come up from now on")
            guest.comes_up = False
            await asyncio.sleep(rng.choice([1200, 9000]))
            guest.heal()

        async def endless() -> None:
            if guest.queue(NEVER):
                s.facts.say("somebody queues a prompt that never ends")

        return [silent, silent, frozen, lies, never_up, endless]


async def _run(action: Action) -> None:
    await action()
