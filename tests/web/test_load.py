"""Many tabs at once, and tabs that behave badly: one start for all of them, and nobody waits for another's tab."""

import asyncio
import json
import struct
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from socket import SO_LINGER, SO_RCVBUF, SOL_SOCKET, socket

import httpx
import pytest

from bench.tabs import Tab
from tests.launching import PATIENCE, REQUIRED, ROOT, Program, children, free_ports

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / ".web/build/client/index.html").exists(), reason="the page is not built"),
]
PASSWORD = REQUIRED["AUTH_PASSWORD"]
TABS = 45
CHANGES = 1500
VANISHING = 40  # fewer event streams than one login may have


async def token_of(port: int) -> str:
    async with httpx.AsyncClient(base_url=f"http://localhost:{port}") as client:
        return (await client.post("/api/auth/login", json={"password": PASSWORD})).json()["token"]


async def tab(port: int, token: str, *, receive_bytes: int | None = None) -> Tab:
    """Open a tab; with `receive_bytes` its computer takes no more than that off the network at a time."""
    connection = socket()
    if receive_bytes:
        connection.setsockopt(SOL_SOCKET, SO_RCVBUF, receive_bytes)
    connection.setblocking(False)  # noqa: FBT003 - socket's own signature
    loop = asyncio.get_running_loop()
    await loop.sock_connect(connection, ("127.0.0.1", port))
    _, opened = await loop.create_connection(lambda: Tab(port, token), sock=connection)
    await opened.hydrated
    return opened


async def soon(holds: Callable[[], object], words: str) -> None:
    """Wait until it holds."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not holds():
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(words)


def shows(opened: Tab, phase: str) -> bool:
    return f'"phase":"{phase}"'.encode() in opened.newest.replace(b" ", b"")


@asynccontextmanager
async def demo() -> AsyncGenerator[int]:
    """`make run`, with a cloud that takes no time."""
    port = free_ports(3)
    environ = {"PORT": str(port), "AUTH_PASSWORD": PASSWORD}
    with Program("-m", "comfyweb.demo.launch", "--fast", environ=environ) as program:
        await asyncio.to_thread(program.says, "Ctrl-C")
        yield port


async def operations(port: int, kind: str) -> int:
    async with httpx.AsyncClient() as client:
        state = (await client.get(f"http://localhost:{port + 1}/control")).json()
    return sum(operation["operationType"] == kind for operation in state["operations"])


async def test_a_start_from_45_tabs_at_once_is_one_start_and_a_stop_from_45_programs_is_one_stop() -> None:
    async with demo() as port:
        token = await token_of(port)
        tabs = await asyncio.gather(*(tab(port, token) for _ in range(TABS)))
        for opened in tabs:
            opened.click("start")
        await soon(lambda: all(shows(opened, "ready") for opened in tabs), "a tab never saw the machine ready")
        assert await operations(port, "start") == 1

        async with httpx.AsyncClient(base_url=f"http://localhost:{port}", headers={"x-auth-token": token}) as client:
            asked = [client.post("/api/instance/stop", json={"mode": "now"}) for _ in range(TABS)]
            answers = await asyncio.gather(*asked)
        assert {answer.status_code for answer in answers} == {200}
        await soon(lambda: all(shows(opened, "off") for opened in tabs), "a tab never saw the machine off")
        assert await operations(port, "stop") == 1


@asynccontextmanager
async def measured(tmp_path: Path) -> AsyncGenerator[tuple[int, int]]:
    """Serve the app with the path that publishes a change; gives the port and the process that serves."""
    port = free_ports()
    environ = REQUIRED | {
        "PORT": str(port),
        "DATABASE_URL": f"sqlite:///{tmp_path / 'c.db'}",
        "COMPUTE_ENDPOINT": "http://127.0.0.1:1",
    }
    with Program("-m", "bench.served", environ=environ) as program:
        await asyncio.to_thread(program.answers, f"http://localhost:{port}/healthz")
        [worker] = children(program.pid)
        yield port, worker


def sockets(pid: int) -> int:
    """Count the connections that a process holds."""
    found = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found += str(entry.readlink()).startswith("socket:")
        except FileNotFoundError:
            continue
    return found


async def test_a_tab_that_reads_nothing_holds_up_nobody_and_is_let_go(tmp_path: Path) -> None:
    async with measured(tmp_path) as (port, worker):
        token = await token_of(port)
        busy = await tab(port, token)
        before = sockets(worker)
        deaf = await tab(port, token, receive_bytes=4096)
        deaf.stop_reading()
        async with httpx.AsyncClient(base_url=f"http://localhost:{port}") as client:
            for _ in range(CHANGES):
                (await client.post("/bench/publish")).raise_for_status()
        await soon(lambda: len(busy.delays) == CHANGES, "a tab missed changes because of another")
        assert not deaf.delays
        await soon(lambda: sockets(worker) <= before, "the tab that reads nothing is still held")
        assert not busy.lost.is_set()


async def test_tabs_and_streams_that_vanish_without_a_word_are_forgotten(tmp_path: Path) -> None:
    async with measured(tmp_path) as (port, worker):
        token = await token_of(port)
        before = sockets(worker)
        tabs = [await tab(port, token) for _ in range(VANISHING)]
        streams = [await stream(port, token) for _ in range(VANISHING)]
        held = sockets(worker)
        for opened in tabs:
            opened.vanish()
        for writer in streams:
            raw = writer.get_extra_info("socket")
            raw.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        # What an earlier request has left may have ended since `before`, so they are counted as they go.
        rest = min(before, held - 2 * VANISHING)
        await soon(lambda: sockets(worker) <= rest, "what has vanished is still held")


async def stream(port: int, token: str) -> asyncio.StreamWriter:
    """Open an event stream and wait for its first event."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        f"GET /api/instance/events HTTP/1.1\r\nHost: localhost:{port}\r\nX-Auth-Token: {token}\r\n\r\n".encode()
    )
    while b"data: " not in (line := await reader.readline()):
        assert line, "the stream ended"
    assert json.loads(line.partition(b"data: ")[2])
    return writer
