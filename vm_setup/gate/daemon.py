"""`comfyweb.pyz gate`: answers nginx on two sockets that only nginx can open, and carries the websockets.

`calls` is asked for every request (`/verify`, nginx's auth_request) and with every ticket (`/enter`). `tunnels` gets
each websocket as the browser sent it. What the keeper says is looked at five times a second.
"""

import asyncio
import contextlib
import json
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from vm_setup.base import files
from vm_setup.base.clocks import boot_id
from vm_setup.base.processes import notify
from vm_setup.base.signatures import verifier
from vm_setup.gate import tunnel
from vm_setup.gate.porter import Porter
from vm_setup.gate.wire import HEAD_LIMIT, Head, NotPlain, answer, has_body, read_head
from vm_setup.gate.world import World
from vm_setup.host import cookies, tokens
from vm_setup.host.gate import Closed, Told, source_of

_LOG = logging.getLogger(__name__)
_SAVE_EVERY_SECONDS = 5.0
_SAY_EVERY_SECONDS = 1.0
_HANG_UP_SECONDS = 2.0
_PATH_ENDS = re.compile("[?#]")  # a browser sends no fragment, but ComfyUI leaves out one that is sent
_SOCKET_MODE = 0o660  # nginx's workers are in our group, and nobody else is

_Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[None, None, None]]


@dataclass(eq=False, slots=True)
class _Tunnel:
    """An open websocket: the cookie that it came with, and what to cancel when that is dead."""

    digest: str
    task: asyncio.Task[None]


