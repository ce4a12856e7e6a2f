"""Gives each request an id, which its answer carries and the log names: the proxy's own where it sends one."""

import re
import secrets

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from comfyweb.logs import about

HEADER = b"x-request-id"
# What proxies make: UUIDs, hexadecimal, base64url. Anything else could be made to look like something in the log.
ID = re.compile(rb"[A-Za-z0-9_-]{8,64}")


class RequestIds:
    """ASGI layer around everything."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Name the request; a websocket has one name for as long as it is open."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        request_id = id_of(scope)

        async def send_named(message: Message) -> None:
            if message["type"] in {"http.response.start", "websocket.http.response.start"}:
                message = {**message, "headers": [*message.get("headers", ()), (HEADER, request_id.encode())]}
            await send(message)

        with about(request_id=request_id):
            await self._app(scope, receive, send_named)


def id_of(scope: Scope) -> str:
    """Return the id that was sent, if it is one and the only one; else a new one."""
    sent = [value for name, value in scope["headers"] if name == HEADER]
    return sent[0].decode() if len(sent) == 1 and ID.fullmatch(sent[0]) else secrets.token_hex(16)
