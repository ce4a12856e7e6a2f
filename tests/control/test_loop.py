"""The loop from Start to off, with the real client against the emulated cloud, in a time that the test moves."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from comfyweb.access.sessions import Session
from comfyweb.control.database import LedgerError
from comfyweb.machine.model import Phase, StopMode, StopReason, Verb, Wanted
from tests.control.driving import Driver, driven


@pytest.fixture
async def driver(tmp_path: Path) -> AsyncIterator[Driver]:
    async with driven(tmp_path) as made:
        yield made


async def up(driver: Driver) -> None:
    await driver.ask(Wanted.ON)
    await driver.until(Phase.BOOTING)
    driver.answers()
    await driver.until(Phase.READY)


async def test_a_machine_that_is_off_is_looked_at_every_15_seconds_and_costs_four_calls_a_minute(
    driver: Driver,
) -> None:
    assert await driver.turn() == 15
    assert driver.phase is Phase.OFF
    driver.compute.calls.clear()
    await driver.live(60)
    assert driver.compute.calls.total() <= 5


async def test_start_prepares_starts_and_follows_the_machine_until_comfyui_answers(driver: Driver) -> None:
    await driver.ask(Wanted.ON)
    await driver.until(Phase.STARTING)
    await driver.until(Phase.BOOTING)
    assert driver.box.machine.external_ip
    assert driver.body["external_ip"] == driver.box.machine.external_ip
    asked = driver.host.asked
    await driver.live(5)
    assert driver.host.asked - asked >= 10
    driver.answers()
    await driver.until(Phase.READY)
    standing = await driver.ledger.standing()
    assert [a.verb for a in standing.attempts] == [Verb.SET_METADATA, Verb.SET_SCHEDULING, Verb.START]
    assert all(a.fault is None and not a.in_flight for a in standing.attempts)
    assert standing.open_intent is None
    assert standing.run is not None
    assert standing.run.ours
    run = driver.body["run"]
    assert isinstance(run, dict)
    assert run["ends_at"]
    phases = [snapshot.phase for snapshot in driver.shown]
    assert [p for i, p in enumerate(phases) if i == 0 or p is not phases[i - 1]] == [
        Phase.STARTING,
        Phase.BOOTING,
        Phase.READY,
    ]


async def test_a_second_start_finds_everything_prepared(driver: Driver) -> None:
    await up(driver)
    await driver.ask(Wanted.OFF, StopMode.NOW)
    await driver.until(Phase.OFF)
    await driver.ask(Wanted.ON)
    await driver.until(Phase.BOOTING)
    verbs = [a.verb for a in (await driver.ledger.standing()).attempts]
    assert verbs[-2:] == [Verb.STOP, Verb.START]


async def test_when_nothing_moves_a_ready_machine_is_left_in_peace(driver: Driver) -> None:
    await up(driver)
    driver.answers()
    await driver.live(20)
    driver.compute.calls.clear()
    asked = driver.host.asked
    for _ in range(4):
        driver.answers()
        await driver.live(15)
    assert driver.compute.calls.total() <= 5
    assert driver.host.asked - asked <= 16


async def test_stop_now_stops_and_tells_why(driver: Driver) -> None:
    await up(driver)
    await driver.ask(Wanted.OFF, StopMode.NOW)
    await driver.until(Phase.STOPPING)
    await driver.until(Phase.OFF)
    stop = driver.body["last_stop"]
    assert isinstance(stop, dict)
    assert stop["reason"] == StopReason.STOPPED_NOW


async def test_a_gentle_stop_lets_the_running_prompt_finish(driver: Driver) -> None:
    await up(driver)
    driver.answers(queue_running=1)
    await driver.ask(Wanted.OFF)
    await driver.until(Phase.DRAINING)
    await driver.live(4)
    assert driver.host.heard == ["drain 1800"]
    assert driver.box.machine.status == "RUNNING"
    assert driver.host.says is not None
    until = driver.host.says.drain_until
    driver.answers(drain_until=until, drain_remaining=0)
    await driver.until(Phase.OFF)
    stop = driver.body["last_stop"]
    assert isinstance(stop, dict)
    assert stop["reason"] == StopReason.DRAINED


async def test_start_takes_a_gentle_stop_back(driver: Driver) -> None:
    await up(driver)
    driver.answers(queue_running=1)
    await driver.ask(Wanted.OFF)
    await driver.until(Phase.DRAINING)
    await driver.live(2)
    await driver.ask(Wanted.ON)
    await driver.until(Phase.READY)
    assert driver.host.heard[-1] == "cancel drain"
    assert driver.box.machine.status == "RUNNING"


async def test_a_start_while_it_stops_is_kept(driver: Driver) -> None:
    await up(driver)
    driver.host.says = None
    await driver.ask(Wanted.OFF, StopMode.NOW)
    await driver.until(Phase.STOPPING)
    await driver.ask(Wanted.ON)
    await driver.until(Phase.STARTING)
    await driver.until(Phase.BOOTING)


@pytest.mark.parametrize("seen_stopping", [True, False])
@pytest.mark.parametrize("wanted", [Wanted.ON, Wanted.OFF])
async def test_what_is_asked_for_while_it_stops_does_not_change_why_it_stopped(
    driver: Driver, wanted: Wanted, *, seen_stopping: bool
) -> None:
    await up(driver)
    driver.host.says = None
    await driver.ask(Wanted.OFF, StopMode.NOW)
    await driver.until(Phase.STOPPING)
    if seen_stopping:
        await driver.live(4)
        assert driver.box.machine.status == "STOPPING"
    elif wanted is Wanted.OFF:
        return  # Asked for before anything was seen to go off, the gentle stop is as good a reason.
    await driver.ask(wanted)
    for _ in range(30):
        await driver.live(1)
        if isinstance(stop := driver.body["last_stop"], dict):
            assert stop["reason"] == StopReason.STOPPED_NOW
            return
    raise AssertionError("it did not stop")


async def test_an_idle_machine_that_powers_itself_off_is_told_as_idle(driver: Driver) -> None:
    await up(driver)
    driver.answers(stops_at=driver.now() + timedelta(seconds=16))
    await driver.live(16)
    driver.box.box.poweroff()
    await driver.until(Phase.OFF)
    stop = driver.body["last_stop"]
    assert isinstance(stop, dict)
    assert stop["reason"] == StopReason.IDLE


@pytest.mark.parametrize(
    ("kind", "code"), [("stockout", "no-capacity"), ("quota", "quota-global"), ("permission", "permission")]
)
async def test_a_refused_start_says_why_and_asks_once(driver: Driver, kind: str, code: str) -> None:
    driver.box.fault(kind, verb="start")
    await driver.ask(Wanted.ON)
    await driver.until(Phase.STARTING)
    await driver.until(Phase.OFF)
    fault = driver.body["fault"]
    assert isinstance(fault, dict)
    assert fault["code"] == code
    standing = await driver.ledger.standing()
    assert [a.verb for a in standing.attempts].count(Verb.START) == 1
    assert standing.open_intent is None


async def test_the_words_of_a_refusal_go_with_the_next_start(driver: Driver) -> None:
    driver.box.fault("stockout", verb="start")
    await driver.ask(Wanted.ON)
    await driver.until(Phase.STARTING)
    await driver.until(Phase.OFF)
    await driver.ask(Wanted.ON)
    await driver.until(Phase.BOOTING)
    assert driver.body["fault"] is None


async def test_while_google_cannot_be_reached_people_are_told_and_nothing_is_guessed(driver: Driver) -> None:
    await up(driver)
    driver.box.fault("unavailable", verb="get", times=None, seconds=40)
    await driver.live(20)
    assert driver.phase is Phase.READY
    fault = driver.body["fault"]
    assert isinstance(fault, dict)
    assert fault["code"] == "unavailable"
    driver.answers()
    await driver.live(60)
    assert driver.body["fault"] is None


async def test_a_machine_deleted_by_somebody_is_missing(driver: Driver) -> None:
    await driver.turn()
    driver.box.control("machine", {"action": "delete"})
    await driver.live(30)
    assert driver.phase is Phase.MISSING


async def test_a_machine_started_elsewhere_is_adopted_and_its_missing_guard_is_named(driver: Driver) -> None:
    driver.box.control("machine", {"action": "start"})
    await driver.until(Phase.BOOTING)
    run = driver.body["run"]
    assert isinstance(run, dict)
    assert run["ours"] is False
    assert "guard" in str(driver.body["notices"])


async def test_a_logout_reaches_the_host_even_if_it_was_silent_then(driver: Driver) -> None:
    await up(driver)
    session = Session(jti="gone", issued_at=driver.now(), expires_at=driver.now() + timedelta(hours=24))
    await driver.ledger.add(session)
    says, driver.host.says = driver.host.says, None
    await driver.ledger.end("gone", driver.now())
    await driver.live(5)
    driver.host.says = says
    driver.answers()
    await driver.live(20)
    assert driver.host.heard == ["revoke gone"]


@pytest.mark.parametrize("verb", [Verb.SET_METADATA, Verb.SET_SCHEDULING, Verb.START])
async def test_a_process_killed_between_a_call_and_its_answer_makes_the_same_call_again(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, verb: Verb
) -> None:
    """Killed here means: the ledger can't store the answer any more, and new objects go on with the same file."""
    await driver.ask(Wanted.ON)

    async def killed(attempt_id: int, operation: str) -> None:
        attempts = (await driver.ledger.standing()).attempts
        if attempts[-1].verb is verb:
            raise LedgerError("killed")
        await type(driver.ledger).called(driver.ledger, attempt_id, operation)

    monkeypatch.setattr(driver.ledger, "called", killed)
    for _ in range(20):
        try:
            driver.box.advance(max(await driver.turn(), 0.05))
        except LedgerError:
            break
    else:
        pytest.fail("it was never killed")
    await driver.compute.close()
    await driver.ledger.close()
    driver.fresh()
    await driver.until(Phase.BOOTING)
    standing = await driver.ledger.standing()
    assert [a.verb for a in standing.attempts] == [Verb.SET_METADATA, Verb.SET_SCHEDULING, Verb.START]
    kinds = [operation.kind for operation in driver.box.world.operations.values()]
    assert kinds.count("start") == 1


