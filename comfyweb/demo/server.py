"""Puts the emulator together: one app for Compute Engine, metadata and control, and the server that runs it."""

import asyncio
import contextlib
import ipaddress
from collections.abc import Generator, Iterable
from email.utils import format_datetime
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from comfyweb.demo import render
from comfyweb.demo.box import Box
from comfyweb.demo.broken import TRANSPORT
from comfyweb.demo.compute import compute_routes
from comfyweb.demo.control import Control
from comfyweb.demo.iam import iam_routes
from comfyweb.demo.metadata import Metadata
from comfyweb.demo.model import Refusal
from comfyweb.demo.provision import Provision
from comfyweb.demo.rest import html_error

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import H11Protocol

FRIENDLY_SITES = frozenset({"none", "same-origin", "same-site"})


def is_loopback(host: str) -> bool:
    """Whether a name or address is this computer's own."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def comes_from_here(request: Request) -> bool:
    """Whether no web page of somebody else's can have sent it: the name in Host is ours, and so is the page.

    A page elsewhere may reach loopback through a browser, by its own name (DNS rebinding) or across sites.
    """
    if not is_loopback(_host_in(f"//{request.headers.get('host', '')}")):
        return False
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in FRIENDLY_SITES
    origin = request.headers.get("origin")
    return origin is None or is_loopback(_host_in(origin))


def _host_in(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


METADATA_NAMES = frozenset({"metadata.google.internal", "169.254.169.254"})


class Guard:
    """Lets nobody but this computer's programs and pages reach the emulated cloud; its guest by its own names too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on."""
        if scope["type"] == "http" and not self._may(Request(scope)):
            refused = Refusal(403, "forbidden", "Only programs and pages of this computer may do this.")
            await JSONResponse(render.refusal(refused), refused.status)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _may(self, request: Request) -> bool:
        named = _host_in(f"//{request.headers.get('host', '')}")
        by_guest = request.url.path.startswith("/computeMetadata") and named in METADATA_NAMES
        return by_guest or comes_from_here(request)


class Dated:
    """Says in each answer what time it is in the cloud, as every HTTP server does."""

    def __init__(self, app: ASGIApp, box: Box) -> None:
        self._app = app
        self._box = box

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, with a `Date`."""

        async def dated(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Date"] = format_datetime(self._box.clock.now(), usegmt=True)
            await send(message)

        await self._app(scope, receive, dated)


async def _refused(_request: Request, refused: Exception) -> Response:
    if not isinstance(refused, Refusal):
        raise refused
    return JSONResponse(render.refusal(refused), refused.status)


async def _no_such_call(_request: Request, _error: Exception) -> Response:
    return html_error(404, "Not Found")


def app_of(box: Box) -> Starlette:
    """Make the app that shows and changes `box`."""
    return Starlette(
        routes=[
            *compute_routes(box),
            *iam_routes(box),
            *Metadata(box).routes(),
            *Provision(box).routes(),
            *Control(box).routes(),
        ],
        exception_handlers={Refusal: _refused, 404: _no_such_call, 405: _no_such_call},
        middleware=[Middleware(Guard)],
    )


class Server(uvicorn.Server):
    """Serves `app` and lets time go on in `box` meanwhile. Leaves signals to its program.

    The guest loses its electricity while its metadata server still answers, and clients that wait are not waited for.
    """

    def __init__(self, app: ASGIApp, box: Box) -> None:
        async def with_transport(scope: Scope, receive: Receive, send: Send) -> None:
            connections = cast("Iterable[H11Protocol]", self.server_state.connections)
            client = tuple(scope.get("client") or ())
            scope[TRANSPORT] = next((each.transport for each in connections if each.client == client), None)
            await app(scope, receive, send)

        super().__init__(
            uvicorn.Config(
                Dated(with_transport, box),
                http="h11",
                log_config=None,
                access_log=False,
                lifespan="off",
                ws="none",
                date_header=False,
                timeout_graceful_shutdown=1,
            )
        )
        self._box = box

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave them alone."""
        yield

    async def main_loop(self) -> None:
        """Serve until `end`."""
        time_goes_on = asyncio.create_task(self._box.run())
        try:
            await super().main_loop()
        finally:
            time_goes_on.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await time_goes_on

    def end(self) -> None:
        """Let `serve` return soon."""
        self.should_exit = True
