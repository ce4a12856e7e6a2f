"""One HTTP request that ends when it should: the time limit is for all of it, not for each piece of the answer."""

import http.client
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast
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
    """Ask the server at `base`, an `http://` or `https://` address. Raises AskError; proxies are ignored.

    What the system's name servers take for the name is not counted.
    """
    connection = _Connection(base, seconds=request.seconds)
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


class _Timed:
    """Of a socket: a moment at which whatever waits to receive gives up."""

    until: float

    def recv_into(self, *args: object, **more: object) -> int:
        """Receive, until then."""
        self.settimeout(_left(self.until))  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        return super().recv_into(*args, **more)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]


class _Plain(_Timed, socket.socket):  # pyright: ignore[reportIncompatibleMethodOverride]
    pass


class _Tls(_Timed, ssl.SSLSocket):  # pyright: ignore[reportIncompatibleMethodOverride]
    pass


class _Connection(http.client.HTTPConnection):
    def __init__(self, base: str, *, seconds: float) -> None:
        self._until = time.monotonic() + seconds
        parts = urlsplit(base)
        self._tls = parts.scheme == "https"
        try:
            port = parts.port or (http.client.HTTPS_PORT if self._tls else http.client.HTTP_PORT)
        except ValueError as error:
            raise AskError(str(error)) from error
        super().__init__(parts.hostname or "", port)

    def connect(self) -> None:
        """Connect with a socket that keeps the time limit."""
        self.sock = _connected(self.host, self.port, self._until)
        if self._tls:
            context = ssl.create_default_context()
            context.sslsocket_class = _Tls
            self.sock.settimeout(_left(self._until))  # for all of the handshake
            self.sock = context.wrap_socket(self.sock, server_hostname=self.host)
            cast("_Tls", self.sock).until = self._until


def _connected(host: str, port: int, until: float) -> socket.socket:
    """Return a connection to the first of the host's addresses that takes one. Raises OSError."""
    failed = OSError("it has no address")
    for family, kind, protocol, _, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        made = _Plain(family, kind, protocol)
        made.until = until
        try:
            made.settimeout(_left(until))
            made.connect(place)
        except OSError as error:
            made.close()
            failed = error
        else:
            return made
    raise failed


def _left(until: float) -> float:
    """Return how many seconds there are until then. Raises TimeoutError when there are none."""
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError("too slow")
    return left
