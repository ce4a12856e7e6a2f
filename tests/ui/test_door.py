"""A websocket may say what a page of ours says, and nothing else: neither to a handler nor into the log."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reflex_base.config import get_config
from starlette.types import Message, Receive, Scope, Send

from comfyweb.ui import door
from comfyweb.ui.live import TAB
from tests.ui.conftest import TOKEN_VAR

JOIN = {"name": f"{TAB}.join", "payload": {}, "router_data": {"pathname": "/", "asPath": "/", "query": {}}}
JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def test_what_a_page_sends_goes_through() -> None:
    assert door.known(JOIN) == JOIN


def test_of_a_browsers_storage_only_what_we_put_there_is_kept() -> None:
    said = JOIN | {"name": "reflex___state____state.hydrate_and_load", "payload": {"vars": {"": 1, door.STORED: "T"}}}
    event = door.known(said)
    assert event is not None
    assert event["payload"] == {"vars": {door.STORED: "T"}}
    assert door.STORED == TOKEN_VAR


def test_of_what_a_tab_says_about_its_address_only_what_is_read_is_kept() -> None:
    said = JOIN | {"router_data": {"pathname": "/", "headers": {"cookie": "x"}, "ip": "1.2.3.4"}}
    event = door.known(said)
    assert event is not None
    assert event["router_data"] == {"pathname": "/"}


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        (f"{TAB}.login", {"form": {"password": "x"}}),
        (f"{TAB}.dismiss", {"notice": "x"}),
        (f"{TAB}.stop_now", {}),
        ("reflex___state____state.hydrate_and_load", {"vars": {"x": 1}}),
        ("reflex___state____state.set_is_hydrated", {"value": True}),
    ],
)
def test_whatever_a_page_sends_goes_through(name: str, payload: dict[str, object]) -> None:
    assert door.known(JOIN | {"name": name, "payload": payload}) is not None


@pytest.mark.parametrize(
    "garbage",
    [
        "x\n2026-01-01 WARNING forged",
        {},
        JOIN | {"name": "no.such"},
        JOIN | {"name": 5},
        JOIN | {"payload": "x"},
        JOIN | {"payload": {"x": 1}},
        JOIN | {"name": f"{TAB}.login"},
        JOIN | {"name": f"{TAB}.login", "payload": {"form": "x"}},
        JOIN | {"name": f"{TAB}.dismiss", "payload": {"notice": ["x"]}},
        JOIN | {"name": f"{TAB}.setvar", "payload": {"var_name": "token", "value": "x"}},
        JOIN | {"name": "reflex___state____state.setvar", "payload": {"var_name": "token", "value": "x"}},
        JOIN | {"name": "reflex___state____state.set_is_hydrated", "payload": {"value": None}},
        JOIN | {"router_data": []},
        JOIN | {"router_data": {"pathname": {"a": 1}}},
        JOIN | {"router_data": {"asPath": 5}},
        JOIN | {"router_data": {"query": 5}},
        JOIN | {"router_data": {"pathname": "/" * 3000}},
    ],
)
def test_anything_else_is_refused(garbage: object) -> None:
    assert door.known(garbage) is None


@given(JSON, st.dictionaries(st.sampled_from(["name", "payload", "router_data"]), JSON))
def test_no_value_is_too_strange_to_be_refused(value: object, event: dict[str, object]) -> None:
    assert door.known(value) is None
    door.known(JOIN | event)


class Namespace:
    """What `shut` replaces of Reflex's namespace; notes what reached it."""

    def __init__(self) -> None:
        self.handled: list[Any] = []
        self.gone: list[str] = []

    async def on_event(self, sid: str, data: Any) -> None:
        self.handled.append(data)

    async def on_client_error(self, sid: str, data: Any = None) -> None:
        self.handled.append(data)

    def on_disconnect(self, sid: str) -> None:
        self.gone.append(sid)

    async def disconnect(self, sid: str) -> None:
        self.gone.append(sid)

    def _build_static_router_data(self, sid: str, environ: dict[str, Any]) -> dict[str, Any]:
        return {"session_id": sid, "headers": {"cookie": "auth-token=secret", "host": "localhost"}}