async def test_while_https_is_silent_the_boot_is_followed_by_way_of_google(driver: Driver) -> None:
    await driver.ask(Wanted.ON)
    await driver.until(Phase.BOOTING)
    driver.say_by_guest_attributes("phase")
    await driver.live(3)
    assert driver.phase is Phase.BOOTING
    assert "Loading the graphics driver" in str(driver.body["boot"])
    assert "came by way of Google" in str(driver.body["notices"])


async def test_what_an_earlier_boot_left_in_the_guest_attributes_is_not_believed(driver: Driver) -> None:
    await driver.ask(Wanted.ON)
    await driver.until(Phase.BOOTING)
    driver.say_by_guest_attributes("phase", at="2026-11-22T12:00:00Z", comfyui={"ready": True})
    await driver.live(3)
    assert driver.phase is Phase.BOOTING
    assert "Loading the graphics driver" not in str(driver.body["boot"])


async def test_guest_attributes_are_read_at_most_once_a_minute_after_the_boot(driver: Driver) -> None:
    await up(driver)
    driver.host.says = None
    await driver.through(120)
    driver.compute.calls.clear()
    await driver.through(180, step=5)
    assert driver.compute.calls["getGuestAttributes"] <= 3
    assert driver.phase is Phase.READY


async def test_a_start_that_fails_leaves_the_reason_of_the_last_stop_as_it_was(driver: Driver) -> None:
    await up(driver)
    await driver.ask(Wanted.OFF, StopMode.NOW)
    await driver.until(Phase.OFF)
    stopped = driver.body["last_stop"]
    driver.box.fault("stockout", verb="start")
    await driver.ask(Wanted.ON)
    await driver.until(Phase.STARTING)
    await driver.until(Phase.OFF)
    assert driver.body["last_stop"] == stopped


