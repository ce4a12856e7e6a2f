"""The stream of snapshots."""

import asyncio
import json
import signal
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from starlette.types import Message

from comfyweb.api import caller
from comfyweb.api import events as module
from comfyweb.api.app import create_api
from comfyweb.api.caller import Token
from comfyweb.api.events import HEARTBEAT, LOGGED_OUT, Ending, EventStream, events
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


class Reader:
    """A client of the application, which reads or doesn't."""

    def __init__(self, world: World, token: str) -> None:
        self.statuses: list[int] = []
        self._reads = asyncio.Event()
        self._scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"spec_version": "2.4"},
            "method": "GET",
            "path": "/api/instance/events",
            "raw_path": b"/api/instance/events",
            "query_string": b"",
            "headers": [(b"x-auth-token", token.encode())],
            "client": ("192.0.2.1", 5),
        }
        self.asked = asyncio.create_task(create_api()(self._scope, self._silence, self._send))

    async def _silence(self) -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.statuses.append(message["status"])
        else:
            await self._reads.wait()


async def test_a_stream_that_is_not_read_is_ended_and_forgotten(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "READ_WITHIN_SECONDS", AT_ONCE)
    await Reader(world, await world.token()).asked
    assert len(world.controller.publisher._listeners) == 0
    assert not EventStream._of_one_login
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_login_may_have_so_many_streams_and_another_login_its_own(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STREAMS_OF_ONE_LOGIN", 2)
    token = await world.token()
    readers = [Reader(world, token) for _ in range(3)] + [Reader(world, await world.token())]
    while not all(reader.statuses for reader in readers):
        await asyncio.sleep(0)
        for reader in readers:
            reader._reads.set()
    assert sorted(reader.statuses[0] for reader in readers[:3]) == [200, 200, 429], "in whichever order they come"
    assert readers[3].statuses == [200]
    for reader in readers:
        reader.asked.cancel()
    await asyncio.gather(*(reader.asked for reader in readers), return_exceptions=True)
    again = Reader(world, token)
    while not again.statuses:
        await asyncio.sleep(0)
    assert again.statuses == [200]
    again.asked.cancel()
    await asyncio.gather(again.asked, return_exceptions=True)
