"""Serves the built page from memory: what was there at the start and has a type we know; nothing else exists.

So no request reaches the file system, no path leads out of the folder, and a build that runs beside a serving process
can't mix two pages.
"""

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

BUILT = Path(".web/build/client")
PAGE = "text/html; charset=utf-8"
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": PAGE,
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}
LOST = "/404"
FALLBACK = "/__spa-fallback"  # Reflex's page for routes with parameters, of which we have none
HASHED = re.compile(r"/assets/.+-[\w-]{8}\.\w+")  # Vite puts 8 characters of the content's hash into each name
FOREVER = "public, max-age=31536000, immutable"
ASK = "no-cache"  # may be kept, but is asked about each time
INLINE_SCRIPT = re.compile(rb"<script(?![^>]*\bsrc=)[^>]*>(.*?)</script>", re.DOTALL)


class NotBuiltError(Exception):
    """There is no built page."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One encoding of a file, with the headers that are the same for all requests."""

    body: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    etag: str


@dataclass(frozen=True, slots=True)
class File:
    """One file as it is and, where the build made it, in Brotli."""

    plain: Variant
    brotli: Variant | None = None
    script_hashes: frozenset[str] = field(default_factory=frozenset[str])


class BuiltPage:
    """ASGI app with the files of a build. Answers GET and HEAD; an unknown path gets the page that says so, and 404."""

    def __init__(self, files: Mapping[str, File]) -> None:
        self._files = files

    @classmethod
    def read(cls, folder: Path = BUILT) -> "BuiltPage":
        """Read a build. Raises NotBuiltError when it isn't there or isn't whole."""
        files = {_address(path, folder): _file(path, folder) for path in _servable(folder)}
        if not {"/", LOST} <= files.keys():
            raise NotBuiltError("The page is not built: run `make build` first.")
        return cls({address: file for address, file in files.items() if address != FALLBACK})

    @property
    def script_hashes(self) -> frozenset[str]:
        """Return the CSP sources of all inline scripts in the pages, such as `'sha256-…'`."""
        return frozenset[str]().union(*(file.script_hashes for file in self._files.values()))

    @property
    def addresses(self) -> Iterable[str]:
        """Return the paths that exist."""
        return self._files.keys()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        del receive
        if scope["method"] not in {"GET", "HEAD"}:
            await _send(send, HTTPStatus.METHOD_NOT_ALLOWED, ((b"allow", b"GET, HEAD"), (b"content-length", b"0")))
            return
        path = scope["path"]
        found = None if path == LOST else self._files.get(path if path == "/" else path.removesuffix("/"))
        file, status = (found, HTTPStatus.OK) if found else (self._files[LOST], HTTPStatus.NOT_FOUND)
        headers = Headers(scope=scope)
        variant = file.brotli if file.brotli and _takes_brotli(headers.get("accept-encoding", "")) else file.plain
        if found and _has(headers.get("if-none-match", ""), variant.etag):
            # The type stays: by it the layer around this one knows a page, and a browser takes a 304's policy over.
            kept = tuple(header for header in variant.headers if header[0] != b"content-length")
            await _send(send, HTTPStatus.NOT_MODIFIED, kept)
            return
        await _send(send, status, variant.headers, b"" if scope["method"] == "HEAD" else variant.body)


async def _send(send: Send, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes = b"") -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})


def _takes_brotli(accept_encoding: str) -> bool:
    """Tell whether a request takes `br`; RFC 9110, 12.5.3, says that q=0 refuses."""
    offered = re.search(r"(?:^|,)\s*br\s*(?:;\s*q=([01](?:\.\d{0,3})?)\s*)?(?:,|$)", accept_encoding, re.IGNORECASE)
    return offered is not None and float(offered[1] or 1) > 0


def _has(if_none_match: str, etag: str) -> bool:
    """Tell whether the client holds this variant already; proxies that compress weaken the tag."""
    return etag in (tag.strip().removeprefix("W/") for tag in if_none_match.split(",")) or if_none_match.strip() == "*"


def _servable(folder: Path) -> Iterable[Path]:
    root = folder.resolve()
    for path in sorted(folder.rglob("*")):
        if path.suffix in TYPES and path.is_file() and path.resolve().is_relative_to(root):
            yield path


def _address(path: Path, folder: Path) -> str:
    """Return the path of a file's address; pages have no suffix."""
    address = f"/{path.relative_to(folder).as_posix()}"
    return re.sub(r"(/index)?\.html$", "", address) or "/"


def _file(path: Path, folder: Path) -> File:
    body, squeezed = path.read_bytes(), path.with_name(f"{path.name}.br")
    cache = FOREVER if HASHED.fullmatch(f"/{path.relative_to(folder).as_posix()}") else ASK
    common = [("content-type", TYPES[path.suffix]), ("cache-control", cache)]
    scripts = INLINE_SCRIPT.findall(body) if path.suffix == ".html" else []
    if not squeezed.is_file():
        return File(_variant(body, common), None, frozenset(map(_csp_source, scripts)))
    common.append(("vary", "accept-encoding"))
    brotli = _variant(squeezed.read_bytes(), [*common, ("content-encoding", "br")])
    return File(_variant(body, common), brotli, frozenset(map(_csp_source, scripts)))


def _variant(body: bytes, headers: Iterable[tuple[str, str]]) -> Variant:
    etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
    lines = [*headers, ("etag", etag), ("content-length", str(len(body)))]
    return Variant(body, tuple((name.encode(), value.encode()) for name, value in lines), etag)


def _csp_source(script: bytes) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'"
