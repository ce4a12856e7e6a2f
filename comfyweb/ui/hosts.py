"""By which names the app answers while PUBLIC_URL is loopback.

A foreign site can let its own name resolve to 127.0.0.1 and then read, as its own origin, what answers there (DNS
rebinding); so only this machine's names are answered. A browser keeps storage apart for each of them, therefore
pages are had at one, `localhost`, on whatever port the browser came by.
"""

import re
from http import HTTPStatus

from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from comfyweb.settings import Settings
from comfyweb.settings_checks import LOOPBACK, host_of

HOST = re.compile(r"(?P<name>localhost|127\.0\.0\.1|\[::1\])(?P<port>:[0-9]{1,5})?", re.IGNORECASE)
NAME = "localhost"
PROGRAMS = ("/api/", "/healthz", "/readyz", "/metrics")  # programs don't follow a redirect with their request's body
FOREIGN = "comfyweb is set up for localhost and does not answer to another name. Set PUBLIC_URL to this address.\n"


class Hosts:
    """ASGI layer: refuses foreign names with 421, and sends pages asked for by address to `localhost`."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._only_ours = host_of(settings.public_url) in LOOPBACK
        self._scheme = settings.public_url.partition("://")[0]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on if its Host is one of ours."""
        if not self._only_ours or scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        host = HOST.fullmatch(_host(scope))
        if scope["type"] == "websocket":
            await (self._app(scope, receive, send) if host else send({"type": "websocket.close", "code": 1008}))
        elif host is None:
            await PlainTextResponse(FOREIGN, HTTPStatus.MISDIRECTED_REQUEST)(scope, receive, send)
        elif host["name"].lower() == NAME or scope["path"].startswith(PROGRAMS):
            await self._app(scope, receive, send)
        else:
            address = scope.get("raw_path", scope["path"].encode()).decode("latin-1")
            query = "?" + scope["query_string"].decode("latin-1") if scope["query_string"] else ""
            location = f"{self._scheme}://{NAME}{host['port'] or ''}{address}{query}"
            await Response(status_code=HTTPStatus.TEMPORARY_REDIRECT, headers={"location": location})(
                scope, receive, send
            )


def _host(scope: Scope) -> str:
    """Return the Host header, or nothing when there are several."""
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    return hosts[0].decode("latin-1") if len(hosts) == 1 else ""
