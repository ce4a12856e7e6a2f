"""The guards that comfyweb itself is, driven through the whole loop: session cap, silent host, stuck stop."""

from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from comfyweb.machine.model import Phase, StopMode, Wanted
from tests.control.driving import POLICY, Driver, driven

MINUTE = 60.0
# Of the time between two turns, a minute of silence at most is counted: turns this far apart miss none of it.
SILENT = 50.0


@pytest.fixture
async def driver(tmp_path: Path) -> AsyncGenerator[Driver]:
    async with driven(tmp_path) as made:
        yield made


@pytest.fixture
async def brief(tmp_path: Path) -> AsyncGenerator[Driver]:
    """A session lasts three quarters of an hour, so that a test needn't live through ten."""
    async with driven(tmp_path, replace(POLICY, session_cap=timedelta(minutes=45))) as made:
        yield made


async def on(driver: Driver) -> None:
    """Start it and let ComfyUI answer."""
    await driver.ask(Wanted.ON)
    await driver.until(Phase.BOOTING)
    driver.answers()
    await driver.until(Phase.READY)


async def on_for_half_an_hour(driver: Driver) -> None:
    """Have the grace of its boot behind it, heard of now and then: what matters is what comes after."""
    await on(driver)
    await driver.through(31 * MINUTE, step=5 * MINUTE)


def reason(driver: Driver) -> object:
    stop = driver.body["last_stop"]
    return stop["reason"] if isinstance(stop, dict) else None


async def test_the_longest_session_is_announced_drained_and_ended(brief: Driver) -> None:
    await on(brief)
    await brief.through(30 * MINUTE, step=5 * MINUTE)
    await brief.through(4 * MINUTE, step=MINUTE)
    assert brief.body["ending"] is None
    await brief.through(MINUTE)
    assert brief.phase is Phase.DRAINING
    ending = brief.body["ending"]
    assert isinstance(ending, dict)
    assert ending["reason"] == "session-cap"
    assert brief.host.heard[-1].endswith("and stay")
    await brief.through(8 * MINUTE, step=MINUTE)
    assert brief.box.machine.status == "RUNNING"
    await brief.through(3 * MINUTE, step=MINUTE)
    brief.host.says = None
    await brief.until(Phase.OFF)
    assert reason(brief) == "session-cap"


async def test_a_start_during_the_last_minutes_changes_nothing(brief: Driver) -> None:
    await on(brief)
    await brief.through(30 * MINUTE, step=5 * MINUTE)
    await brief.through(6 * MINUTE, step=MINUTE)
    assert brief.phase is Phase.DRAINING
    await brief.ask(Wanted.ON)
    await brief.turn()
    assert brief.phase is Phase.DRAINING
    assert "cancel drain" not in brief.host.heard
    await brief.through(10 * MINUTE, step=MINUTE)
    brief.host.says = None
    await brief.until(Phase.OFF)
    assert reason(brief) == "session-cap"


async def test_a_host_that_falls_silent_is_stopped_after_a_quarter_of_an_hour_and_said_so(driver: Driver) -> None:
    await on_for_half_an_hour(driver)
    driver.host.says = None
    await driver.through(10 * MINUTE, step=SILENT)
    assert driver.phase is Phase.READY
    ending = driver.body["ending"]
    assert isinstance(ending, dict)
    assert ending["reason"] == "silent-host"
    await driver.through(8 * MINUTE, step=SILENT)
    await driver.until(Phase.OFF)
    assert reason(driver) == "silent-host"


async def test_a_heartbeat_by_way_of_google_is_no_silence(driver: Driver) -> None:
    await on_for_half_an_hour(driver)
    driver.host.says = None
    for _ in range(20):
        driver.say_by_guest_attributes("heartbeat", boot_id="boot-1")
        await driver.through(MINUTE, step=30)
    assert driver.box.machine.status == "RUNNING"
    assert driver.body["ending"] is None


async def test_a_host_that_is_heard_again_is_left_alone(driver: Driver) -> None:
    await on_for_half_an_hour(driver)
    driver.host.says = None
    await driver.through(12 * MINUTE, step=SILENT)
    driver.answers()
    await driver.through(30 * MINUTE, step=5 * MINUTE)
    assert driver.box.machine.status == "RUNNING"
    assert driver.body["ending"] is None


async def test_a_channel_that_we_can_not_read_is_not_a_silent_one(driver: Driver) -> None:
    await on_for_half_an_hour(driver)
    driver.box.fault("permission", verb="getGuestAttributes", times=None)
    driver.host.says = None
    await driver.through(40 * MINUTE, step=SILENT)
    assert driver.box.machine.status == "RUNNING"


async def test_a_process_that_begins_anew_listens_for_a_quarter_of_an_hour_before_it_judges(driver: Driver) -> None:
    await on_for_half_an_hour(driver)
    driver.host.says = None
    await driver.through(14 * MINUTE, step=SILENT)
    await driver.ledger.close()
    await driver.compute.close()
    driver.fresh()
    await driver.ledger.open()
    await driver.through(14 * MINUTE, step=SILENT)
    assert driver.box.machine.status == "RUNNING"
    await driver.through(2 * MINUTE, step=SILENT)
    await driver.until(Phase.OFF)
    assert reason(driver) == "silent-host"


async def test_a_guard_that_google_refuses_goes_on_trying_and_says_why(driver: Driver) -> None:
    await on_for_half_an_hour(driver)
    driver.host.says = None
    driver.box.fault("permission", verb="stop", times=None)
    await driver.through(30 * MINUTE, step=SILENT)
    assert driver.box.machine.status == "RUNNING"
    fault = driver.body["fault"]
    assert isinstance(fault, dict)
    assert fault["code"] == "permission"
    assert 2 <= driver.compute.calls["stop"] <= 4
    driver.box.control("fault", method="DELETE")
    await driver.through(6 * MINUTE, step=SILENT)
    await driver.until(Phase.OFF)
    assert reason(driver) == "silent-host"


async def test_a_stop_that_never_ends_is_called_again_by_force_and_reported(driver: Driver) -> None:
    await on(driver)
    await driver.ask(Wanted.OFF, StopMode.NOW)
    await driver.turn()
    driver.host.says = None
    driver.box.control("machine", {"action": "status", "status": "STOPPING"})
    await driver.through(4 * MINUTE)
    assert driver.body["fault"] is None
    assert driver.compute.calls["stop"] == 1
    await driver.through(2 * MINUTE)
    assert driver.compute.calls["stop"] == 2
    await driver.until(Phase.OFF)
    assert driver.body["fault"] is None
    assert timedelta(minutes=5) < driver.now() - driver.box.world.began
