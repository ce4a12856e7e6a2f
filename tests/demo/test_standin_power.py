"""The stand-in's machine: it boots in steps, switches itself off by the rules, and stands a broken metadata server."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest

from tests.demo.standin_machine import Machine, machine, until, websocket

PROMPT = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "seconds": 60}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
}


@pytest.fixture
async def ready() -> AsyncGenerator[Machine]:
    async with machine() as made:
        yield made


async def activity(made: Machine) -> Any:
    return (await made.status())["activity"]


async def is_busy(made: Machine) -> bool:
    return (await activity(made))["stops_at"] is None


async def test_without_power_nobody_listens() -> None:
    async with machine(power=False) as made, made.browser() as browser:
        with pytest.raises(httpx.ConnectError):
            await browser.get("/_host/health")
        await made.standin.power_on("boot-1")
        await made.ready()
        await made.standin.power_off()
        await made.standin.power_off()
        with pytest.raises(httpx.ConnectError):
            await browser.get("/_host/health")


async def test_while_it_boots_it_says_so_and_shows_no_comfyui() -> None:
    async with machine(power=False) as made, made.browser() as browser:
        await made.standin.power_on("boot-1")
        await asyncio.sleep(0)
        assert (await browser.get("/_host/health")).json() == {"phase": "warming"}
        answer = await browser.get("/")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert await websocket(browser) is None


async def test_its_steps_are_done_when_comfyui_answers(ready: Machine) -> None:
    steps: Any = (await ready.status())["steps"]
    assert [(step["name"], step["state"]) for step in steps] == [
        ("disk", "done"),
        ("driver", "done"),
        ("gate", "done"),
        ("comfyui", "done"),
    ]
    assert all(step["expected_seconds"] > 0 for step in steps)


async def test_a_reset_is_another_boot_with_no_cookies_and_no_history(ready: Machine) -> None:
    async with ready.entered() as browser:
        await ready.standin.power_on("boot-2")
        await ready.ready()
        assert (await browser.get("/")).status_code == 401
        await until(ready.answers)
        assert (await ready.status())["boot_id"] == "boot-2"


async def test_it_powers_off_once_when_nobody_has_used_it_for_the_limit(ready: Machine) -> None:
    ready.clocks.moved = 1790
    await ready.settled()
    assert not ready.powered_off
    ready.clocks.moved = 1810
    await until(ready.is_off)
    await ready.settled()
    assert len(ready.powered_off) == 1
    assert (await ready.status())["phase"] == "stopping"


async def test_input_restarts_the_idle_clock_and_looking_does_not(ready: Machine) -> None:
    async with ready.entered() as browser:
        ear = await websocket(browser)
        assert ear is not None
        ready.clocks.moved = 1000
        await browser.get("/api/queue")
        assert (await activity(ready))["kind"] == "ready"
        await browser.post("/_host/activity")
        assert (await activity(ready))["kind"] == "input"
        ready.clocks.moved = 2700
        await ready.settled()
        assert not ready.powered_off
        ready.clocks.moved = 2810
        await until(ready.is_off)
        ear.close()


async def test_it_never_stops_idle_while_a_job_runs_or_waits(ready: Machine) -> None:
    async with ready.entered() as browser:
        await browser.post("/prompt", json={"prompt": PROMPT})
        await until(lambda: is_busy(ready))
        ready.clocks.moved = 3000
        await ready.settled()
        assert not ready.powered_off
        await browser.post("/interrupt")
        await until(lambda: is_idle(ready))
        assert (await activity(ready))["kind"] == "job"


async def is_idle(made: Machine) -> bool:
    return not await is_busy(made)


async def test_keep_alive_and_extend_move_the_stop(ready: Machine) -> None:
    async with ready.browser() as app:
        first = (await activity(ready))["stops_at"]
        ready.clocks.moved = 60
        kept = (await ready.app.call(app, "POST", "/_host/keep-alive")).json()["activity"]
        assert kept["stops_at"] > first
        longer = (await ready.app.call(app, "POST", "/_host/extend", {"minutes": 30})).json()["activity"]
        assert longer["stops_at"] > kept["stops_at"]
        assert [hold["name"] for hold in longer["holds"]] == ["extended"]


async def test_idle_now_leaves_twenty_seconds_and_input_saves_the_machine(ready: Machine) -> None:
    async with ready.entered() as browser:
        assert (await browser.post("/demo/idle")).status_code == 204
        ready.clocks.moved = 15
        await browser.post("/_host/activity")
        ready.clocks.moved = 30
        await ready.settled()
        assert not ready.powered_off
        ready.standin.idle_in(20)
        ready.clocks.moved = 51
        await until(ready.is_off)


async def test_a_drain_with_nothing_to_do_is_over_at_once(ready: Machine) -> None:
    async with ready.browser() as app:
        await ready.app.call(app, "POST", "/_host/drain", {"deadline_seconds": 1800})
        await until(ready.is_off)


async def test_a_drain_refuses_new_prompts_and_ends_with_the_last_job(ready: Machine) -> None:
    async with ready.entered() as browser:
        await browser.post("/prompt", json={"prompt": PROMPT})
        await until(lambda: is_busy(ready))
        status = (await ready.app.call(browser, "POST", "/_host/drain", {"deadline_seconds": 1800})).json()
        assert (status["phase"], status["drain"]["remaining"]) == ("draining", 1)
        refused = await browser.post("/api/prompt", json={"prompt": PROMPT})
        assert refused.status_code == 503
        assert "about to stop" in refused.json()["error"]["message"]
        await ready.settled()
        assert not ready.powered_off
        await browser.post("/interrupt")
        await until(ready.is_off)


async def test_a_drain_that_stays_takes_no_prompts_and_ends_at_its_deadline(ready: Machine) -> None:
    async with ready.entered() as browser:
        await ready.app.call(browser, "POST", "/_host/drain", {"deadline_seconds": 600, "stay": True})
        refused = await browser.post("/prompt", json={"prompt": PROMPT})
        assert refused.status_code == 503
        assert "longest session" in refused.text
        ready.clocks.moved = 590
        assert not await ready.is_off()
        ready.clocks.moved = 601
        await until(ready.is_off)


async def test_a_drain_ends_at_its_deadline_whatever_runs(ready: Machine) -> None:
    async with ready.entered() as browser:
        await browser.post("/prompt", json={"prompt": PROMPT})
        await until(lambda: is_busy(ready))
        await ready.app.call(browser, "POST", "/_host/drain", {"deadline_seconds": 600})
        ready.clocks.moved = 601
        await until(ready.is_off)


async def test_a_cancelled_drain_lets_prompts_in_again(ready: Machine) -> None:
    async with ready.entered() as browser:
        await browser.post("/prompt", json={"prompt": PROMPT})
        await until(lambda: is_busy(ready))
        await ready.app.call(browser, "POST", "/_host/drain", {"deadline_seconds": 600})
        status = (await ready.app.call(browser, "DELETE", "/_host/drain")).json()
        assert (status["phase"], status["drain"]) == ("ready", None)
        assert (await browser.post("/prompt", json={"prompt": PROMPT})).status_code == 200


async def test_guest_attributes_tell_the_boot_and_the_heartbeat(ready: Machine) -> None:
    await until(lambda: wrote_both(ready))
    assert ready.metadata.written["phase"][0]["boot_id"] == "boot-1"
    assert set(ready.metadata.written["heartbeat"][0]) == {"boot_id", "at", "queue", "stops_at", "acks"}
    ready.clocks.moved = 61
    await until(lambda: wrote_twice(ready))
    assert ready.metadata.written["phase"][-1]["phase"] == "ready"


async def wrote_both(made: Machine) -> bool:
    return all(made.metadata.written.values())


async def wrote_twice(made: Machine) -> bool:
    return all(len(messages) > 1 for messages in made.metadata.written.values())


async def test_a_command_by_metadata_is_obeyed_once_and_acknowledged(ready: Machine) -> None:
    command = ready.app.command("POST", "/_host/extend", {"minutes": 30}, jti="c-1")
    ready.metadata.change(comfyweb_command=json.dumps([command, "garbage"]))
    await until(lambda: is_extended(ready))
    extended = (await activity(ready))["holds"]
    ready.metadata.change(another_key="x")
    ready.clocks.moved = 6
    await until(lambda: acknowledged(ready, "c-1"))
    assert len((await activity(ready))["holds"]) == len(extended) == 1


async def is_extended(made: Machine) -> bool:
    return bool((await activity(made))["holds"])


async def acknowledged(made: Machine, jti: str) -> bool:
    return jti in made.metadata.written["heartbeat"][-1].get("acks", [])  # pyright: ignore[reportOperatorIssue] - JSON


async def test_a_drain_by_metadata_powers_off(ready: Machine) -> None:
    command = ready.app.command("POST", "/_host/drain", {"deadline_seconds": 60})
    ready.metadata.change(comfyweb_command=json.dumps([command]))
    await until(ready.is_off)


async def test_the_idle_limit_follows_the_metadata_and_a_bad_one_is_a_warning(ready: Machine) -> None:
    ready.metadata.change(comfyweb_idle_minutes="soon")
    await until(lambda: warns(ready))
    ready.metadata.change(comfyweb_idle_minutes="0.5")
    await until(lambda: is_calm(ready))
    ready.clocks.moved = 31
    await until(ready.is_off)


async def warns(made: Machine) -> bool:
    return bool((await made.status())["warnings"])


async def is_calm(made: Machine) -> bool:
    return not await warns(made)


async def test_new_keys_replace_the_old_ones(ready: Machine) -> None:
    ready.metadata.change(comfyweb_keys="no JWKS")
    await until(lambda: knows_no_keys(ready))


async def knows_no_keys(made: Machine) -> bool:
    return not await made.answers()


async def test_a_metadata_server_that_answers_nonsense_changes_nothing(ready: Machine) -> None:
    ready.metadata.broken = True
    ready.metadata.change(comfyweb_keys="lost")
    asked = ready.metadata.asked
    await until(lambda: asyncio.sleep(0, ready.metadata.asked > asked + 1))
    assert await ready.answers()
    ready.metadata.broken = False
    ready.metadata.change(comfyweb_keys="")
    await until(lambda: knows_no_keys(ready))


async def test_a_dead_metadata_server_stops_neither_work_nor_the_idle_stop() -> None:
    async with machine(served=False) as made:
        async with made.browser() as stranger:
            assert (await stranger.get("/")).status_code == 401
        made.clocks.moved = 1801
        await until(made.is_off)
