"""Who calls: their token, and whether their browser sent it on our own page's behalf."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, Request
from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.types import Scope

from comfyweb.access.sessions import Session
from comfyweb.control.services import services
from comfyweb.settings import Settings

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
COOKIE = "auth-token"
SESSION = "comfyweb.session"


@dataclass(frozen=True, slots=True)
class Token:
    """What was sent as a token, unchecked. A browser adds a cookie by itself, even to another site's request."""

    text: str
    by_cookie: bool = False


def token_of(scope: Scope) -> Token | None:
    """Return the token of a request. `x-auth-token` goes before `Authorization: Bearer`, and that before the cookie."""
    bearer = cookie = ""
    for name, value in scope["headers"]:
        if name == b"x-auth-token":
            return Token(value.decode("latin-1").strip())
        if name == b"authorization":
            kind, _, rest = value.decode("latin-1").partition(" ")
            bearer = rest.strip() if kind.lower() == "bearer" else ""
        elif name == b"cookie":
            cookie = cookie_parser(value.decode("latin-1")).get(COOKIE, cookie)
    if bearer:
        return Token(bearer)
    return Token(cookie, by_cookie=True) if cookie else None


def now() -> datetime:
    """Return the time by which sessions are judged."""
    return datetime.now(UTC)


def session_of(token: Token | None) -> Session | None:
    """Return the live session that a token belongs to. Raises NotStarted."""
    return services.sessions.verify(token.text, now()) if token else None


async def session_met(token: Token | None) -> Session | None:
    """Return the same, for a request: also a session that another worker has begun just now. Raises NotStarted."""
    session = session_of(token)
    if session is None and token is not None:
        await services.sessions.meet(token.text)
        session = session_of(token)
    return session


def from_own_page(scope: Scope, settings: Settings) -> bool:
    """Tell whether a browser sent this request for a page of ours.

    Same-site is not enough: ComfyUI's host name is a sibling of ours, and its nodes bring scripts of their own.
    A browser that sends no Sec-Fetch-Site (older ones, and all on plain http) does send Origin with unsafe methods.
    """
    headers = Headers(scope=scope)
    if (site := headers.get("sec-fetch-site")) is not None:
        return site == "same-origin"
    return headers.get("origin", "") in settings.origins(headers.get("host", ""))


def _session(request: Request) -> Session:
    """Return the session that `Guard` has checked; without it there is none, and the request fails."""
    session: Session = request.scope[SESSION]
    return session


Caller = Annotated[Session, Depends(_session)]