async def test_a_start_asked_before_a_long_downtime_is_not_made_up_for(driver: Driver) -> None:
    await driver.ask(Wanted.ON)
    driver.box.advance(3 * 86400)
    driver.fresh()
    await driver.live(10)
    assert driver.phase is Phase.OFF
    assert "not carried out" in str(driver.body["fault"])
    assert not driver.box.world.operations


async def test_a_stop_whose_outcome_may_not_be_read_is_judged_by_the_machine(driver: Driver) -> None:
    await up(driver)
    driver.box.fault("permission", verb="operations.get", times=None)
    driver.host.says = None
    await driver.ask(Wanted.OFF, StopMode.NOW)
    await driver.until(Phase.STOPPING)
    await driver.until(Phase.OFF)
    await driver.live(40)
    assert driver.body["fault"] is None
    assert driver.body["wanted"] == ""
    stop = driver.body["last_stop"]
    assert isinstance(stop, dict)
    assert stop["reason"] == StopReason.STOPPED_NOW


async def test_a_call_lost_long_ago_is_not_repeated(driver: Driver) -> None:
    await driver.ledger.begin(Verb.START, "us-central1-a", "5b1fd2cd-8fd3-4ac5-a1a1-5fb6b4b5a1e0", None, driver.now())
    driver.box.advance(3600)
    await driver.live(10)
    assert driver.phase is Phase.OFF
    assert not driver.box.world.operations


