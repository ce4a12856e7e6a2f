"""Websockets through the gate: for as long as their cookie lives, and without it."""

import asyncio
import time
from collections.abc import AsyncGenerator

import pytest

from tests.demo.standin_machine import SESSION
from tests.gate.gating import Gating, gating


@pytest.fixture
async def gate() -> AsyncGenerator[Gating]:
    async with gating() as made:
        yield made


async def test_a_websocket_reaches_comfyui_without_its_cookie(gate: Gating) -> None:
    cookie = (await gate.enter()).cookie
    socket = await gate.websocket(cookie, Origin="https://comfy.example.com")
    assert socket.answer.status == 101
    assert await socket.is_open()
    [asked] = gate.comfyui.asked
    assert asked.line == "GET /ws?clientId=1 HTTP/1.1"
    assert asked.headers["host"] == "comfy.example.com"
    assert asked.headers["origin"] == "https://comfy.example.com"
    assert "cookie" not in asked.headers
    assert cookie.partition("=")[2] not in str(asked)


@pytest.mark.parametrize("cookie", ["", "comfyweb_gate=" + "A" * 43])
async def test_a_stranger_s_websocket_never_gets_there(gate: Gating, cookie: str) -> None:
    assert (await gate.websocket(cookie)).answer.status == 401
    assert gate.comfyui.asked == []


async def test_what_is_no_websocket_never_gets_there(gate: Gating) -> None:
    cookie = (await gate.enter()).cookie
    assert (await gate.websocket(cookie, Upgrade="h2c")).answer.status == 400
    assert (await gate.websocket(cookie, Content_Length="10")).answer.status == 400
    assert gate.comfyui.asked == []


async def test_a_revoke_ends_the_open_websockets_of_its_session_alone(gate: Gating) -> None:
    mine = await gate.websocket((await gate.enter()).cookie)
    other = await gate.websocket((await gate.enter(gate.app.ticket(sub="another"))).cookie)
    gate.revoke(SESSION)
    assert await mine.ends()
    assert await other.is_open()
    await gate.heard()
    assert gate.comfyui.open == 1


async def test_a_websocket_ends_with_its_session(gate: Gating) -> None:
    socket = await gate.websocket((await gate.enter(gate.app.ticket(session_exp=time.time() + 1000))).cookie)
    assert await socket.is_open()
    gate.clocks.moved = 1001
    assert await socket.ends()


async def test_an_open_websocket_is_a_use_of_its_cookie(gate: Gating) -> None:
    cookie = (await gate.enter(gate.app.ticket(session_exp=time.time() + 86400))).cookie
    socket = await gate.websocket(cookie)
    for hours in (0.9, 1.8, 2.7):
        gate.clocks.moved = hours * 3600
        await gate.heard()
    assert await gate.closed(cookie) is None
    assert await socket.is_open()
    socket.writer.close()
    await gate.heard()
    gate.clocks.moved += 3601
    await gate.heard()
    assert await gate.closed(cookie) == "stranger"


async def test_a_browser_that_goes_leaves_nothing_open(gate: Gating) -> None:
    socket = await gate.websocket((await gate.enter()).cookie)
    assert await socket.is_open()
    assert gate.comfyui.open == 1
    socket.writer.close()
    await gate.heard()
    assert gate.comfyui.open == 0


async def test_comfyui_s_own_no_is_handed_back(gate: Gating) -> None:
    socket = await gate.websocket((await gate.enter()).cookie, "/nowhere")
    assert socket.answer.status == 200  # what it says to what it doesn't take for a websocket


async def test_while_comfyui_is_away_that_is_said(gate: Gating) -> None:
    cookie = (await gate.enter()).cookie
    gate.comfyui.port = 1
    await gate.stop()
    await gate.start()
    socket = await gate.websocket(cookie)
    assert (socket.answer.status, socket.answer.headers["retry-after"]) == (503, "2")


async def test_the_end_of_the_gate_is_the_end_of_its_websockets(gate: Gating, caplog: pytest.LogCaptureFixture) -> None:
    socket = await gate.websocket((await gate.enter()).cookie)
    await gate.stop()
    assert await socket.ends()
    assert not [task for task in asyncio.all_tasks() if "vm_setup/gate" in str(task)]
    assert [record for record in caplog.records if record.name == "asyncio"] == []
