"""Takes a request's body whole, small, in time and as JSON, before anything is made of it."""

import asyncio
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from comfyweb.api.caller import SAFE_METHODS
from comfyweb.api.problems import problem

MOST_BYTES = 64 * 1024
MOST_SECONDS = 10.0

LATE = "The body did not arrive in time."


class BodyLimit:
    """ASGI layer: answers 408, 413 and 415 itself. A client that leaves while it sends gets no answer."""

    def __init__(self, app: ASGIApp, most_bytes: int = MOST_BYTES, most_seconds: float = MOST_SECONDS) -> None:
        self._app = app
        self._most_bytes = most_bytes
        self._most_seconds = most_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body and hand it on in one piece."""
        if scope["type"] != "http" or scope["method"] in SAFE_METHODS:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        too_large = problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A body has at most {self._most_bytes} bytes.")
        body = bytearray()
        try:
            async with asyncio.timeout(self._most_seconds):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > self._most_bytes:
                        await too_large(scope, receive, send)
                        return
        except TimeoutError:
            late = problem(HTTPStatus.REQUEST_TIMEOUT, LATE, headers={"Connection": "close"})
            await late(scope, receive, send)
            return
        if body and headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            await problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "A body must be application/json.")(scope, receive, send)
            return
        whole: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replay() -> Message:
            return whole.pop() if whole else await receive()

        await self._app(scope, replay, send)