async def test_a_host_that_falls_silent_makes_the_loop_look_at_compute_engine_at_once(driver: Driver) -> None:
    await up(driver)
    driver.answers()
    await driver.live(6)
    driver.host.says = None
    driver.box.control("machine", {"action": "stop"})
    await driver.live(6)
    assert driver.phase is Phase.STOPPING


async def test_while_nobody_can_say_what_runs_no_number_is_shown(driver: Driver) -> None:
    await up(driver)
    driver.answers(queue_running=None, queue_pending=None)
    await driver.live(6)
    assert driver.body["queue"] is None


async def test_a_missing_permission_is_told_before_it_is_needed(driver: Driver) -> None:
    driver.box.control("fault", {"kind": "permission", "verb": "start", "times": None})
    await driver.live(3)
    assert "compute.instances.start" in str(driver.body["notices"])


async def test_who_may_not_even_look_at_the_machine_hears_of_every_permission_that_is_missing(
    driver: Driver, caplog: pytest.LogCaptureFixture
) -> None:
    for verb in ("get", "stop"):
        driver.box.control("fault", {"kind": "permission", "verb": verb, "times": None})
    await driver.live(3)
    told = [record.getMessage() for record in caplog.records if "missing permission" in record.getMessage()]
    assert told == ["missing permission: compute.instances.get", "missing permission: compute.instances.stop"]
    assert "compute.instances.stop" in str(driver.body["notices"])
    driver.box.control("fault", method="DELETE")
    await driver.live(16)
    assert "compute.instances" not in str(driver.body["notices"]), "it was granted meanwhile"


async def test_the_old_systems_password_is_deleted_and_that_is_said(driver: Driver) -> None:
    driver.box.machine.metadata["auth_pass"] = "old"
    await driver.ask(Wanted.ON)
    await driver.until(Phase.BOOTING)
    assert "auth_pass" not in driver.box.machine.metadata
    assert "password" in str(driver.body["notices"])


async def test_a_database_that_fails_is_told_on_the_page(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    await up(driver)

    async def fails() -> None:
        raise LedgerError("locked")

    monkeypatch.setattr(driver.ledger, "standing", fails)
    turning = asyncio.create_task(driver.loop.run())
    while driver.body["fault"] is None:
        await asyncio.sleep(0)
    turning.cancel()
    assert "database" in str(driver.body["fault"])
    assert driver.loop.trouble == "locked"
