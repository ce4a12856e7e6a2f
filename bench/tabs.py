"""`python -m bench.tabs PORT N`, the token on stdin: N browser tabs as the server sees them, logged in and in the room.

Each speaks the browser's part of engine.io and socket.io on a websocket of its own: the hello with the hydration, the
answer to pings. A line on stdin asks for what has arrived since the last one; the answer is a JSON list of delays in
seconds, from the stamp in a snapshot to its receipt.
"""

import asyncio
import base64
import gc
import json
import os
import re
import struct
import sys
import time
import uuid
from typing import Any

from comfyweb.ui.live import TAB

AT_ONCE = 20
HELLO_SECONDS = 60
STAMP = re.compile(rb"bench@([\d.]+)@")
SNAPSHOT = b'"snapshot_rx_state_"'
HYDRATED = b'"is_hydrated_rx_state_":true'
TEXT = 0x81
LONG, LONGER = 126, 127


class Tab(asyncio.Protocol):
    """One tab."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._token = token
        self._buffer = bytearray()
        self._upgraded = False
        self.hydrated = asyncio.get_running_loop().create_future()
        self.lost = asyncio.Event()
        self.delays: list[float] = []
        self.newest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the websocket."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the type checker
        self._transport = transport
        key = base64.b64encode(os.urandom(16)).decode()
        transport.write(
            f"GET /_event/?EIO=4&transport=websocket&token={uuid.uuid4()} HTTP/1.1\r\n"
            f"Host: localhost:{self._port}\r\nOrigin: http://localhost:{self._port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        """Take the frames that are whole; the time counts from here, before anything is read in them."""
        at = time.monotonic()
        self._buffer += data
        if not self._upgraded:
            head, found, rest = self._buffer.partition(b"\r\n\r\n")
            if not found:
                return
            if b" 101 " not in head.partition(b"\r\n")[0]:
                self._lose(RuntimeError(bytes(head[:200]).decode("latin-1")))
                return
            self._upgraded = True
            self._buffer = rest
        while (text := self._frame()) is not None:
            self._hear(text, at)

    def connection_lost(self, exc: Exception | None) -> None:
        """Say so, if it was before the page stood."""
        self.lost.set()
        self._lose(exc or RuntimeError("the server closed the websocket"))

    def click(self, handler: str) -> None:
        """Call a handler of the page, as its button does."""
        event = {"name": f"{TAB}.{handler}", "payload": {}, "router_data": {"pathname": "/", "asPath": "/"}}
        self._say("42/_event," + json.dumps(["event", event]))

    def stop_reading(self) -> None:
        """Take nothing more off the network, as a tab that hangs or a laptop that was closed."""
        self._transport.pause_reading()

    def vanish(self) -> None:
        """Be gone without a word."""
        self._transport.abort()

    def _lose(self, error: Exception) -> None:
        if not self.hydrated.done():
            self.hydrated.set_exception(error)

    def _frame(self) -> bytes | None:
        if len(self._buffer) < 2:
            return None
        size, start = self._buffer[1] & 0x7F, 2
        if size in {LONG, LONGER}:
            form, start = ("!H", 4) if size == LONG else ("!Q", 10)
            if len(self._buffer) < start:
                return None
            size = struct.unpack_from(form, self._buffer, 2)[0]
        if len(self._buffer) < start + size:
            return None
        text = bytes(self._buffer[start : start + size])
        del self._buffer[: start + size]
        return text

    def _hear(self, text: bytes, at: float) -> None:
        if text.startswith(b"0"):
            hello = {
                "name": "reflex___state____state.hydrate_and_load",
                "payload": {"vars": {f"{TAB}.token_rx_state_": self._token}},
                "router_data": {"pathname": "/", "asPath": "/"},
            }
            self._say("40/_event," + json.dumps({"event": hello}))
        elif text == b"2":
            self._say("3")
        elif stamp := STAMP.search(text):
            self.delays.append(at - float(stamp[1]))
        elif SNAPSHOT in text and HYDRATED not in text:
            self.newest = text
        elif HYDRATED in text and not self.hydrated.done():
            self.hydrated.set_result(None)

    def _say(self, text: str) -> None:
        body, mask = text.encode(), os.urandom(4)
        size = (
            struct.pack("!BB", TEXT, 0x80 | len(body))
            if len(body) < LONG
            else struct.pack("!BBH", TEXT, 0xFE, len(body))
        )
        whole = (mask * (len(body) // 4 + 1))[: len(body)]
        masked = (int.from_bytes(body) ^ int.from_bytes(whole)).to_bytes(len(body))
        self._transport.write(size + mask + masked)


async def main(port: int, count: int) -> None:
    """Open the tabs, then answer each line."""
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    token = (await lines.readline()).decode().strip()
    tabs: list[Tab] = []
    gate = asyncio.Semaphore(AT_ONCE)

    async def open_one() -> None:
        async with gate, asyncio.timeout(HELLO_SECONDS):
            _, tab = await loop.create_connection(lambda: Tab(port, token), "127.0.0.1", port)
            tabs.append(tab)
            await tab.hydrated

    await asyncio.gather(*(open_one() for _ in range(count)))
    gc.collect()
    gc.freeze()
    _answer("open")
    while await lines.readline():
        _answer([delay for tab in tabs for delay in tab.delays])
        for tab in tabs:
            tab.delays.clear()


def _answer(what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
