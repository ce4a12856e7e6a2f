"""However many websockets strangers open, there is room for one more, and whoever is logged in keeps his."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from comfyweb.ui.crowd import Crowd, trust

ONE_NETWORK, IN_ALL = 3, 6


class Door:
    """A crowd before an app that holds every websocket until it ends; `inside` are the names of those it holds."""

    def __init__(self, hops: int = 0) -> None:
        self.inside: dict[str, Scope] = {}
        self.crowd = Crowd(self._hold, hops, of_one_network=ONE_NETWORK, in_all=IN_ALL)
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, name: str, address: str = "192.0.2.1", forwarded: str = "") -> None:
        headers = [(b"x-forwarded-for", forwarded.encode())] if forwarded else []
        scope: Scope = {"type": "websocket", "client": (address, 1), "headers": headers, "name": name}
        self.tasks[name] = asyncio.create_task(self.crowd(scope, _silence, _nowhere))
        await _settled()

    async def leave(self, name: str) -> None:
        self.tasks[name].cancel()
        await asyncio.gather(self.tasks[name], return_exceptions=True)

    async def _hold(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.inside[scope["name"]] = scope
        try:
            while (await receive())["type"] != "websocket.disconnect":
                pass
        finally:
            del self.inside[scope["name"]]


async def _silence() -> Message:
    await asyncio.Event().wait()
    raise AssertionError


async def _nowhere(message: Message) -> None:
    del message


async def _settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    made = Door()
    yield made
    for name in list(made.tasks):
        await made.leave(name)


async def test_of_one_network_the_oldest_goes(door: Door) -> None:
    for n in range(ONE_NETWORK + 2):
        await door.come(f"{n}")
    assert list(door.inside) == ["2", "3", "4"]
    assert door.tasks["0"].done()


async def test_in_all_the_oldest_of_the_network_that_holds_most_goes(door: Door) -> None:
    await door.come("owner", "203.0.113.7")
    for n in range(ONE_NETWORK):
        await door.come(f"a{n}", "198.51.100.1")
        await door.come(f"b{n}", "198.51.100.2")
    await door.come("another", "198.51.100.3")
    assert "owner" in door.inside
    assert "another" in door.inside
    assert len(door.inside) == IN_ALL


async def test_an_ipv6_household_is_one_network(door: Door) -> None:
    for n in range(ONE_NETWORK + 2):
        await door.come(f"{n}", f"2001:db8::{n}")
    assert len(door.inside) == ONE_NETWORK


async def test_behind_a_proxy_a_network_is_what_the_proxy_says() -> None:
    door = Door(hops=1)
    for n in range(ONE_NETWORK + 2):
        await door.come(f"{n}", "10.0.0.1", f"192.0.2.66, 198.51.100.{n}")
    assert len(door.inside) == ONE_NETWORK + 2
    for name in list(door.tasks):
        await door.leave(name)


async def test_who_is_logged_in_stays_and_counts_no_more(door: Door) -> None:
    await door.come("owner")
    trust(door.inside["owner"], logged_in=True)
    for n in range(IN_ALL * 2):
        await door.come(f"{n}")
    assert "owner" in door.inside
    assert len(door.inside) == ONE_NETWORK + 1


async def test_who_is_logged_out_is_a_stranger_again(door: Door) -> None:
    await door.come("was owner")
    scope = door.inside["was owner"]
    for logged_in in (True, True, False, False):
        trust(scope, logged_in=logged_in)
    for n in range(ONE_NETWORK):
        await door.come(f"{n}")
    assert list(door.inside) == ["0", "1", "2"]


async def test_who_has_gone_makes_room(door: Door) -> None:
    for n in range(IN_ALL * 3):
        await door.come(f"{n}")
        await door.leave(f"{n}")
    for name in ("a", "b", "c"):
        await door.come(name)
    assert list(door.inside) == ["a", "b", "c"]
    assert door.crowd._number == ONE_NETWORK


async def test_what_is_no_websocket_is_not_counted(door: Door) -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    crowd = Crowd(app, 0, of_one_network=1, in_all=1)
    for _ in range(3):
        await crowd({"type": "http", "client": ("192.0.2.1", 1), "headers": []}, _silence, _nowhere)
    assert seen == ["http"] * 3
    trust({"type": "websocket"}, logged_in=True)  # one that no crowd has counted
