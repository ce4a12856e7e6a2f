"""A websocket through the stand-in's gate to a real ComfyUI: what one side says, the other hears."""

import asyncio
import contextlib
from collections.abc import Sequence

import httpx
from starlette.types import Receive, Scope, Send
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

_CHUNK = 65536
_CONNECT_SECONDS = 5.0
_INTERNAL_ERROR = 1011
_GOING_AWAY = 1001
_NO_STATUS = 1005
_OWN_HEADERS = frozenset({"host", "connection", "upgrade"})


class WebSocketClient:
    """The client's end of a websocket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._protocol = WSConnection(ConnectionType.CLIENT)
        self._early: list[Event] = []

    async def open(self, host: str, target: str, headers: Sequence[tuple[str, str]]) -> bool:
        """Shake hands; False if ComfyUI refuses."""
        extra = [
            (name.encode("latin-1"), value.encode("latin-1"))
            for name, value in headers
            if name not in _OWN_HEADERS and not name.startswith("sec-websocket-")
        ]
        await self.say(Request(host=host, target=target, extra_headers=extra))
        while True:
            events = await self.hear()
            for at, event in enumerate(events):
                if isinstance(event, AcceptConnection):
                    self._early = events[at + 1 :]  # what came in the same breath as the handshake
                    return True
                if isinstance(event, (RejectConnection, CloseConnection)):
                    return False

    async def say(self, event: Event) -> None:
        """Send an event."""
        self._writer.write(self._protocol.send(event))
        await self._writer.drain()

    async def hear(self) -> list[Event]:
        """Return what came in; an end of the connection without a goodbye is one too."""
        if self._early:
            events, self._early = self._early, []
            return events
        data = await self._reader.read(_CHUNK)
        if not data:
            return [CloseConnection(code=_GOING_AWAY)]
        self._protocol.receive_data(data)
        events = list(self._protocol.events())
        for event in events:
            if isinstance(event, Ping):
                await self.say(event.response())
        return events

    def close(self) -> None:
        """Let go of the connection."""
        self._writer.close()


async def tunnel(url: httpx.URL, headers: list[tuple[str, str]], scope: Scope, receive: Receive, send: Send) -> None:
    """Join a browser's websocket to ComfyUI's, until one of them ends."""
    await receive()
    secure = url.scheme == "https"
    port = url.port or (443 if secure else 80)
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            upstream = WebSocketClient(*await asyncio.open_connection(url.host, port, ssl=secure or None))
            host = next((value for name, value in headers if name == "host"), url.host)
            query = scope["query_string"].decode("latin-1")
            accepted = await upstream.open(host, f"{scope['path']}?{query}", headers)
    except (OSError, RemoteProtocolError, LocalProtocolError):  # TimeoutError is an OSError
        accepted, upstream = False, None
    if upstream is None or not accepted:
        await send({"type": "websocket.close", "code": _INTERNAL_ERROR})
        return
    await send({"type": "websocket.accept"})
    ways = {asyncio.create_task(_down(upstream, send)), asyncio.create_task(_up(upstream, receive))}
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        upstream.close()


async def _down(upstream: WebSocketClient, send: Send) -> None:
    """Hand on what ComfyUI says."""
    text: list[str] = []
    data: list[bytes] = []
    while True:
        try:
            events = await upstream.hear()
        except (OSError, RemoteProtocolError):
            events = [CloseConnection(code=_GOING_AWAY)]
        for event in events:
            match event:
                case TextMessage(data=part, message_finished=finished):
                    text.append(part)
                    if finished:
                        await send({"type": "websocket.send", "text": "".join(text)})
                        text.clear()
                case BytesMessage(data=part, message_finished=finished):
                    data.append(bytes(part))
                    if finished:
                        await send({"type": "websocket.send", "bytes": b"".join(data)})
                        data.clear()
                case CloseConnection(code=code):
                    await send({"type": "websocket.close", "code": _GOING_AWAY if code == _NO_STATUS else code})
                    return
                case _:
                    pass


async def _up(upstream: WebSocketClient, receive: Receive) -> None:
    """Hand on what the browser says."""
    while True:
        message = await receive()
        with contextlib.suppress(LocalProtocolError):
            if message["type"] == "websocket.disconnect":
                await upstream.say(CloseConnection(code=_GOING_AWAY))
                return
            if (text := message.get("text")) is not None:
                await upstream.say(TextMessage(data=text))
            elif (data := message.get("bytes")) is not None:
                await upstream.say(BytesMessage(data=data))