async def test_a_connection_that_talks_nonsense_is_ended_and_nobody_hears_it() -> None:
    namespace = Namespace()
    door.shut(namespace)  # pyright: ignore[reportArgumentType] - only what is replaced of it
    await namespace.on_event("a", JOIN)
    await namespace.on_event("b", "nonsense")
    await namespace.on_event("c")  # pyright: ignore[reportCallIssue] - as strangers do
    await namespace.on_event("d", JOIN, JOIN)  # pyright: ignore[reportCallIssue] - as strangers do
    await namespace.on_client_error("e", {"message": "x" * 9000})
    assert namespace.handled == [JOIN]
    assert namespace.gone == ["b", "c", "d"]


def test_nobodys_cookies_and_tokens_are_kept_with_a_tab() -> None:
    namespace = Namespace()
    door.shut(namespace)  # pyright: ignore[reportArgumentType] - only what is replaced of it
    assert namespace._build_static_router_data("a", {})["headers"] == {"cookie": "", "host": "localhost"}


async def test_who_talks_faster_than_a_page_could_is_cut_off() -> None:
    namespace, now = Namespace(), [0.0]
    door.shut(namespace, lambda: now[0])  # pyright: ignore[reportArgumentType] - only what is replaced of it
    for _ in range(door.EVENTS_AT_ONCE):
        await namespace.on_event("a", JOIN)
    assert namespace.gone == []
    await namespace.on_event("a", JOIN)
    assert namespace.gone == ["a"]
    await namespace.on_event("b", JOIN)
    now[0] = 1.0
    await namespace.on_event("a", JOIN)
    assert len(namespace.handled) == door.EVENTS_AT_ONCE + 2


async def test_of_who_has_gone_nothing_is_remembered() -> None:
    namespace = Namespace()
    door.shut(namespace, lambda: 0.0)  # pyright: ignore[reportArgumentType] - only what is replaced of it
    for _ in range(2):
        for _ in range(door.EVENTS_AT_ONCE):
            await namespace.on_event("a", JOIN)
        namespace.on_disconnect("a")
    assert len(namespace.handled) == 2 * door.EVENTS_AT_ONCE


@pytest.mark.parametrize(("claimed", "address"), [(b"6.6.6.6, 203.0.113.7", "203.0.113.7"), (b"x", "192.0.2.1")])
def test_the_websocket_reads_forwarded_addresses_as_rest_does(
    claimed: bytes, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(get_config(), "trusted_proxy_hops", 1)
    namespace = Namespace()
    door.shut(namespace)  # pyright: ignore[reportArgumentType] - only what is replaced of it
    scope = {"client": ("192.0.2.1", 5), "headers": [(b"x-forwarded-for", claimed)]}
    assert namespace._build_static_router_data("a", {"asgi.scope": scope})["ip"] == address


@pytest.mark.parametrize(
    ("frame", "heard"),
    [
        ({"text": "3"}, "websocket.receive"),
        ({"text": "42/_event,[]", "bytes": None}, "websocket.receive"),
        ({"text": "\u00ec"}, "websocket.disconnect"),
        ({"text": "x"}, "websocket.disconnect"),
        ({"text": ""}, "websocket.disconnect"),
        ({"bytes": b"4"}, "websocket.disconnect"),
    ],
)
async def test_a_frame_that_is_no_packet_ends_the_connection(frame: dict[str, Any], heard: str) -> None:
    got: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        got.append((await receive())["type"])

    async def receive() -> Message:
        return {"type": "websocket.receive", **frame}

    async def send(message: Message) -> None:
        raise AssertionError

    await door.Frames(app)({"type": "websocket"}, receive, send)
    assert got == [heard]


async def test_whatever_breaks_on_a_frame_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("planted")

    async def nothing(*_: Message) -> Message:
        raise AssertionError

    await door.Frames(app)({"type": "websocket"}, nothing, nothing)  # pyright: ignore[reportArgumentType] - is not called
    assert caplog.messages == ["a websocket was ended: ValueError"]
