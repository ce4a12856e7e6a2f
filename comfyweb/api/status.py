"""`GET /api/instance/status`, as cheap as a file: programs poll it, many at once, beside the page's event loop.

No framework stands between the server and the answer. The bytes are made once per snapshot, and the check of a token
that was seen before is a look into a table, from which a logout removes it.
"""

import hashlib
from http import HTTPStatus

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from comfyweb.api.caller import session_met, token_of
from comfyweb.api.problems import NOT_STARTED, problem, unauthorized, unavailable
from comfyweb.control.services import NotStarted, services

PATH = "/api/instance/status"
ALLOWED = "GET, HEAD, OPTIONS"


class Tagged:
    """The newest snapshot's bytes with the headers that belong to them, made when the bytes are new."""

    def __init__(self) -> None:
        self._body: bytes | None = None
        self.etag = b""
        self.headers: list[tuple[bytes, bytes]] = []

    def of(self, body: bytes) -> "Tagged":
        """Return itself, about this body."""
        if body is not self._body:
            self._body = body
            self.etag = etag(body).encode()
            self.headers = [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                (b"cache-control", b"no-store"),
                (b"etag", self.etag),
            ]
        return self


def etag(body: bytes) -> str:
    """Return the entity tag of a snapshot's bytes; the event stream's ids are the same."""
    return f'"{hashlib.sha256(body).hexdigest()[:16]}"'


class StatusFirst:
    """ASGI layer in front of all others: answers this one path itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._tagged = Tagged()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the status, or pass the request on."""
        if scope["type"] != "http" or scope["path"] != PATH:
            await self._app(scope, receive, send)
            return
        try:
            if await session_met(token_of(scope)) is None:
                await _refuse(unauthorized(), scope, receive, send)
                return
            body = services.controller.publisher.encoded
        except NotStarted:
            await _refuse(unavailable(NOT_STARTED), scope, receive, send)
            return
        method = scope["method"]
        if method not in {"GET", "HEAD"}:
            await _refuse(_other_method(method), scope, receive, send)
            return
        tagged = self._tagged.of(body)
        if _has(scope, tagged.etag):
            await send({"type": "http.response.start", "status": 304, "headers": tagged.headers[2:]})
            await send({"type": "http.response.body"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": tagged.headers})
        await send({"type": "http.response.body", "body": body if method == "GET" else b""})


def _has(scope: Scope, tag: bytes) -> bool:
    """Tell whether the client says that it holds this snapshot already."""
    return any(name == b"if-none-match" and (tag in value or value == b"*") for name, value in scope["headers"])


def _other_method(method: str) -> Response:
    if method == "OPTIONS":
        return Response(status_code=HTTPStatus.NO_CONTENT, headers={"Allow": ALLOWED})
    return problem(HTTPStatus.METHOD_NOT_ALLOWED, f"This address takes {ALLOWED}.", headers={"Allow": ALLOWED})


async def _refuse(answer: Response, scope: Scope, receive: Receive, send: Send) -> None:
    answer.headers["cache-control"] = "no-store"
    await answer(scope, receive, send)
