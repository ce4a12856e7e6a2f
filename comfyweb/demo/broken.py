"""Answers that never come, end in the middle, or end in a reset: what HTTP itself has no words for."""

import json
import socket
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

if TYPE_CHECKING:
    from asyncio import Transport

TRANSPORT = "comfyweb.transport"
"""Where the server puts a request's connection into its scope."""


class Hang(Response):
    """Says nothing until the caller has gone."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        """Wait."""
        while (await receive())["type"] != "http.disconnect":
            pass


class Reset(Hang):
    """Resets the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have the kernel send RST instead of FIN."""
        transport = cast("Transport", scope[TRANSPORT])
        linger = struct.pack("ii", 1, 0)
        cast("socket.socket", transport.get_extra_info("socket")).setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, linger
        )
        transport.abort()
        await super().__call__(scope, receive, send)


class HalfAnswer(Hang):
    """Sends the head of an answer, half of its body, and ends the connection."""

    def __init__(self, answer: Mapping[str, Any]) -> None:
        super().__init__(json.dumps(answer), media_type="application/json")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Promise all, send half."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        half = self.body[: len(self.body) // 2]
        await send({"type": "http.response.body", "body": half, "more_body": True})
        cast("Transport", scope[TRANSPORT]).close()
        await super().__call__(scope, receive, send)