class Gate:
    """The daemon. `run` doesn't return before `stop`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._porter = Porter(
            boot_id=boot_id(world.paths.kernel), verify=verifier(), now=world.now, saved=files.read_object(world.memory)
        )
        self._heard: tuple[int, int] | None = None
        self._tunnels: set[_Tunnel] = set()
        self._connections: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}
        self._saved_at = world.now().boot
        self._said_at = 0.0
        self._over = asyncio.Event()

    async def run(self) -> None:
        """Be the gate until `stop` is called, or for ever. Raises OSError when the sockets can't be had."""
        self._look()
        servers = [await self._listen(self._world.calls, self._calls)]
        servers.append(await self._listen(self._world.tunnels, self._websocket))
        notify("READY=1")
        try:
            while not self._over.is_set():
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._over.wait(), self._world.every)
                self._round()
        finally:
            for server in servers:
                server.close()
            await self._hang_up()
            self._save()

    def stop(self) -> None:
        """End after this round."""
        self._over.set()

    async def _hang_up(self) -> None:
        """End every connection, and wait until nothing works on them any more."""
        tasks = {task for task in self._connections.values() if task is not None}
        for writer in self._connections:
            writer.transport.abort()
        if tasks:
            await asyncio.wait(tasks, timeout=_HANG_UP_SECONDS)

    async def _listen(self, path: Path, serve: _Serve) -> asyncio.AbstractServer:
        path.unlink(missing_ok=True)  # noqa: ASYNC240 - a system call that waits for nothing
        server = await asyncio.start_unix_server(serve, path, limit=HEAD_LIMIT, backlog=1024)
        path.chmod(_SOCKET_MODE)  # noqa: ASYNC240 - a system call that waits for nothing
        return server

    def _round(self) -> None:
        """Hear the keeper, end what has ended, and remember."""
        self._look()
        self._porter.tick()
        for one in list(self._tunnels):
            if not self._porter.still_open(one.digest):
                one.task.cancel()
        moment = self._world.now().boot
        if moment - self._saved_at >= _SAVE_EVERY_SECONDS:
            self._saved_at = moment
            self._save()
        notify("WATCHDOG=1", f"STATUS={len(self._tunnels)} websockets are open")

    def _look(self) -> None:
        """Read the keeper's file when it is another than the one that was read."""
        try:
            found = self._world.told.stat()
        except OSError:
            self._heard = None
            self._porter.forget()
            return
        if self._heard == (found.st_ino, found.st_mtime_ns):
            return
        self._heard = (found.st_ino, found.st_mtime_ns)
        self._porter.hear(Told.from_json(files.read_object(self._world.told)))

    def _save(self) -> bool:
        """Remember cookies and spent tickets; False when that can't be done."""
        try:
            files.write(self._world.memory, json.dumps(self._porter.to_json()), mode=0o600, durable=False)
        except OSError as error:
            self._say("The gate's memory can't be written (%s).", error.strerror)
            return False
        return True

    def _say(self, words: str, *about: object) -> None:
        """Write to the journal what strangers can cause: not more than a line each second."""
        moment = self._world.now().boot
        if moment - self._said_at >= _SAY_EVERY_SECONDS:
            self._said_at = moment
            _LOG.warning(words, *about)

    async def _calls(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer nginx's questions, one after the other, on a connection that it keeps."""
        with self._connected(writer):
            while (head := await read_head(reader)) is not None and not has_body(head):
                writer.write(self._answer(head))
                await writer.drain()

    @contextlib.contextmanager
    def _connected(self, writer: asyncio.StreamWriter) -> Generator[None]:
        """Know of a connection until it has ended, however it does."""
        self._connections[writer] = asyncio.current_task()
        try:
            yield
        except (OSError, NotPlain):
            pass
        finally:
            del self._connections[writer]
            writer.close()

    def _answer(self, head: Head) -> bytes:
        path = head.target.partition("?")[0]
        if path == "/verify":
            return self._verdict(head)
        if path == "/enter":
            return self._enter(head)
        return answer(HTTPStatus.NOT_FOUND)

    def _verdict(self, head: Head) -> bytes:
        """Say whether a request may go to ComfyUI. nginx knows two ways of No: 401 for strangers, 403 for not now."""
        holder = self._porter.holder(head.all("cookie"))
        path = unquote(_PATH_ENDS.split(head.one("x-original-uri"), 1)[0])
        closed = self._porter.closed_to(holder, method=head.one("x-original-method"), path=path)
        headers = {"X-Comfyweb-Parent": self._parent}
        if closed is None and holder is not None:
            return answer(HTTPStatus.NO_CONTENT, {**headers, "X-Comfyweb-Source": source_of(holder.session)})
        closed = closed or Closed.STRANGER
        status = HTTPStatus.UNAUTHORIZED if closed is Closed.STRANGER else HTTPStatus.FORBIDDEN
        return answer(status, {**headers, "X-Comfyweb-Closed": closed.value})

    def _enter(self, head: Head) -> bytes:
        """Let a browser in by its ticket, once. A ticket that can't be remembered as spent opens nothing."""
        if head.method != "GET":
            return answer(HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": "GET"})
        ticket = parse_qs(urlsplit(head.target).query).get("ticket", [""])[0]
        value = self._porter.enter(ticket)
        headers = {"Referrer-Policy": "no-referrer", "X-Comfyweb-Parent": self._parent}
        if isinstance(value, tokens.Refusal):
            self._say("Ticket refused: %s.", value.value)
            return answer(HTTPStatus.UNAUTHORIZED, headers)
        if isinstance(value, Closed) or not self._save():
            self._say("Nobody is let in: the keeper is silent, or signatures or cookies can't be kept.")
            return answer(HTTPStatus.SERVICE_UNAVAILABLE, headers)
        headers["Set-Cookie"] = cookies.set_cookie(value, https=head.one("x-forwarded-proto") == "https")
        if head.one("sec-fetch-mode", "navigate") != "navigate":
            return answer(HTTPStatus.NO_CONTENT, headers)
        return answer(HTTPStatus.SEE_OTHER, {**headers, "Location": "/"})

    @property
    def _parent(self) -> str:
        """The app's origin, which alone may frame ComfyUI."""
        return self._porter.told.trust.issuer or "'none'"

    async def _websocket(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry a websocket for as long as its cookie lives."""
        with self._connected(writer):
            head = await read_head(reader)
            if head is not None:
                await self._carry(head, reader, writer)

    async def _carry(self, head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if has_body(head) or head.method != "GET" or head.one("upgrade").lower() != "websocket":
            writer.write(answer(HTTPStatus.BAD_REQUEST))
            return
        holder = self._porter.holder(head.all("cookie"))
        if self._porter.closed_to(holder, method="GET", path=head.target) is not None or holder is None:
            writer.write(answer(HTTPStatus.UNAUTHORIZED))
            return
        task = asyncio.create_task(tunnel.join(head, reader, writer, address=self._world.comfyui))
        one = _Tunnel(holder.digest, task)
        self._tunnels.add(one)
        try:
            await asyncio.wait({task})
            if task.cancelled():
                writer.transport.abort()  # not even what waits to be sent
            elif isinstance(task.exception(), tunnel.Unreachable):
                writer.write(answer(HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": "2"}))
        finally:
            task.cancel()
            self._tunnels.discard(one)


def run(world: World) -> int:
    """Run the gate until SIGTERM. Returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)

    async def main() -> None:
        gate = Gate(world)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, gate.stop)
        await gate.run()

    _LOG.info("The gate is open to who has a ticket (process %d).", os.getpid())
    asyncio.run(main())
    return 0


def main(_version: str) -> int:
    """`comfyweb.pyz gate`."""
    return run(World())
