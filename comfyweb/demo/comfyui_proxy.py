"""A real ComfyUI behind the stand-in's gate, as nginx puts it there on a real host.

ComfyUI from 0.19 on answers 403 to every request with `Sec-Fetch-Site: cross-site`, so the header is hidden for the
one navigation that opens its page in a frame. It compares Host with Origin, so Host goes through as it came. Cookies
do not: its nodes have no business with them.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from http import HTTPStatus

import httpx
from starlette.background import BackgroundTask
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from comfyweb.demo.comfyui_tunnel import tunnel
from vm_setup.host.messages import Work
from vm_setup.host.reading import items, json_value, mapping

_LOG = logging.getLogger(__name__)
_HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding",
     "upgrade"}
)  # fmt: skip
_ANSWER_LIMIT = 50_000_000
_PROBE_SECONDS = 2.0


class RealComfyUI:
    """The ComfyUI at `url`; it is asked for its queue every `pause` seconds."""

    def __init__(self, url: str, *, pause: float) -> None:
        self._pause = pause
        self._url = httpx.URL(url)
        self._client = httpx.AsyncClient(
            base_url=url,
            timeout=httpx.Timeout(None, connect=5),
            limits=httpx.Limits(max_connections=None),
            trust_env=False,
        )
        self._work = Work()

    async def run(self) -> None:
        """Ask it how it does, until cancelled. While it doesn't answer, its queue is unknown."""
        version = ""
        while True:
            try:
                version = version or await self._version()
                queue = await self._ask("/queue")
                running, pending = (len(items(queue.get(name)) or []) for name in ("queue_running", "queue_pending"))
                self._work = Work(ready=True, version=version, running=running, pending=pending)
            except (httpx.HTTPError, ValueError) as error:
                _LOG.info("ComfyUI doesn't answer: %s", error or type(error))
                self._work = Work(version=version)
            await asyncio.sleep(self._pause)

    def work(self) -> Work:
        """Return what it said last."""
        return self._work

    async def close(self) -> None:
        """Let go of the connections."""
        await self._client.aclose()

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request or a websocket on to it."""
        if scope["type"] == "websocket":
            await tunnel(self._url, forwarded(scope), scope, receive, send)
            return
        answer = await self._forward(Request(scope, receive))
        await answer(scope, receive, send)

    async def _forward(self, request: Request) -> Response:
        headers = forwarded(request.scope)
        has_body = "content-length" in request.headers or "transfer-encoding" in request.headers
        outgoing = self._client.build_request(
            request.method,
            _target(request.scope),
            headers=headers,
            content=request.stream() if has_body else None,
        )
        try:
            incoming = await self._client.send(outgoing, stream=True)
        except httpx.HTTPError as error:
            _LOG.info("ComfyUI doesn't answer: %s", error or type(error))
            words = "ComfyUI does not answer at the moment."
            return PlainTextResponse(words, HTTPStatus.BAD_GATEWAY, {"Retry-After": "2"})
        answer = StreamingResponse(
            _until_broken(incoming), incoming.status_code, background=BackgroundTask(incoming.aclose)
        )
        answer.raw_headers = [(key.lower(), value) for key, value in incoming.headers.raw if _passes(key)]
        return answer

    async def _version(self) -> str:
        system = mapping((await self._ask("/system_stats")).get("system")) or {}
        return str(system.get("comfyui_version", "unknown"))

    async def _ask(self, path: str) -> dict[str, object]:
        answer = await self._client.get(path, timeout=_PROBE_SECONDS)
        found = mapping(json_value(answer.raise_for_status().content, limit=_ANSWER_LIMIT))
        if found is None:
            raise ValueError(f"{path} is no JSON object")
        return found


def forwarded(scope: Scope) -> list[tuple[str, str]]:
    """Return the headers of a request that go on to ComfyUI."""
    headers = Headers(scope=scope)
    opens_page = (
        scope["type"] == "http"
        and scope["method"] == "GET"
        and scope["path"] == "/"
        and headers.get("sec-fetch-mode") == "navigate"
    )
    dropped = {"cookie", "sec-fetch-site"} if opens_page else {"cookie"}
    return [(name, value) for name, value in headers.items() if name not in dropped and _passes(name.encode())]


def _passes(name: bytes) -> bool:
    return name.decode("latin-1").lower() not in _HOP_BY_HOP


def _target(scope: Scope) -> str:
    """Return the path and query of a request as they came, still encoded."""
    path = scope["raw_path"].decode("latin-1")
    query = scope["query_string"].decode("latin-1")
    return f"{path}?{query}" if query else path


async def _until_broken(incoming: httpx.Response) -> AsyncIterator[bytes]:
    """Give on the body as it comes, still compressed; a ComfyUI that dies midway ends it."""
    with contextlib.suppress(httpx.HTTPError):
        async for chunk in incoming.aiter_raw():
            yield chunk
