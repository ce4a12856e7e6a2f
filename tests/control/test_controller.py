"""What a button and a program can ask, and what each gets told in every phase."""

import asyncio
import base64
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import cast

import pytest
from pydantic import SecretStr

from comfyweb.access.host_tokens import HostTokens
from comfyweb.access.sessions import Session
from comfyweb.cloud.host import HostClient
from comfyweb.control.controller import Controller, NotNow, Unavailable
from comfyweb.control.visitors import Visitors
from comfyweb.machine.model import Phase, StopMode, Wanted
from tests.control.driving import Driver, driven


@pytest.fixture
async def driver(tmp_path: Path) -> AsyncIterator[Driver]:
    async with driven(tmp_path) as made:
        yield made


@pytest.fixture
def controller(driver: Driver) -> Controller:
    key = SecretStr(base64.b64encode(b"k" * 32).decode())
    tokens = HostTokens(keys=[key], issuer="http://localhost:3000", audience=lambda: "host:p/z/m", now=driver.now)
    return Controller(
        ledger=driver.ledger,
        present=lambda: driver.loop,
        publisher=driver.publisher,
        host=cast(HostClient, driver.host),
        tokens=tokens,
        visitors=Visitors(),
    )


@pytest.fixture
def session(driver: Driver) -> Session:
    return Session(jti="s", issued_at=driver.now(), expires_at=driver.now() + timedelta(hours=24))


async def test_start_is_stored_when_it_returns_and_wakes_the_loop(
    driver: Driver, controller: Controller, session: Session
) -> None:
    await driver.turn()
    assert await controller.start(session) == "Starting."
    intent = (await driver.ledger.standing()).open_intent
    assert intent is not None
    assert (intent.wanted, intent.by) == (Wanted.ON, "s")
    await driver.turn()
    assert driver.phase is Phase.STARTING


async def test_start_while_it_is_on_changes_nothing(driver: Driver, controller: Controller, session: Session) -> None:
    await driver.turn()
    await controller.start(session)
    await driver.until(Phase.BOOTING)
    assert await controller.start(session) == "It is starting already."
    driver.answers()
    await driver.until(Phase.READY)
    operations = len(driver.box.world.operations)
    assert await controller.start(session) == "It is on already."
    await driver.live(5)
    assert len(driver.box.world.operations) == operations
    assert driver.phase is Phase.READY


async def test_who_would_be_turned_away_is_told_by_what_is_in_the_metadata(
    controller: Controller, driver: Driver, session: Session
) -> None:
    assert controller.locked_out(session, "93.184.216.34") == ""
    driver.box.machine.metadata["allowed_ip"] = "8.8.8.8"
    await driver.turn()
    assert "You would lock yourself out" in controller.locked_out(session, "93.184.216.34")


async def test_stop_of_a_machine_that_is_off_says_so(driver: Driver, controller: Controller, session: Session) -> None:
    await driver.turn()
    assert await controller.stop(session, StopMode.DRAIN) == "It is off already."
    await driver.live(3)
    assert (await driver.ledger.standing()).open_intent is None


async def test_what_needs_a_running_comfyui_is_refused_while_it_is_off(
    driver: Driver, controller: Controller, session: Session
) -> None:
    await driver.turn()
    for asked in (controller.keep_alive(session), controller.extend(session, 30), controller.ticket(session)):
        with pytest.raises(NotNow):
            await asked


async def test_a_ready_machine_is_kept_alive_extended_and_entered(
    driver: Driver, controller: Controller, session: Session
) -> None:
    await driver.turn()
    await controller.start(session)
    await driver.until(Phase.BOOTING)
    driver.answers()
    await driver.until(Phase.READY)
    await controller.keep_alive(session)
    await controller.extend(session, 30)
    assert driver.host.heard == ["keep-alive", "extend 30"]
    assert (await controller.ticket(session)).startswith("http://localhost:1/_host/gate?ticket=ey")
    for minutes in (0, -1, 121, float("nan"), float("inf")):
        with pytest.raises(NotNow):
            await controller.extend(session, minutes)
    driver.host.says = None
    with pytest.raises(Unavailable):
        await controller.keep_alive(session)


async def test_a_ledger_that_cannot_be_written_refuses_with_words_and_nothing_happens(
    driver: Driver, controller: Controller, session: Session
) -> None:
    await driver.turn()
    (driver.path.parent / "moved").mkdir()
    await driver.ledger.close()
    driver.path.rename(driver.path.parent / "moved/ledger.db")
    driver.path.mkdir()
    driver.fresh()
    broken = Controller(
        ledger=driver.ledger,
        present=lambda: driver.loop,
        publisher=driver.publisher,
        host=cast(HostClient, driver.host),
        tokens=controller._tokens,
        visitors=Visitors(),
    )
    with pytest.raises(Unavailable, match="nothing was done"):
        await broken.start(session)
    assert (await broken.dependencies())["database"] != "ok"


async def test_what_is_measured_follows_the_machine_and_its_calls(driver: Driver, controller: Controller) -> None:
    assert (controller.measured().looked_at, controller.measured().run_seconds) == (None, 0)
    await driver.ask(Wanted.ON)
    await driver.until(Phase.BOOTING)
    began = controller.measured()
    assert began.looked_at == driver.loop.now()
    assert began.calls["start", "ok"] == 1
    driver.answers()
    await driver.live(60)
    assert 60 <= controller.measured().run_seconds - began.run_seconds < 65


async def test_turns_are_timed_and_those_that_fail_are_counted(
    driver: Driver, controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = 0

    async def fails_once() -> float:
        nonlocal turns
        turns += 1
        driver.box.advance(3)
        if turns == 1:
            raise RuntimeError("planted")
        return 0.0

    monkeypatch.setattr(driver.loop, "round", fails_once)
    monkeypatch.setattr("comfyweb.control.loop.MOVING", timedelta())
    turning = asyncio.create_task(driver.loop.run())
    while sum(controller.measured().turns.counts) < 2:
        await asyncio.sleep(0)
    turning.cancel()
    measured = controller.measured()
    assert measured.failed_turns == 1
    assert measured.turns.total_seconds == 3 * sum(measured.turns.counts)


async def test_a_missing_machine_can_be_neither_started_nor_stopped(
    driver: Driver, controller: Controller, session: Session
) -> None:
    driver.box.control("machine", {"action": "delete"})
    await driver.live(30)
    with pytest.raises(NotNow):
        await controller.start(session)
    with pytest.raises(NotNow):
        await controller.stop(session, StopMode.NOW)


async def test_extend_promises_nothing_past_the_end_of_the_longest_session(
    driver: Driver, controller: Controller, session: Session
) -> None:
    await driver.turn()
    await controller.start(session)
    await driver.until(Phase.BOOTING)
    run = driver.body["run"]
    assert isinstance(run, dict)
    ends = datetime.fromisoformat(str(run["ends_at"]))
    driver.answers(stops_at=ends - timedelta(minutes=10))
    await driver.until(Phase.READY)
    assert "end of the longest session" in await controller.extend(session, 30)
    driver.answers(stops_at=ends)
    driver.loop.wake()
    await driver.turn()
    with pytest.raises(NotNow, match="longest session"):
        await controller.extend(session, 30)
