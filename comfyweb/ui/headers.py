"""The headers by which browsers protect the page and whoever uses it, on every answer.

The page carries a login in its storage, and beside it runs ComfyUI, whose nodes bring scripts of strangers. So the
page runs no script but its own files and the few inline ones of its build, by hash; it is framed by nobody; and only
ComfyUI's origin may be framed or called.
"""

import re
from collections.abc import Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from comfyweb.settings import Settings
from comfyweb.settings_checks import LOOPBACK, host_of

A_YEAR = 31_536_000
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
        if settings.public_url.startswith("https://"):
            common.append(("strict-transport-security", f"max-age={A_YEAR}"))
        page = [("content-security-policy", page_policy(settings, script_hashes)), ("permissions-policy", _features())]
        self._page = _encoded(common + page)
        self._other = _encoded([*common, ("content-security-policy", BARE)])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and add the headers to its answer; what is inside can't set others."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                sent = [(name.lower(), value) for name, value in message.get("headers", ())]
                is_page = any(name == b"content-type" and value.startswith(b"text/html") for name, value in sent)
                message = {**message, "headers": [*sent, *(self._page if is_page else self._other)]}
            await send(message)

        await self._app(scope, receive, send_protected)


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
    url = settings.comfyui_url or (f"https://{settings.comfyui_domain}" if settings.comfyui_domain else "")
    return [url] if url.startswith("https://") or host_of(url) in LOOPBACK else []


def _features() -> str:
    """Return the Permissions-Policy. Camera and microphone stay: ComfyUI has nodes that ask for them."""
    refused = ("browsing-topics", "display-capture", "geolocation", "midi", "payment", "publickey-credentials-get")
    return ", ".join(f"{name}=()" for name in (*refused, "serial", "usb", "xr-spatial-tracking"))


def _encoded(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers]
