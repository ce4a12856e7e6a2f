"""A gate in the test's own process: real sockets, the app's real signatures, clocks that the test moves."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.demo.standin_machine import APP, AUDIENCE, App, Clocks, until
from tests.gate.comfyui import ComfyUI, comfyui
from tests.memory import memory
from vm_setup.base import files
from vm_setup.base.paths import Paths
from vm_setup.gate.daemon import Gate
from vm_setup.gate.world import World
from vm_setup.host.gate import Told
from vm_setup.host.tokens import Trust, read_keys


@dataclass
class Answer:
    """What the gate answered."""

    status: int
    headers: dict[str, str]

    @property
    def cookie(self) -> str:
        """The cookie that it sets, as a browser sends it."""
        return self.headers.get("set-cookie", "").partition(";")[0]


@dataclass
class Gating:
    """A machine with a gate, and a keeper that says what the test wants it to."""

    root: Path
    comfyui: ComfyUI
    clocks: Clocks = field(default_factory=Clocks)
    told: Told = field(default_factory=Told)
    _gate: Gate | None = None
    _task: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        self.app = App(self.clocks, APP)
        files.write(self.root / "proc/sys/kernel/random/boot_id", "boot-1\n")
        self.world.paths.gate.mkdir(parents=True)
        trust = Trust(issuer=APP, audience=AUDIENCE, keys=read_keys(self.app.jwks))
        self.say(trust=trust, ready=True)

    @property
    def world(self) -> World:
        """What the gate works with."""
        paths = Paths(root=self.root, kernel=self.root)
        return World(paths=paths, now=self.clocks.now, comfyui=("127.0.0.1", self.comfyui.port), every=0.01)

    def say(self, **changes: Any) -> None:
        """Let the keeper say this from now on."""
        self.told = replace(self.told, at=self.clocks.now().boot, **changes)
        files.write(self.world.told, json.dumps(self.told.to_json()), durable=False)

    def revoke(self, session: str) -> None:
        """Let the keeper tell of a revoke."""
        self.say(revoked={**self.told.revoked, session: self.clocks.now().wall + 3600})

    async def heard(self) -> None:
        """Wait until the gate has heard what was said last, and has acted."""
        looks = self.clocks.looks
        await until(lambda: asyncio.sleep(0, self.clocks.looks > looks + 10))

    async def start(self) -> None:
        """Start the gate."""
        self.world.tunnels.unlink(missing_ok=True)
        self._gate = Gate(self.world)
        self._task = asyncio.create_task(self._gate.run())
        await until(lambda: asyncio.sleep(0, self.world.tunnels.exists()))

    async def stop(self) -> None:
        """End it as SIGTERM does; its memory stays."""
        if self._gate is not None and self._task is not None:
            self._gate.stop()
            await self._task
        self._gate = None

    async def kill(self) -> None:
        """End it as SIGKILL does, with nothing saved at the end."""
        gate, self._gate = self._gate, None
        assert gate is not None
        assert self._task is not None
        gate._save = lambda: True
        gate.stop()
        await self._task

    async def call(self, target: str, method: str = "GET", **headers: str) -> Answer:
        """Ask as nginx does; underscores in header names stand for dashes."""
        reader, writer = await asyncio.open_unix_connection(self.world.calls)
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        writer.write(f"{method} {target} HTTP/1.1\r\nHost: gate\r\n{lines}\r\n".encode("latin-1"))
        try:
            return await read_answer(reader)
        finally:
            writer.close()

    async def enter(self, ticket: str | None = None, **headers: str) -> Answer:
        """Come in with a ticket."""
        return await self.call(f"/enter?ticket={self.app.ticket() if ticket is None else ticket}", **headers)

    async def verify(self, cookie: str = "", method: str = "GET", uri: str = "/", **headers: str) -> Answer:
        """Ask whether a request may go to ComfyUI."""
        about = {"X_Original_Method": method, "X_Original_URI": uri}
        return await self.call("/verify", **({"Cookie": cookie} if cookie else {}), **about, **headers)

    async def closed(self, cookie: str = "", **about: str) -> str | None:
        """Return why a request may not go to ComfyUI; None when it may."""
        answer = await self.verify(cookie, **about)
        return None if answer.status == 204 else answer.headers["x-comfyweb-closed"]

    async def websocket(self, cookie: str = "", target: str = "/ws?clientId=1", **headers: str) -> "Socket":
        """Hand over a websocket as nginx does."""
        reader, writer = await asyncio.open_unix_connection(self.world.tunnels)
        all_headers = {
            "Host": "comfy.example.com",
            "Upgrade": "websocket",
            "Connection": "upgrade",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Version": "13",
            "Cookie": cookie,
            **headers,
        }
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in all_headers.items())
        writer.write(f"GET {target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1"))
        return Socket(reader, writer, await read_answer(reader))


@dataclass
class Socket:
    """A websocket that was asked for."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    answer: Answer

    async def is_open(self) -> bool:
        """Whether ComfyUI hears what is said and answers."""
        payload = b"hello"
        mask = b"\x00\x00\x00\x00"
        try:
            self.writer.write(bytes([0x81, 0x80 | len(payload)]) + mask + payload)
            return await asyncio.wait_for(self.reader.readexactly(2 + len(payload)), 5) == b"\x81\x05hello"
        except (OSError, asyncio.IncompleteReadError):
            return False

    async def ends(self) -> bool:
        """Wait until the other side has ended it; nothing more came."""
        try:
            return await asyncio.wait_for(self.reader.read(1), 10) == b""
        except ConnectionError:
            return True


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """Read the head of an answer; status 0 when the connection was ended instead."""
    try:
        raw = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    except (asyncio.IncompleteReadError, ConnectionError):
        return Answer(0, {})
    first, *lines = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    return Answer(int(first.split(" ")[1]), headers)


@asynccontextmanager
async def gating(before: Callable[[Gating], None] = lambda _: None) -> AsyncGenerator[Gating]:
    """Run a gate in front of a ComfyUI; `before` prepares what there is when it starts.

    In a folder of its own: the path of a socket may have 107 characters, fewer than some tests' folders.
    """
    with TemporaryDirectory(prefix="gate-", dir=memory()) as folder:
        async with comfyui() as inside:
            made = Gating(Path(folder), inside)
            before(made)
            await made.start()
            try:
                yield made
            finally:
                await made.stop()
