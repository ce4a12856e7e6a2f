"""Idle connections make room when there is little: those of whoever holds most."""

import asyncio
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope, Send

from comfyweb.ui import idle
from comfyweb.ui.idle import FILES_BESIDE, PLACES, Idle, fair_share, places

SOME = 40


@given(st.lists(st.integers(0, 100), max_size=20), st.integers(0, 300))
def test_a_fair_share_fits_and_could_not_be_larger(numbers: list[int], most: int) -> None:
    share = fair_share(numbers, most)
    assert sum(min(number, share) for number in numbers) <= most
    assert share >= max(numbers, default=0) or sum(min(number, share + 1) for number in numbers) > most


@pytest.mark.parametrize(
    ("limits", "held", "asked_for"),
    [
        ((1024, 1_048_576), PLACES, PLACES + FILES_BESIDE),
        ((1024, resource.RLIM_INFINITY), PLACES, PLACES + FILES_BESIDE),
        ((1024, 4096), 4096 - FILES_BESIDE, 4096),
        ((1024, 1024), 1024 - FILES_BESIDE, None),
        ((65536, 65536), PLACES, None),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), PLACES, None),
        ((64, 64), 1, None),
    ],
)
def test_it_holds_as_many_connections_as_leave_files_for_the_rest(
    limits: tuple[int, int], held: int, asked_for: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_to: list[int] = []

    def get(which: int) -> tuple[int, int]:
        return limits

    def put(which: int, pair: tuple[int, int]) -> None:
        set_to.append(pair[0])

    monkeypatch.setattr(resource, "getrlimit", get)
    monkeypatch.setattr(resource, "setrlimit", put)
    assert places() == held
    assert set_to == ([] if asked_for is None else [asked_for])


class Served:
    """Real connections to a real port of this process."""

    def __init__(self, opened: ExitStack) -> None:
        self._opened = opened
        self.listener = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=SOME))
        self.port = int(self.listener.getsockname()[1])

    def come(self, address: str, number: int) -> list[tuple[socket.socket, tuple[str, int]]]:
        """Connect so often from this address; return the clients' ends with their names."""
        clients: list[tuple[socket.socket, tuple[str, int]]] = []
        for _ in range(number):
            client = self._opened.enter_context(socket.create_connection(("127.0.0.1", self.port), 5, (address, 0)))
            self._opened.enter_context(self.listener.accept()[0])
            clients.append((client, client.getsockname()))
        return clients


def open_among(clients: list[tuple[socket.socket, tuple[str, int]]]) -> int:
    """Count those that nobody has cut off."""
    number = 0
    for client, _ in clients:
        client.settimeout(0)
        with suppress(BlockingIOError):
            assert client.recv(1) == b""
            continue
        number += 1
    return number


@pytest.fixture
def served() -> Iterator[Served]:
    with ExitStack() as opened:
        yield Served(opened)


async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError


@pytest.mark.skipif(not idle.FILES.is_dir(), reason="only Linux tells a process its open files")
def test_who_holds_most_loses_what_is_idle_and_nobody_else(served: Served) -> None:
    most, few = served.come("127.0.0.2", 30), served.come("127.0.0.3", 4)
    busy = [most[3][1], most[7][1]]
    cut = Idle(nothing, port=served.port, places=SOME).make_room(busy)
    assert cut == 14, "half of the places, less the four of the other network, are 16"
    assert open_among(few) == 4
    assert open_among(most) == 16
    assert open_among([most[3], most[7]]) == 2


@pytest.mark.skipif(not idle.FILES.is_dir(), reason="only Linux tells a process its open files")
def test_room_is_made_although_hardly_a_file_is_free(served: Served) -> None:
    come = served.come("127.0.0.2", 40)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(int(file.name) for file in idle.FILES.iterdir()) + 3, before[1]))
    try:
        assert Idle(nothing, port=served.port, places=SOME).make_room([]) == 40 - SOME // 2
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert open_among(come) == SOME // 2


@pytest.mark.skipif(not idle.FILES.is_dir(), reason="only Linux tells a process its open files")
def test_nothing_else_that_is_open_is_touched(served: Served) -> None:
    one, other = socket.socketpair()
    with one, other, served.listener, socket.create_server(("127.0.0.1", 0)) as elsewhere:
        near = socket.create_connection(elsewhere.getsockname(), 5)
        far = elsewhere.accept()[0]
        before = len(list(idle.FILES.iterdir()))
        with near, far:
            assert Idle(nothing, port=served.port, places=0).make_room([]) == 0
            far.sendall(b"x")
            assert near.recv(1) == b"x"
            one.sendall(b"x")
            assert other.recv(1) == b"x"
            assert len(list(idle.FILES.iterdir())) == before


async def test_a_connection_is_busy_while_its_request_is_in_progress() -> None:
    go = asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await go.wait()

    layer = Idle(slow, port=1, places=SOME)
    scope: Scope = {"type": "http", "client": ("192.0.2.1", 5)}
    asked = [asyncio.create_task(layer(scope, _silence, _nowhere)) for _ in range(2)]
    await asyncio.sleep(0)
    assert set(layer._busy) == {("192.0.2.1", 5)}
    go.set()
    await asyncio.gather(*asked, layer({"type": "lifespan"}, _silence, _nowhere))
    assert not layer._busy


async def _silence() -> Message:
    raise AssertionError


async def _nowhere(message: Message) -> None:
    raise AssertionError
