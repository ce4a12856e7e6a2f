"""When ComfyUI's name is looked up, and what people are told of it."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from comfyweb.control.names import HEARD_EVERY_SECONDS, SILENT_EVERY_SECONDS, NameWatch
from comfyweb.machine.model import HostSeen, MachineSeen, NameSeen, Observation, Phase, Wanted
from tests.control import driving
from tests.control.driving import Driver, driven

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
NAME = "comfy.example.com"
ELSEWHERE = "93.184.216.34"


class World:
    """The DNS as a test says it is, and a clock."""

    def __init__(self) -> None:
        self.addresses: tuple[str, ...] | None = (ELSEWHERE,)
        self.looks = 0
        self.seconds = 1000.0
        self.open = asyncio.Event()
        self.open.set()
        self.watch = NameWatch(NAME, look=self.look, monotonic=lambda: self.seconds)

    async def look(self, name: str) -> NameSeen:
        self.looks += 1
        await self.open.wait()
        return NameSeen(name=name, addresses=self.addresses)

    async def observe(self, seen: Observation) -> NameSeen | None:
        """Observe once, let the look end, and say what is known then."""
        self.watch.observe(seen)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return self.watch.observe(seen)


def on(address: str = "34.72.1.9", *, heard: bool = False) -> Observation:
    host = HostSeen(at=NOW, boot_id="b", phase="ready") if heard else None
    return Observation(machine=MachineSeen(at=NOW, status="RUNNING", zone="z", external_ip=address), host=host)


def off() -> Observation:
    return Observation(machine=MachineSeen(at=NOW, status="TERMINATED", zone="z"))


async def test_a_name_is_looked_up_once_a_minute_while_the_host_is_silent_and_seldom_while_it_answers() -> None:
    world = World()
    assert await world.observe(on()) == NameSeen(name=NAME, addresses=(ELSEWHERE,))
    for seen, seconds, looks in [
        (on(), SILENT_EVERY_SECONDS - 1, 1),
        (on(), 1, 2),
        (on(heard=True), HEARD_EVERY_SECONDS - 1, 2),
        (on(heard=True), 1, 3),
    ]:
        world.seconds += seconds
        await world.observe(seen)
        assert world.looks == looks


async def test_nothing_is_looked_up_for_a_machine_without_an_address() -> None:
    world = World()
    for seen in (off(), Observation(), on("")):
        assert await world.observe(seen) is None
    assert world.looks == 0


async def test_what_was_seen_for_another_address_of_the_machine_is_forgotten() -> None:
    world = World()
    await world.observe(on())
    world.addresses = ("34.72.1.10",)
    assert world.watch.observe(on("34.72.1.10")) is None
    assert await world.observe(on("34.72.1.10")) == NameSeen(name=NAME, addresses=("34.72.1.10",))
    assert world.watch.observe(off()) is None


async def test_the_loop_never_waits_and_one_look_at_a_time_is_made() -> None:
    world = World()
    world.open.clear()
    for _ in range(5):
        assert await world.observe(on()) is None
        world.seconds += SILENT_EVERY_SECONDS
    assert world.looks == 1
    world.open.set()
    assert await world.observe(on()) is not None
    world.open.clear()
    world.seconds += SILENT_EVERY_SECONDS
    world.watch.observe(on())
    await world.watch.close()


async def test_an_answer_that_comes_after_the_machine_has_moved_is_dropped() -> None:
    world = World()
    world.open.clear()
    await world.observe(on())
    await world.observe(off())
    world.open.set()
    assert await world.observe(off()) is None
    world.open.clear()
    await world.observe(on())
    await world.observe(on("34.72.1.10"))
    world.open.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert world.watch.observe(on("34.72.1.10")) is None


async def test_a_look_that_fails_is_one_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(_: str) -> NameSeen:
        raise RuntimeError("a bug")

    watch = NameWatch(NAME, look=fail, monotonic=lambda: 0.0)
    watch.observe(on())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert watch.observe(on()) == NameSeen(name=NAME, addresses=None)


# -- in the loop -------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def named(tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Driver]:
    monkeypatch.setattr(driving, "PLACE", replace(driving.PLACE, name=NAME))
    async with driven(tmp_path) as driver:
        driver.loop._observer._name = NameWatch(
            NAME, look=world.look, monotonic=lambda: driver.now().timestamp()
        ).observe
        yield driver


def told(driver: Driver) -> str:
    notices = driver.body["notices"]
    assert isinstance(notices, list)
    return " ".join(str(notice) for notice in notices if NAME in str(notice))


async def test_people_are_told_while_the_name_leads_elsewhere_and_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    async with named(tmp_path, world, monkeypatch) as driver:
        await driver.ask(Wanted.ON)
        await driver.until(Phase.BOOTING)
        assert told(driver) == "", "a record that follows the machine has just been changed"
        await driver.through(150)
        ip = str(driver.body["external_ip"])
        assert f"{NAME} leads to {ELSEWHERE}, but the machine is at {ip}" in told(driver)
        world.addresses = None
        await driver.through(90)
        assert told(driver) == "", "the name server is dead"
        world.addresses = ()
        await driver.through(90)
        assert "has no address in the DNS" in told(driver)
        world.addresses = (ip,)
        await driver.through(90)
        assert told(driver) == ""
