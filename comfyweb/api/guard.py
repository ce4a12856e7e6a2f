"""Lets nobody in who isn't logged in. Everything is guarded but what is named here, so a new route is closed at first.

It stands before the routes, not in them: a stranger's body isn't read, and no route can forget it.
"""

from http import HTTPStatus

from starlette.types import ASGIApp, Receive, Scope, Send

from comfyweb.api.caller import SAFE_METHODS, SESSION, from_own_page, session_met, token_of
from comfyweb.api.problems import problem, unauthorized
from comfyweb.control.services import services

PUBLIC = frozenset({"/healthz", "/readyz", "/api/auth/login", "/api/openapi.json", "/api/docs", "/metrics"})
PUBLIC_FOLDER = "/api/docs/"

FOREIGN_PAGE = "A cookie from another page is no login. Programs send the token as x-auth-token."


class Guard:
    """ASGI layer: answers 401 and 403 itself, and hands the session on in the scope."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on if it is public or its session lives."""
        if scope["type"] != "http" or is_public(scope["path"]):
            await self._app(scope, receive, send)
            return
        token = token_of(scope)
        session = await session_met(token)
        if token is None or session is None:
            await unauthorized()(scope, receive, send)
        elif token.by_cookie and scope["method"] not in SAFE_METHODS and not from_own_page(scope, services.settings):
            await problem(HTTPStatus.FORBIDDEN, FOREIGN_PAGE)(scope, receive, send)
        else:
            await self._app({**scope, SESSION: session}, receive, send)


def is_public(path: str) -> bool:
    """Tell whether strangers may ask for this path."""
    return path in PUBLIC or path.startswith(PUBLIC_FOLDER)
