"""One HTTP request that ends when it should: the time limit is for all of it, not for each piece of the answer."""

import http.client
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit


class AskError(Exception):
    """No usable answer."""


class AskRefusedError(AskError):
    """Nobody listens there."""


class AskTooLongError(AskError):
    """The answer is longer than we read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to ask, `seconds` the limit for everything together, `limit` the most bytes of the answer's body."""

    method: str = "GET"
    path: str = "/"
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    seconds: float = 2.0
    limit: int = 2_000_000


def ask(base: str, request: Request) -> Answer:
    """Ask the server at `base`, an `http://` address. Raises AskError; proxies in the environment are ignored."""
    parts = urlsplit(base)
    connection = _Connection(parts.hostname or "", parts.port or 80, seconds=request.seconds)
    try:
        connection.request(request.method, request.path, body=request.body, headers=dict(request.headers))
        response = connection.getresponse()
        body = response.read(request.limit + 1)
        if len(body) > request.limit:
            raise AskTooLongError(f"more than {request.limit} bytes")
        if response.length:
            raise AskError("the answer ends in its middle")
        return Answer(
            status=response.status, headers={name.lower(): value for name, value in response.getheaders()}, body=body
        )
    except ConnectionRefusedError as error:
        raise AskRefusedError(str(error)) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise AskError(str(error) or type(error).__name__) from error
    finally:
        connection.close()


class _Timed(socket.socket):
    """A socket with a moment at which whatever waits for it gives up."""

    until: float

    def recv_into(self, *args: object, **more: object) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Receive, until then."""
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError("too slow")
        self.settimeout(left)
        return super().recv_into(*args, **more)  # pyright: ignore[reportArgumentType, reportCallIssue]


class _Connection(http.client.HTTPConnection):
    def __init__(self, host: str, port: int, *, seconds: float) -> None:
        super().__init__(host, port, timeout=seconds)
        self._until = time.monotonic() + seconds

    def connect(self) -> None:
        """Connect with a socket that keeps the time limit."""
        plain = socket.create_connection((self.host, self.port), timeout=self.timeout)
        timed = _Timed(fileno=plain.detach())
        timed.until = self._until
        timed.settimeout(self.timeout)
        self.sock = timed
