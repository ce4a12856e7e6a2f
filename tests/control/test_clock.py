"""Clocks that are wrong or jump, and a process that stands still: nothing is started or stopped for it."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from comfyweb.machine.model import Phase, StopMode, Verb, Wanted
from tests.control.driving import Driver, driven

DAY = timedelta(days=1)
JUMPS = (DAY, -DAY, timedelta(minutes=5), timedelta(minutes=-5))


@pytest.fixture
async def driver(tmp_path: Path) -> AsyncIterator[Driver]:
    async with driven(tmp_path) as made:
        yield made


async def up(driver: Driver) -> None:
    await driver.ask(Wanted.ON)
    await driver.until(Phase.BOOTING)
    driver.answers()
    await driver.until(Phase.READY)


async def verbs(driver: Driver) -> list[Verb]:
    return [attempt.verb for attempt in (await driver.ledger.standing()).attempts]


@pytest.mark.parametrize("jump", JUMPS, ids=str)
async def test_a_running_machine_is_left_alone_when_our_clock_jumps(driver: Driver, jump: timedelta) -> None:
    await up(driver)
    before = await verbs(driver)
    driver.wrong = jump
    await driver.through(120, step=10)
    driver.wrong = timedelta()
    await driver.through(60, step=10)
    assert driver.phase is Phase.READY
    assert driver.body["ending"] is None
    assert await verbs(driver) == before


@pytest.mark.parametrize("jump", JUMPS, ids=str)
async def test_a_wrong_clock_is_told_on_the_page(driver: Driver, jump: timedelta) -> None:
    await driver.turn()
    assert "clock" not in str(driver.body["notices"])
    driver.wrong = jump
    await driver.live(16)
    assert f"{'faster' if jump > timedelta() else 'slower'} than Google's" in str(driver.body["notices"])
    driver.wrong = timedelta()
    await driver.live(16)
    assert "clock" not in str(driver.body["notices"])


@pytest.mark.parametrize("jump", JUMPS, ids=str)
async def test_buttons_work_although_our_clock_is_wrong(driver: Driver, jump: timedelta) -> None:
    await driver.turn()
    driver.wrong = jump
    await driver.ask(Wanted.ON)
    await driver.until(Phase.BOOTING)
    driver.answers(queue_running=1)
    await driver.until(Phase.READY)
    assert (await driver.ledger.standing()).open_intent is None
    await driver.ask(Wanted.OFF)
    await driver.live(4)
    assert driver.host.heard == ["drain 1800"]
    await driver.ask(Wanted.OFF, StopMode.NOW)
    await driver.until(Phase.OFF)
    await driver.live(4)
    assert (await driver.ledger.standing()).open_intent is None
    stop = driver.body["last_stop"]
    assert isinstance(stop, dict)
    assert stop["reason"] == "stopped-now"


@pytest.mark.parametrize("jump", JUMPS, ids=str)
async def test_a_process_that_begins_with_a_wrong_clock_goes_by_googles(driver: Driver, jump: timedelta) -> None:
    await up(driver)
    before = await verbs(driver)
    await restarted(driver, jump)
    await driver.through(60, step=10)
    assert driver.phase is Phase.READY
    assert driver.body["ending"] is None
    assert await verbs(driver) == before


async def restarted(driver: Driver, wrong: timedelta) -> None:
    """End the process, and begin another one on a computer whose clock is wrong."""
    await driver.compute.close()
    await driver.ledger.close()
    driver.wrong = wrong
    driver.fresh()


@pytest.mark.parametrize("jump", JUMPS, ids=str)
async def test_a_start_goes_on_when_the_next_process_begins_with_a_wrong_clock(driver: Driver, jump: timedelta) -> None:
    await driver.turn()
    await driver.ask(Wanted.ON)
    while Verb.START not in await verbs(driver):
        await driver.live(1)
    await restarted(driver, jump)
    await driver.turn()
    now = driver.now()
    standing = await driver.ledger.standing()
    assert all(a.made_at <= now and (a.ended_at is None or a.ended_at <= now) for a in standing.attempts)
    await driver.until(Phase.BOOTING)
    assert (await verbs(driver)).count(Verb.START) == 1


@pytest.mark.parametrize("jump", [DAY, timedelta(minutes=5), timedelta(minutes=-5)], ids=str)
async def test_a_button_pressed_before_the_first_look_of_a_process_with_a_wrong_clock_works(
    driver: Driver, jump: timedelta
) -> None:
    await restarted(driver, jump)
    await driver.ask(Wanted.ON)
    await driver.until(Phase.BOOTING)
    driver.answers()
    await driver.until(Phase.READY)
    assert (await driver.ledger.standing()).open_intent is None


@pytest.mark.slow
async def test_a_host_that_is_heard_by_way_of_google_alone_is_heard_with_a_wrong_clock(driver: Driver) -> None:
    await up(driver)
    driver.host.says = None
    driver.wrong = -DAY
    for _ in range(40):
        driver.say_by_guest_attributes("heartbeat", boot_id="boot-1")
        await driver.through(60, step=15)
    assert driver.box.machine.status == "RUNNING"
    assert driver.body["ending"] is None


@pytest.mark.parametrize("minutes", [1, 10, 60])
async def test_a_process_that_stood_still_looks_before_it_judges(driver: Driver, minutes: float) -> None:
    await up(driver)
    before = await verbs(driver)
    driver.box.advance(minutes * 60)
    driver.answers()
    await driver.turn()
    assert driver.phase is Phase.READY
    assert driver.body["status"] == driver.box.machine.status
    await driver.through(60, step=10)
    assert driver.phase is Phase.READY
    assert await verbs(driver) == before


async def test_what_changed_while_the_process_stood_still_is_told_in_its_first_turn(driver: Driver) -> None:
    await up(driver)
    driver.host.says = None
    driver.box.control("machine", {"action": "stop"})
    driver.box.advance(60)
    await driver.turn()
    assert driver.phase is Phase.OFF
    stop = driver.body["last_stop"]
    assert isinstance(stop, dict)
    assert stop["reason"] == "elsewhere"


async def test_a_client_that_is_slow_to_wake_up_does_not_put_the_clock_forward(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Google's is imported at the first look, which takes seconds on a small server."""
    connected = driver.compute._connected

    def slowly() -> object:
        driver.box.advance(20)
        return connected()

    monkeypatch.setattr(driver.compute, "_connected", slowly)
    await driver.turn()
    assert driver.loop.now() == driver.now()
