"""A whole comfyweb for measuring: the cloud in a box, a meter on the wire to it, and the app as production runs it."""

import asyncio
import json
import os
import re
import signal
import socket
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from comfyweb.demo.launch import app_environment, taken

PASSWORD = "measure-for-measure"  # noqa: S105 - of apps that live for a minute, on loopback
FIRST_PORT, LAST_PORT = 4600, 5600
PATIENCE = 60.0
CLIENTS = "127.0.0.1"


@dataclass(slots=True)
class Meter:
    """Counts the requests that pass on the wire to Compute Engine."""

    target: int
    calls: int = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Hand one connection on."""
        there, back = await asyncio.open_connection(CLIENTS, self.target)
        await asyncio.gather(self._pass(reader, back, count=True), self._pass(there, writer, count=False))

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, count: bool) -> None:
        try:
            while data := await source.read(65536):
                if count:
                    self.calls += len(re.findall(rb"^[A-Z]+ /\S* HTTP/1\.1\r$", data, re.MULTILINE))
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.close()


class Site:
    """One app with its cloud."""

    def __init__(self, port: int, meter: Meter, app: Process, environment: dict[str, str]) -> None:
        self.port = port
        self.url = f"http://localhost:{port}"
        self.comfyui = f"http://localhost:{port + 2}"
        self.meter = meter
        self.environment = environment
        self.app = app
        self.token = ""

    @property
    def client(self) -> httpx.AsyncClient:
        """Return a client that is logged in."""
        return httpx.AsyncClient(base_url=self.url, headers={"x-auth-token": self.token}, timeout=30)

    def pss_kilobytes(self) -> int:
        """Return what the app's processes hold of memory, shared pages divided among those who share them."""
        found = 0
        for pid in _family(self.app.pid):
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text("utf-8")
            found += int(re.findall(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)[0])
        return found

    def cpu_seconds(self) -> float:
        """Return the processor time that the app's processes have taken so far."""
        ticks = 0
        for pid in _family(self.app.pid):
            fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def site(module: str = "comfyweb", *, fast: bool = True) -> AsyncGenerator[Site]:
    """Run an app, logged in and settled, and end it.

    `module` is run in place of `python -m comfyweb`; without `fast` the cloud takes its time as in `make run`.
    """
    port = next(p for p in range(FIRST_PORT, LAST_PORT, 4) if not taken([p, p + 1, p + 2, p + 3]))
    meter = Meter(target=port + 1)
    wire = await asyncio.start_server(meter, CLIENTS, port + 3)
    with tempfile.TemporaryDirectory(prefix="comfyweb-bench-") as folder:
        demo = await start("comfyweb.demo", dict(os.environ), "--port", str(port + 1), *(["--fast"] if fast else []))
        environment = app_environment(os.environ, port=port, password=PASSWORD, folder=Path(folder))
        environment["COMPUTE_ENDPOINT"] = f"http://{CLIENTS}:{port + 3}"
        app = await start(module, environment)
        try:
            made = Site(port, meter, app, environment)
            await answers(port, "/healthz", app)
            async with made.client as client:
                made.token = (await client.post("/api/auth/login", json={"password": PASSWORD})).json()["token"]
            await settled(made, "off")
            yield made
        finally:
            await end(app)
            await end(demo)
            wire.close()


async def settled(where: Site, phase: str) -> None:
    """Return when the machine's phase is this one."""
    async with (
        where.client as client,
        asyncio.timeout(PATIENCE),
        client.stream("GET", "/api/instance/events") as events,
    ):
        async for line in events.aiter_lines():
            if line.startswith("data: ") and json.loads(line.removeprefix("data: "))["phase"] == phase:
                return


async def start(module: str, environment: dict[str, str], *arguments: str, talks: bool = False) -> Process:
    """Start a module of Python in a process of its own; with `talks` its output can be read."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *arguments,
        env=environment,
        stdin=PIPE if talks else DEVNULL,
        stdout=PIPE if talks else DEVNULL,
        stderr=None if talks else DEVNULL,
        start_new_session=True,
        limit=2**24,
    )


async def end(process: Process) -> None:
    """End a process that `start` has started, and what it has started."""
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(15):
                await process.wait()
        except TimeoutError:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def answers(port: int, path: str, process: Process) -> float:
    """Return the moment (of the monotonic clock) at which a path was first answered with 200."""
    async with asyncio.timeout(PATIENCE):
        while True:
            if process.returncode is not None:
                raise RuntimeError(f"the process ended with code {process.returncode}")
            if await asyncio.to_thread(_asked, port, path):
                return time.monotonic()
            await asyncio.sleep(0.005)


def _asked(port: int, path: str) -> bool:
    try:
        with socket.create_connection((CLIENTS, port), 5) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n".encode())
            return b" 200 " in connection.recv(1024).partition(b"\r\n")[0]
    except OSError:
        return False


def _family(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    found = [pid]
    for parent in found:
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text("utf-8")
        found += [int(child) for child in children.split()]
    return found
