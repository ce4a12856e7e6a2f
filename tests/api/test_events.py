"""The stream of snapshots."""

import asyncio
import json
import signal
from collections.abc import Callable

import httpx
import pytest

from comfyweb.api import caller
from comfyweb.api import events as module
from comfyweb.api.caller import Token
from comfyweb.api.events import HEARTBEAT, LOGGED_OUT, Ending, events
from comfyweb.control.publisher import Listener
from comfyweb.machine.model import Phase
from comfyweb.machine.snapshot import Snapshot
from tests.api.conftest import RUNNING, UNSEEN, World

AT_ONCE = 0.001


def _data(event: bytes) -> object:
    name, _, data = event.decode().partition("\ndata: ")
    assert name.startswith("id: ")
    return json.loads(data)


async def test_the_stream_begins_with_the_snapshot_and_goes_on_with_each_newer_one(world: World) -> None:
    stream = events(Token(await world.token()))
    assert _data(await anext(stream)) == UNSEEN.body
    await world.controller.publisher.publish(RUNNING)
    assert _data(await anext(stream)) == RUNNING.body
    await stream.aclose()


async def test_who_reads_slowly_gets_only_the_newest(world: World) -> None:
    stream = events(Token(await world.token()), pulse_seconds=AT_ONCE, heartbeat_seconds=AT_ONCE)
    await anext(stream)
    for n in range(100):
        await world.controller.publisher.publish(
            Snapshot(phase=Phase.READY, body=RUNNING.body | {"external_ip": str(n)})
        )
    assert _data(await anext(stream)) == RUNNING.body | {"external_ip": "99"}
    assert await anext(stream) == HEARTBEAT
    await stream.aclose()


@pytest.mark.parametrize("how", ["ended", "everybody", "expired"])
async def test_the_stream_ends_with_the_session_and_says_so(
    world: World, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, session = await world.sessions.login("correct horse battery", "192.0.2.9")
    stream = events(Token(token), pulse_seconds=AT_ONCE)
    await anext(stream)
    if how == "ended":
        await world.sessions.end(session)
    elif how == "everybody":
        await world.sessions.end_all()
    else:
        monkeypatch.setattr(caller, "now", lambda: session.expires_at)
    await world.controller.publisher.publish(RUNNING)
    assert [event async for event in stream] == [LOGGED_OUT]


async def test_the_stream_ends_when_the_process_is_told_to_and_the_server_still_hears_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(module, "ending", Ending())
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    loop.add_signal_handler(signal.SIGTERM, told.append, signal.SIGTERM)
    try:
        module.ending.watch()
        stream = events(Token(await world.token()), pulse_seconds=AT_ONCE)
        await anext(stream)
        signal.raise_signal(signal.SIGTERM)
        assert [event async for event in stream] == []
        assert told == [signal.SIGTERM]
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
        for number, handler in before.items():
            signal.signal(number, handler)


async def test_a_stream_that_nobody_reads_any_more_is_forgotten(world: World) -> None:
    stream = events(Token(await world.token()))
    await anext(stream)
    assert len(world.controller.publisher._listeners) == 1
    await stream.aclose()
    assert len(world.controller.publisher._listeners) == 0


async def test_over_a_real_server_events_arrive_as_they_happen_and_a_lost_client_is_forgotten(
    world: World, served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher, forgotten = world.controller.publisher, asyncio.Event()
    subscribe = publisher.subscribe

    def watched(listener: Listener) -> Callable[[], None]:
        forget = subscribe(listener)
        return lambda: (forget(), forgotten.set())[0]

    monkeypatch.setattr(publisher, "subscribe", watched)
    headers = {"x-auth-token": await world.token()}
    async with (
        httpx.AsyncClient(base_url=served, headers=headers, timeout=20) as client,
        client.stream("GET", "/api/instance/events") as answer,
    ):
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        lines = answer.aiter_lines()
        assert (await anext(lines)).startswith("id: ")
        assert json.loads((await anext(lines)).removeprefix("data: ")) == UNSEEN.body
        await anext(lines)
        await publisher.publish(RUNNING)
        await anext(lines)
        assert json.loads((await anext(lines)).removeprefix("data: ")) == RUNNING.body
        assert not forgotten.is_set()
    async with asyncio.timeout(20):
        await forgotten.wait()


async def test_over_a_real_server_a_logout_ends_the_stream(world: World, served: str) -> None:
    headers = {"x-auth-token": await world.token()}
    async with (
        httpx.AsyncClient(base_url=served, headers=headers, timeout=20) as client,
        client.stream("GET", "/api/instance/events") as answer,
    ):
        lines = answer.aiter_lines()
        await anext(lines)
        assert (await client.post("/api/auth/logout")).status_code == 200
        rest = [line async for line in lines]
    assert rest[-3:-1] == ["event: logged-out", "data: {}"]
