"""A server on loopback that answers with the very bytes a test names, or with silence, or with a reset."""

import json
from asyncio import Event, IncompleteReadError, StreamReader, StreamWriter, start_server
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

RESET = b"<reset>"
SILENCE = b"<silence>"


@dataclass
class Request:
    """What was asked."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Wire:
    """The server's address, and everything that was asked of it; `asked` is set once anything was."""

    url: str = ""
    requests: list[Request] = field(default_factory=list[Request])
    asked: Event = field(default_factory=Event)


def answer(status: int, body: Any = b"", **headers: str) -> bytes:
    """Return an HTTP answer; anything but bytes goes as JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(raw)}\r\nConnection: close\r\n{more}\r\n".encode() + raw


@asynccontextmanager
async def wire(reply: bytes | Callable[[Request], bytes]) -> AsyncGenerator[Wire]:
    """Serve `reply` to every request until the block ends."""
    seen = Wire()

    async def serve(reader: StreamReader, writer: StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        except IncompleteReadError:
            writer.close()
            return
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
        method, path, _ = head[0].split()
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        seen.requests.append(Request(method, path, headers, body))
        seen.asked.set()
        raw = reply if isinstance(reply, bytes) else reply(seen.requests[-1])
        if raw == RESET:
            writer.transport.abort()
        elif raw == SILENCE:
            await reader.read()
            writer.close()
        else:
            writer.write(raw)
            writer.close()

    server = await start_server(serve, "127.0.0.1", 0)
    seen.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield seen
    finally:
        server.close()
