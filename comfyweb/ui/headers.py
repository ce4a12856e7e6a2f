"""The headers by which browsers protect the page and whoever uses it, on every answer.

The page carries a login in its storage, and beside it runs ComfyUI, whose nodes bring scripts of strangers. So the
page runs no script but its own files and the few inline ones of its build, by hash; it is framed by nobody; and only
ComfyUI's origin may be framed or called.
"""

import re
from collections.abc import Iterable
from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from comfyweb.settings import Settings
from comfyweb.settings_checks import LOOPBACK, host_of

A_YEAR = 31_536_000
REFUSAL = "websocket.http.response"
BARE = "default-src 'none'; frame-ancestors 'none'"  # of what is no page, should a browser show it as one


class SecurityHeaders:
    """ASGI layer around everything. `script_hashes` are the CSP sources of the pages' inline scripts."""

    def __init__(self, app: ASGIApp, settings: Settings, script_hashes: Iterable[str]) -> None:
        self._app = app
        common = [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            # A tab opened from here is ComfyUI's, and must not hold on to this one.
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
        ]
        if remembers_https(settings.public_url):
            common.append(("strict-transport-security", f"max-age={A_YEAR}"))
        common.append(("permissions-policy", _features()))
        self._page = _encoded([*common, ("content-security-policy", page_policy(settings, script_hashes))])
        self._other = _encoded([*common, ("content-security-policy", BARE)])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and add the headers to its answer; what is inside can't set others."""

        async def send_protected(message: Message) -> None:
            match message["type"]:
                case "http.response.start" | "websocket.http.response.start":
                    sent = [(name.lower(), value) for name, value in message.get("headers", ())]
                    kinds = [value for name, value in sent if name == b"content-type"]
                    is_page = bool(kinds) and kinds[0].startswith(b"text/html")
                    message = {**message, "headers": [*sent, *(self._page if is_page else self._other)]}
                case "websocket.accept":
                    answered.append(True)  # granian sends no headers with a 101
                case "websocket.close" if not answered and REFUSAL in scope.get("extensions", {}):
                    # The handshake is refused, and the server would say so without these headers.
                    answered.append(True)
                    refused = {"type": f"{REFUSAL}.start", "status": HTTPStatus.FORBIDDEN, "headers": self._other}
                    await send(refused)
                    message = {"type": f"{REFUSAL}.body", "body": b""}
                case _:
                    pass
            await send(message)

        answered: list[bool] = []
        await self._app(scope, receive, send_protected)


def remembers_https(public_url: str) -> bool:
    """Tell whether browsers shall be told to come by https alone from now on (HSTS).

    They believe it only from a certificate that they trust (RFC 6797, 8.1), so one that nobody signed locks nobody out.
    It counts for a host name on every port: said by localhost, or a name without a dot, it would break whatever else is
    developed there. Addresses have no HSTS (8.1.1).
    """
    host = host_of(public_url)
    if not public_url.startswith("https://") or host.startswith("["):
        return False
    labels = host.rstrip(".").split(".")
    return len(labels) > 1 and labels[-1] != "localhost" and not labels[-1].isdigit()


def page_policy(settings: Settings, script_hashes: Iterable[str]) -> str:
    """Return the Content-Security-Policy of pages."""
    own_socket = re.sub("^http", "ws", settings.public_url)  # 'self' covers websockets only in newer browsers
    comfyui = _framed(settings)
    rules = {
        "default-src": ["'self'"],
        "script-src": ["'self'", *sorted(script_hashes)],
        "style-src": ["'self'", "'unsafe-inline'"],  # React and Swagger UI set styles; they carry no data away
        "img-src": ["'self'", "data:", "blob:"],
        "connect-src": ["'self'", own_socket, *comfyui],
        "frame-src": comfyui or ["'none'"],
        "object-src": ["'none'"],
        "base-uri": ["'self'"],
        "form-action": ["'self'"],
        "frame-ancestors": ["'none'"],
    }
    return "; ".join(f"{name} {' '.join(sources)}" for name, sources in rules.items())


def _framed(settings: Settings) -> list[str]:
    """Return ComfyUI's origin where browsers would frame it: over https, or on this machine."""
    url = settings.comfyui_address
    return [url] if url.startswith("https://") or host_of(url) in LOOPBACK else []


def _features() -> str:
    """Return the Permissions-Policy. Camera and microphone stay: ComfyUI has nodes that ask for them."""
    refused = ("browsing-topics", "display-capture", "geolocation", "midi", "payment", "publickey-credentials-get")
    return ", ".join(f"{name}=()" for name in (*refused, "serial", "usb", "xr-spatial-tracking"))


def _encoded(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers]
