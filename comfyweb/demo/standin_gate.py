"""The stand-in's gate: nothing reaches ComfyUI without a cookie, and nothing commands the host without a token.

It stands where nginx and the gate stand on a real host, and answers the same calls. Whoever reaches ComfyUI
can run code on the machine, so a request is first held against its origin, then against its cookie.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from importlib.resources import files

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from comfyweb.demo.standin_host import Host
from vm_setup.host import commands, cookies, drain, tokens
from vm_setup.host.idle import activity_of
from vm_setup.host.reading import json_value

_NUMERIC_NAMES = ("127.0.0.1", "[::1]")
_POLICY_VIOLATION = 1008
_LOG_LINES = 200
IDLE_NOW_SECONDS = 20.0


def _words(name: str) -> str:
    return files("comfyweb.demo").joinpath("comfyui_page", name).read_text(encoding="utf-8")


Inside = Callable[[Scope, Receive, Send], Coroutine[None, None, None]]


class Gate:
    """The ASGI application in front of `comfyui`."""

    def __init__(self, host: Host, comfyui: Inside) -> None:
        self._host = host
        self._comfyui = comfyui
        self._own = Starlette(
            routes=[
                Route("/_host/health", self._health),
                Route("/_host/gate", self._enter),
                Route("/_host/activity", self._activity, methods=["POST"]),
                Route("/_host/status", self._status),
                Route("/_host/logs", self._logs),
                Route("/_host/{call:path}", self._command, methods=["POST", "DELETE"]),
                Route("/demo/idle", self._idle_now, methods=["POST"]),
            ]
        )
        self._warming = _words("warming.html")
        self._stranger = _words("stranger.html")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it to ComfyUI."""
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, self._framed(send))

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        app = self._refusal(request)
        if app is None:
            app = self._own if request.url.path.startswith(("/_host/", "/demo/")) else self._comfyui
        kind = activity_of(request.method, request.url.path) if app is self._comfyui else None
        if kind:
            self._host.note(kind)
        with contextlib.suppress(ClientDisconnect):
            await app(scope, receive, send)
        if kind:  # an upload may have taken long
            self._host.note(kind)

    def _refusal(self, request: Request) -> Response | None:
        """Return why a request goes no further; None for what the host itself or ComfyUI answers."""
        path, headers = request.url.path, request.headers
        numeric = request.url.hostname in _NUMERIC_NAMES or headers.get("host", "").startswith("[::1]")
        if numeric and request.method == "GET" and not path.startswith("/_host/"):
            return RedirectResponse(str(request.url.replace(hostname="localhost")), HTTPStatus.TEMPORARY_REDIRECT)
        if _foreign(headers):
            return PlainTextResponse("Forbidden", HTTPStatus.FORBIDDEN)
        if path.startswith("/_host/") and path != "/_host/activity":
            return None
        if not self._host.ready:
            return HTMLResponse(self._warming, HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": "2"})
        if self._pass(request) is None:
            return HTMLResponse(self._stranger, HTTPStatus.UNAUTHORIZED)
        if self._host.draining and drain.refuses(request.method, path):
            after = {"Retry-After": str(drain.RETRY_AFTER_SECONDS)}
            return JSONResponse(drain.refusal(stay=self._host.stays), HTTPStatus.SERVICE_UNAVAILABLE, after)
        return None

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        websocket = WebSocket(scope, receive, send)
        holder = self._pass(websocket)
        refused = HTTPStatus.FORBIDDEN if _foreign(websocket.headers) else None
        if refused is None and not self._host.ready:
            refused = HTTPStatus.SERVICE_UNAVAILABLE
        if refused is None and holder is None:
            refused = HTTPStatus.UNAUTHORIZED
        if refused is not None or holder is None:
            await websocket.send_denial_response(Response(status_code=refused or HTTPStatus.UNAUTHORIZED))
            return
        socket = self._host.opened(holder)
        inner = asyncio.create_task(self._comfyui(scope, receive, send))
        ended = asyncio.create_task(socket.closed.wait())
        try:
            await asyncio.wait({inner, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not inner.done():
                inner.cancel()
                await asyncio.wait({inner})
                await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": "The session has ended."})
        finally:
            self._host.closed(socket)
            inner.cancel()
            ended.cancel()

    def _framed(self, send: Send) -> Send:
        """Let only the app frame what is answered, and nobody guess at its type."""

        async def framed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                parent = self._host.app_origin or "'none'"
                headers.append("content-security-policy", f"frame-ancestors {parent}")
                headers["x-content-type-options"] = "nosniff"
            await send(message)

        return framed

    def _pass(self, connection: HTTPConnection) -> cookies.Pass | None:
        return self._host.passes(connection.headers.getlist("cookie"))

    async def _health(self, _: Request) -> Response:
        return _fresh(JSONResponse({"phase": "ready" if self._host.ready else "warming"}))

    async def _enter(self, request: Request) -> Response:
        if request.method != "GET":  # Starlette answers HEAD with it, and that would spend the ticket.
            return Response(status_code=HTTPStatus.METHOD_NOT_ALLOWED, headers={"allow": "GET"})
        value = self._host.enter(request.query_params.get("ticket", ""))
        if value is None:
            return _fresh(HTMLResponse(self._stranger, HTTPStatus.UNAUTHORIZED))
        quiet = request.headers.get("sec-fetch-mode", "navigate") != "navigate"
        answer = Response(status_code=HTTPStatus.NO_CONTENT) if quiet else RedirectResponse("/", HTTPStatus.SEE_OTHER)
        answer.headers["set-cookie"] = cookies.set_cookie(value, https=request.url.scheme == "https")
        answer.headers["referrer-policy"] = "no-referrer"
        return _fresh(answer)

    async def _activity(self, _: Request) -> Response:
        self._host.note("input")
        return Response(status_code=HTTPStatus.NO_CONTENT)

    async def _idle_now(self, _: Request) -> Response:
        self._host.idle_in(IDLE_NOW_SECONDS)
        return Response(status_code=HTTPStatus.NO_CONTENT)

    async def _status(self, request: Request) -> Response:
        return self._told() if await self._called(request) else _unauthorised()

    async def _logs(self, request: Request) -> Response:
        if await self._called(request) is None:
            return _unauthorised()
        asked = json_value(request.query_params.get("lines"), limit=8)
        count = asked if isinstance(asked, int) and not isinstance(asked, bool) else _LOG_LINES
        return _fresh(PlainTextResponse("".join(f"{line}\n" for line in self._host.lines(count))))

    async def _command(self, request: Request) -> Response:
        called = await self._called(request)
        if called is None:
            return _unauthorised()
        claims, body = called
        command = commands.read_command(request.method, request.url.path, commands.read_body(body))
        if command is None:
            return JSONResponse({"error": "There is no such command, or its values are wrong."}, HTTPStatus.BAD_REQUEST)
        self._host.carry_out(command, claims)
        return self._told()

    def _told(self) -> Response:
        return _fresh(JSONResponse(self._host.report().status()))

    async def _called(self, request: Request) -> tuple[tokens.Claims, bytes] | None:
        """Return what the app's token says, and the body, if the token is good for this very request."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > commands.BODY_LIMIT:
                return None
        made_for = tokens.Request(method=request.method, url=str(request.url), body=bytes(body))
        claims = self._host.authorise(token.strip(), made_for) if scheme.lower() == "bearer" else None
        return (claims, bytes(body)) if claims else None


def _foreign(headers: Headers) -> bool:
    """Whether a request comes from a page of another origin. ComfyUI itself checks that for loopback names only."""
    origin = headers.get("origin")
    return origin is not None and origin != f"http://{headers.get('host', '')}"


def _unauthorised() -> Response:
    return _fresh(JSONResponse({"error": "unauthorised"}, HTTPStatus.UNAUTHORIZED))


def _fresh(answer: Response) -> Response:
    answer.headers["cache-control"] = "no-store"
    return answer
