"""Plays one fault: the real loop, client and ledger against the emulator, and a record of what came of it."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from comfyweb.cloud.cloud_error import CloudError
from comfyweb.cloud.compute import TIMEOUT_SECONDS
from comfyweb.control.ledger import Standing
from comfyweb.demo.model import CALLER, Status
from comfyweb.machine.model import Phase, StopMode, Wanted
from comfyweb.machine.snapshot import Snapshot
from tests.cloudbox import CloudBox
from tests.control.driving import POLICY, Driver, empty_ledger
from tests.faults.relay import Relay

AFTERWARDS = 20
READ = frozenset({"look", "operation"})
CHANGES = ("start", "stop", "set_metadata", "set_scheduling")


class Moment(StrEnum):
    """When it happens: a person presses Start or Stop now, or nobody presses anything, while it is on or off."""

    START = "Start"
    STOP = "Stop"
    USE = "in use"
    OFF = "off"


CLICKS = {Moment.START: (Wanted.ON, StopMode.DRAIN), Moment.STOP: (Wanted.OFF, StopMode.NOW)}


class Wish(StrEnum):
    """What became of what the person asked for."""

    NONE = "nobody asked"
    MET = "as asked"
    REFUSED = "refused"
    OPEN = "still tried"


Act = Callable[["Stage"], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A fault and what must come of it. `acts` happen so many seconds after the click; `seconds` is the longest play.

    A `lasting` fault was there before comfyweb began; others come just before the click. A machine is `prepared` when
    it has its metadata and its longest run already.
    """

    name: str
    moment: Moment
    faults: tuple[dict[str, Any], ...] = ()
    before: Act | None = None
    acts: tuple[tuple[float, Act], ...] = ()
    says: tuple[str, ...]
    wish: Wish
    phase: Phase
    seconds: float = 180
    timeout_seconds: float = TIMEOUT_SECONDS
    relayed: bool = False
    lasting: bool = False
    prepared: bool = True
    slow: bool = False


@dataclass(frozen=True, kw_only=True)
class Called:
    """One call to Compute Engine, so many seconds after the click. `failed` is the fault's code, or empty."""

    at: float
    verb: str
    request_id: str
    failed: str


@dataclass(kw_only=True)
class Record:
    """What happened, as the page, the wire and the cloud had it. `shown` are the page's bodies, oldest first."""

    scenario: Scenario
    shown: list[tuple[datetime, dict[str, Any]]] = field(default_factory=list[tuple[datetime, dict[str, Any]]])
    calls: list[Called] = field(default_factory=list[Called])
    ended: float = 0
    wish: Wish = Wish.NONE
    status: str = ""
    starts: int = 0

    @property
    def page(self) -> dict[str, Any]:
        """The page at the end."""
        return self.shown[-1][1]

    @property
    def phase(self) -> Phase:
        """The phase at the end."""
        return Phase(self.page["phase"])

    @property
    def faults(self) -> list[dict[str, Any]]:
        """The different troubles that the page told of, in the order in which they appeared."""
        found: list[dict[str, Any]] = []
        for _, body in self.shown:
            fault = body["fault"]
            if fault is not None and fault["what"] not in [each["what"] for each in found]:
                found.append(fault)
        return found

    @property
    def notices(self) -> list[str]:
        """The different notices, likewise."""
        return list(dict.fromkeys(notice for _, body in self.shown for notice in body["notices"]))


