"""Every refusal has one form, whatever was sent, and tells nothing that isn't the caller's business."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.types import Message

from comfyweb.api.body import MOST_BYTES, BodyLimit
from tests.api.conftest import World, problem

JSON = {"content-type": "application/json"}
POSTS = ["/api/auth/login", "/api/instance/stop", "/api/instance/extend", "/api/instance/start"]


async def test_what_does_not_exist_is_404(world: World, caller: httpx.AsyncClient) -> None:
    for path in ("/api/nothing", "/api", "/api/docs/../app.py", "/api/docs/start.py", "/api/instance/status/"):
        problem(await caller.get(path), 404)


async def test_another_method_is_405_and_the_right_ones_are_named(world: World, caller: httpx.AsyncClient) -> None:
    answer = await caller.get("/api/instance/start")
    problem(answer, 405)
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize("path", POSTS)
async def test_a_body_that_is_too_large_is_413(world: World, caller: httpx.AsyncClient, path: str) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(MOST_BYTES // 1024 + 1):
            yield b" " * 1024

    problem(await caller.post(path, content=b" " * (MOST_BYTES + 1), headers=JSON), 413)
    problem(await caller.post(path, content=pieces(), headers=JSON), 413)
    assert world.controller.asked == []


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", "", "é"])
async def test_a_body_that_does_not_say_it_is_json_is_415(world: World, caller: httpx.AsyncClient, kind: str) -> None:
    headers = {b"content-type": kind.encode("latin-1")}
    problem(await caller.post("/api/instance/stop", content=b'{"mode": "now"}', headers=headers), 415)
    assert world.controller.asked == []


async def test_a_charset_beside_the_type_does_no_harm(world: World, caller: httpx.AsyncClient) -> None:
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    assert (await caller.post("/api/instance/stop", content=b"{}", headers=headers)).status_code == 200


async def test_a_wrong_shape_is_422_with_the_place_and_without_what_was_sent(
    world: World, caller: httpx.AsyncClient
) -> None:
    for body in (
        {},
        {"password": None},
        {"password": ["s3cret"]},
        ["s3cret"],
        "s3cret",
        None,
        {"password": "s3cret" * 999},
    ):
        answer = await caller.post("/api/auth/login", json=body)
        assert problem(answer, 422)["errors"][0]["where"].startswith("body")
        assert "s3cret" not in answer.text


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    garbage=st.binary(max_size=200)
    | st.sampled_from([b"[" * 60_000, b'{"a":' * 12_000, b"\xff\xfe", b"NaN", b'{"password": "\\ud800"}', b"1" * 9999])
)
async def test_no_body_whatsoever_breaks_anything(world: World, caller: httpx.AsyncClient, garbage: bytes) -> None:
    for path in POSTS:
        answer = await caller.post(path, content=garbage, headers=JSON)
        assert answer.status_code in {200, 400, 401, 422, 429}
        if answer.status_code != 200:
            problem(answer, answer.status_code)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.just("minutes"), inner, max_size=3),
        max_leaves=5,
    )
)
async def test_only_a_number_within_bounds_ever_extends_the_machine(
    world: World, caller: httpx.AsyncClient, value: Any
) -> None:
    world.controller.asked.clear()
    for body in (value, {"minutes": value}):
        await caller.post("/api/instance/extend", content=json.dumps(body), headers=JSON)
    for _, minutes in world.controller.asked:
        assert isinstance(minutes, float)
        assert 1 <= minutes <= 120


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    path=st.text(st.characters(codec="utf-8"), max_size=30),
    headers=st.dictionaries(
        st.sampled_from(
            [b"cookie", b"authorization", b"origin", b"x-auth-token", b"if-none-match", b"x-forwarded-for"]
        ),
        st.binary(max_size=60).map(lambda value: value.replace(b"\r", b"").replace(b"\n", b"").replace(b"\0", b"")),
    ),
)
async def test_no_address_and_no_header_breaks_anything(
    world: World, stranger: httpx.AsyncClient, path: str, headers: dict[bytes, bytes]
) -> None:
    url = httpx.URL("http://localhost:3000", raw_path=b"/api/" + path.encode().hex("%")[:60].encode())
    for where in (url, "/api/instance/status", "/api/instance/start", "/readyz"):
        answer = await stranger.request("POST", where, headers=headers)
        assert answer.status_code in {401, 405}


async def test_an_unforeseen_failure_is_500_with_an_id_that_the_log_explains(
    world: World, caller: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    world.controller.refusal = ZeroDivisionError("the secret of the house")
    with caplog.at_level(logging.ERROR):
        answer = await caller.post("/api/instance/start")
    request_id = problem(answer, 500)["request_id"]
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    assert request_id in caplog.text
    assert "the secret of the house" in caplog.text


async def _lost(message: list[Message], sent: list[Message], most_seconds: float) -> None:
    """Send these messages as a client does, and then nothing more."""

    async def receive() -> Message:
        if not message:
            await asyncio.Event().wait()
        return message.pop(0)

    async def send(answer: Message) -> None:
        sent.append(answer)

    async def never(*_: Any) -> None:
        raise AssertionError

    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": "/", "headers": []}
    await BodyLimit(never, most_seconds=most_seconds)(scope, receive, send)


async def test_a_body_that_never_ends_is_given_up() -> None:
    sent: list[Message] = []
    await _lost([{"type": "http.request", "body": b"{", "more_body": True}], sent, most_seconds=0)
    assert sent[0]["status"] == 408


async def test_a_client_that_leaves_while_it_sends_gets_no_answer() -> None:
    sent: list[Message] = []
    half: list[Message] = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
    await _lost(half, sent, most_seconds=60)
    assert sent == []
