"""A ComfyUI that notes every byte that reaches it, answers each request with a mark, and echoes on websockets."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Request, TextMessage

MARK = "ComfyUI's own words. " * 200


@dataclass
class Asked:
    """A request as it came."""

    line: str
    headers: dict[str, str]
    body: int = 0


@dataclass
class ComfyUI:
    """What it heard, and how it answers. `extra` are headers of every answer."""

    port: int = 0
    asked: list[Asked] = field(default_factory=list[Asked])
    extra: dict[str, str] = field(default_factory=dict[str, str])
    open: int = 0

    @property
    def lines(self) -> list[str]:
        """The first lines of what it was asked."""
        return [one.line for one in self.asked]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection."""
        self.open += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self._serve_one(reader, writer):
                pass
        self.open -= 1
        writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        raw = await reader.readuntil(b"\r\n\r\n")
        line, *lines = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
        asked = Asked(line, {k.lower(): v for k, v in (each.split(": ", 1) for each in lines)})
        self.asked.append(asked)
        if asked.headers.get("upgrade") == "websocket" and line.startswith("GET /ws"):
            await self._echo(raw, reader, writer)
            return False
        if line.startswith("GET /stream"):
            await self._stream(writer)
        asked.body = await self._read_body(asked, reader)
        head = {"Content-Type": "text/plain", "Content-Length": str(len(MARK)), **self.extra}
        text = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        writer.write(f"HTTP/1.1 200 OK\r\n{text}\r\n".encode() + (b"" if line.startswith("HEAD") else MARK.encode()))
        await writer.drain()
        return True

    async def _read_body(self, asked: Asked, reader: asyncio.StreamReader) -> int:
        left = int(asked.headers.get("content-length", 0))
        total = 0
        if asked.headers.get("transfer-encoding") == "chunked":
            while size := int(await reader.readline(), 16):
                await reader.readexactly(size + 2)
                total += size
            await reader.readline()
            return total
        while left > total:
            total += len(await reader.readexactly(min(1 << 20, left - total)))
        return total

    async def _stream(self, writer: asyncio.StreamWriter) -> None:
        """Answer without an end, a little at a time."""
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
        while True:
            writer.write(b"more\n")
            await writer.drain()
            await asyncio.sleep(0.02)

    async def _echo(self, raw: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        protocol = WSConnection(ConnectionType.SERVER)
        protocol.receive_data(raw)
        while True:
            for event in protocol.events():
                if isinstance(event, Request):
                    writer.write(protocol.send(AcceptConnection()))
                elif isinstance(event, TextMessage):
                    writer.write(protocol.send(TextMessage(data=event.data)))
                elif isinstance(event, CloseConnection):
                    writer.write(protocol.send(event.response()))
                    return
            await writer.drain()
            data = await reader.read(65536)
            if not data:
                return
            protocol.receive_data(data)


@asynccontextmanager
async def comfyui() -> AsyncGenerator[ComfyUI]:
    """Serve one on loopback."""
    made = ComfyUI()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