class Stage:
    """A driver whose page and calls are written down from the click on."""

    def __init__(self, driver: Driver, scenario: Scenario, relay: Relay | None) -> None:
        self.driver = driver
        self.box = driver.box
        self.relay = relay
        self.record = Record(scenario=scenario)
        self._scenario = scenario
        self._clicked = driver.now()

    @property
    def seconds(self) -> float:
        """Seconds since the click."""
        return (self.driver.now() - self._clicked).total_seconds()

    async def play(self) -> Record:
        """Play it until it is settled, or its time is over."""
        await self._set_up()
        acts = list(self._scenario.acts)
        while self.seconds < self._scenario.seconds:
            wait = await self._turn()
            if not acts and await self._settled():
                break
            until_act = acts[0][0] - self.seconds if acts else wait
            self.box.advance(max(min(wait, until_act, self._scenario.seconds - self.seconds), 0.05))
            while acts and self.seconds >= acts[0][0]:
                await acts.pop(0)[1](self)
        self.record.ended = self.seconds
        await self.let_pass(AFTERWARDS)  # What was settled must stay so.
        await self._sum_up()
        return self.record

    async def _set_up(self) -> None:
        """Do all that comes before the click, and click."""
        scenario, driver = self._scenario, self.driver
        if scenario.prepared:
            self._prepare()
        if scenario.lasting:
            self._break()
        await driver.turn()
        if scenario.moment in {Moment.USE, Moment.STOP}:
            await driver.ask(Wanted.ON)
            await self.reach(Phase.READY)
            await self.let_pass(20)
        if scenario.before is not None:
            await scenario.before(self)
        if not scenario.lasting:
            self._break()
        self._clicked = driver.now()
        self._listen()
        if scenario.moment in CLICKS:
            await driver.ask(*CLICKS[scenario.moment])

    async def _sum_up(self) -> None:
        record, world = self.record, self.box.world
        if not record.shown:
            record.shown.append((self.driver.now(), self.driver.body))
        record.wish = self._wish(await self.driver.ledger.standing())
        record.status = next((machine.status.value for machine in world.machines.values()), "")
        ours = [each for each in world.operations.values() if each.user == CALLER]
        record.starts = sum(
            each.kind == "start" and each.error is None and each.inserted_at >= self._clicked for each in ours
        )

    def _prepare(self) -> None:
        """Leave the machine as an earlier run of comfyweb's left it, so that a start has only to start it."""
        machine = self.box.machine
        machine.metadata |= {key: value for key, value in POLICY.metadata.items() if value}
        seconds = str(round(POLICY.max_run.total_seconds()))
        machine.scheduling |= {"maxRunDuration": {"seconds": seconds}, "instanceTerminationAction": "STOP"}

    def _break(self) -> None:
        for fault in self._scenario.faults:
            self.box.fault(**fault)

    def _listen(self) -> None:
        async def show(snapshot: Snapshot) -> None:
            self.record.shown.append((self.driver.now(), snapshot.body))

        self.driver.publisher.subscribe(show)
        for verb in (*CHANGES, *READ):
            setattr(self.driver.compute, verb, self._written_down(verb, getattr(self.driver.compute, verb)))

    def _written_down(self, verb: str, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def made(*asked: Any, **more: Any) -> Any:
            at, failed = self.seconds, ""
            try:
                return await call(*asked, **more)
            except CloudError as error:
                failed = error.fault.code
                raise
            finally:
                named = "stop by force" if more.get("force") else verb.replace("_", " ")
                self.record.calls.append(
                    Called(at=at, verb=named, request_id="" if verb in READ else asked[1], failed=failed)
                )

        return made

    async def _turn(self) -> float:
        """Take a turn; the host follows its machine's electricity."""
        machines = list(self.box.world.machines.values())
        if machines and machines[0].status is Status.RUNNING:
            self.driver.answers()
        else:
            self.driver.host.says = None
        return await self.driver.turn()

    async def let_pass(self, seconds: float) -> None:
        """Take every turn that falls into this time."""
        end = self.driver.now() + timedelta(seconds=seconds)
        while (left := (end - self.driver.now()).total_seconds()) > 0:
            self.box.advance(max(min(await self._turn(), left), 0.05))

    async def reach(self, phase: Phase) -> None:
        """Take turns until people see this phase."""
        for _ in range(60):
            wait = await self._turn()
            if self.driver.phase is phase:
                return
            self.box.advance(max(wait, 0.05))
        raise AssertionError(f"{phase} was not reached: {self.driver.body}")

    async def _settled(self) -> bool:
        """Whether nothing moves any more. Without a click only time tells."""
        if self._scenario.moment not in CLICKS:
            return False
        standing = await self.driver.ledger.standing()
        pending = any(attempt.in_flight for attempt in standing.attempts)
        still = self.driver.phase in {Phase.OFF, Phase.READY, Phase.MISSING, Phase.FAULT}
        return standing.open_intent is None and not pending and still and self.driver.loop.seen.machine_fault is None

    def _wish(self, standing: Standing) -> Wish:
        if self._scenario.moment not in CLICKS:
            return Wish.NONE
        if standing.open_intent is not None:
            return Wish.OPEN
        return Wish.MET if standing.last_intent_fault is None else Wish.REFUSED


async def play(scenario: Scenario, folder: Path, box: CloudBox) -> Record:
    """Play a scenario in a new world of `box`, with its files in `folder`."""
    box.anew()
    async with AsyncExitStack() as ends:
        relay = await ends.enter_async_context(Relay(box.port)) if scenario.relayed else None
        url = relay.url if relay else box.url
        path = folder / "ledger.db"
        path.write_bytes(empty_ledger())
        driver = Driver(box, path, POLICY, url=url, timeout_seconds=scenario.timeout_seconds)
        await driver.ledger.open()
        ends.push_async_callback(driver.ledger.close)
        ends.push_async_callback(driver.compute.close)
        return await Stage(driver, scenario, relay).play()
