"""HTTP/1.1 as nginx speaks it to us: one head, no body, and a short answer.

Only nginx reaches our sockets. It has read and checked the request already and writes it anew, so what is read here is
not what a stranger typed; whatever still isn't plain ends the connection.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

HEAD_LIMIT = 131072  # nginx lets in at most 4 buffers of 8 KB, and adds a few lines
_END = b"\r\n\r\n"
_WORDS = 3


class NotPlain(Exception):
    """What came in is no request that we answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The head of a request. Header names are in small letters, in their order."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]

    def all(self, name: str) -> list[str]:
        """Return the values of every header of that name."""
        return [value for known, value in self.headers if known == name]

    def one(self, name: str, default: str = "") -> str:
        """Return the value of the first header of that name."""
        return next(iter(self.all(name)), default)


async def read_head(reader: asyncio.StreamReader) -> Head | None:
    """Return the next request's head; None when the connection has ended. Raises `NotPlain`, and OSError."""
    try:
        raw = await reader.readuntil(_END)
    except asyncio.IncompleteReadError as cut:
        if cut.partial:
            raise NotPlain("it ended within a head") from None
        return None
    except asyncio.LimitOverrunError:
        raise NotPlain("the head is too long") from None
    first, *lines = raw[: -len(_END)].decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != _WORDS or words[2] not in {"HTTP/1.1", "HTTP/1.0"}:
        raise NotPlain("the first line is none")
    return Head(method=words[0], target=words[1], headers=tuple(map(_header, lines)))


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not name or name != name.strip() or "\n" in line or "\r" in line:
        raise NotPlain("a header is none")
    return name.lower(), value.strip()


def has_body(head: Head) -> bool:
    """Whether a body follows. Ours have none: nginx is told to leave it out."""
    return bool(head.all("transfer-encoding")) or any(value != "0" for value in head.all("content-length"))


def answer(status: HTTPStatus, headers: Mapping[str, str] | None = None) -> bytes:
    """Return an answer without a body, which nobody may keep."""
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", "Cache-Control: no-store"]
    if status is not HTTPStatus.NO_CONTENT:
        lines.append("Content-Length: 0")
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
