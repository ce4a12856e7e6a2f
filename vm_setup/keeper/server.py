"""The host's calls, `/_host/*` of docs/contract.md, on loopback: the gate stands in front of them.

Whoever can open a connection here is on the machine already, and may read the status, which ComfyUI would tell him
too. What came in through the gate (it says X-Forwarded-For) needs the app's token for that as well, and every command
always needs it. Limits on bodies, time and connections keep a slow or a loud client from being anybody's trouble.
"""

import contextlib
import json
import logging
import re
import socket
import threading
import time
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Protocol, cast
from urllib.parse import parse_qs, urlsplit

from vm_setup.host import commands, tokens
from vm_setup.host.messages import Message

_LOG = logging.getLogger(__name__)
HOST = "127.0.0.1"
MOST_CONNECTIONS = 32
LONGEST_SECONDS = 15.0
ENTERED = "X-Comfyweb-Entered"  # nginx says with it that the gate was asked: not to be judged by the path once more
_SILENCE_SECONDS = 5.0
_FIRST_LINE = re.compile(rb"[A-Z]+ /[\x21-\x7e]* HTTP/1\.[01]\r?\n")
_LOG_LINES = 200
_MOST_LOG_LINES = 2000


class Host(Protocol):
    """What the calls are about. Each method may be called from any thread and returns soon."""

    def health(self) -> Message:
        """Return what anybody may know."""
        ...

    def status(self) -> Message:
        """Return all there is to tell."""
        ...

    def journal(self, lines: int) -> bytes:
        """Return the newest lines of the journal."""
        ...

    def check(self, token: str, request: tokens.Request) -> tokens.Claims | None:
        """Return what a token says when it is good for that request and was not used before."""
        ...

    def obey(self, command: commands.Command, claims: tokens.Claims) -> None:
        """Do what the app asks."""
        ...

    def used(self) -> None:
        """Take note of real input."""
        ...


class Server(ThreadingHTTPServer):
    """Serves `host` on loopback. Raises OSError when the port is taken."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, host: Host, *, port: int, longest: float = LONGEST_SECONDS) -> None:
        self.host = host
        self._longest = longest
        self._open: dict[socket.socket, float] = {}
        self._changing = threading.Lock()
        super().__init__((HOST, port), Handler)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.socket.getsockname()[1])

    def start(self) -> None:
        """Serve in a thread of its own."""
        threading.Thread(target=self.serve_forever, args=(0.2,), name="calls", daemon=True).start()

    def process_request(self, request: object, client_address: object) -> None:
        """Answer in a thread of its own, unless there are too many already."""
        connection = cast("socket.socket", request)
        with self._changing:
            full = len(self._open) >= MOST_CONNECTIONS
            if not full:
                self._open[connection] = time.monotonic()
        if full:
            self.shutdown_request(connection)
            return
        super().process_request(connection, client_address)  # pyright: ignore[reportArgumentType]

    def shutdown_request(self, request: object) -> None:
        """Let a connection go."""
        with self._changing:
            self._open.pop(cast("socket.socket", request), None)
        super().shutdown_request(request)  # pyright: ignore[reportArgumentType]

    def service_actions(self) -> None:
        """Hang up on whoever takes too long; called a few times a second."""
        now = time.monotonic()
        with self._changing:
            late = [one for one, began in self._open.items() if now - began > self._longest]
        for connection in late:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 - the base class's names
        """Say in one line what went wrong with a connection; clients hang up all the time."""
        _LOG.debug("A call was broken off.", exc_info=True)


class Handler(BaseHTTPRequestHandler):
    """One call."""

    raw_requestline: bytes
    timeout = _SILENCE_SECONDS
    server_version = "comfyweb"
    sys_version = ""

    def parse_request(self) -> bool:
        """Refuse a first line that the base class reads otherwise than nginx: it takes 0x85 and 0xA0 for blanks too."""
        if _FIRST_LINE.fullmatch(self.raw_requestline):
            return super().parse_request()
        self.requestline = self.request_version = self.command = ""
        self.close_connection = True
        self.send_error(HTTPStatus.BAD_REQUEST)
        return False

    def do_GET(self) -> None:
        """Answer health, status and logs."""
        path = urlsplit(self.path).path
        if path == "/_host/health":
            self._json(self._host.health())
        elif path == "/_host/status":
            if self._is_direct() or self._claims(b"") is not None:
                self._json(self._host.status())
        elif path == "/_host/logs":
            if self._claims(b"") is not None:
                self._answer(HTTPStatus.OK, self._host.journal(self._lines()), "text/plain; charset=utf-8")
        else:
            self._error(HTTPStatus.NOT_FOUND, "There is no such call.")

    def do_POST(self) -> None:
        """Take a command of the app, or ComfyUI's word that somebody is there."""
        body = self._body()
        if body is None:
            return
        if urlsplit(self.path).path == "/_host/activity":
            if self._is_direct() or self.headers.get(ENTERED) == "yes":
                self._host.used()
                self._answer(HTTPStatus.NO_CONTENT, b"")
            else:
                self._error(HTTPStatus.UNAUTHORIZED, "unauthorised")
            return
        claims = self._claims(body)
        if claims is None:
            return
        command = commands.read_command(self.command, urlsplit(self.path).path, commands.read_body(body))
        if command is None:
            self._error(HTTPStatus.BAD_REQUEST, "There is no such command, or its values are wrong.")
            return
        self._host.obey(command, claims)
        self._json(self._host.status())

    def do_DELETE(self) -> None:
        """Take a command that ends something."""
        self.do_POST()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Keep calls out of the journal, which is for what matters."""
        _LOG.debug(format, *args)

    @property
    def _host(self) -> Host:
        return cast("Server", self.server).host

    def _is_direct(self) -> bool:
        """Whether a program on the machine asks, without a token, and not the gate for somebody elsewhere."""
        return "Authorization" not in self.headers and "X-Forwarded-For" not in self.headers

    def _body(self) -> bytes | None:
        """Return the body, or None after having said what is wrong with it."""
        said = self.headers.get("Content-Length", "0")
        length = int(said) if said.isascii() and said.isdigit() else -1
        if "Transfer-Encoding" in self.headers or length < 0:
            self._error(HTTPStatus.LENGTH_REQUIRED, "Say how long the body is.")
            return None
        if length > commands.BODY_LIMIT:
            self._error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is too long.")
            return None
        body = self.rfile.read(length)
        return body if len(body) == length else None

    def _claims(self, body: bytes) -> tokens.Claims | None:
        """Return what the token says, or None after having refused the call: everybody is told the same."""
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        proto = self.headers.get("X-Forwarded-Proto", "http")
        url = f"{proto}://{self.headers.get('Host', '')}{self.path}"
        made_for = tokens.Request(method=self.command, url=url, body=body)
        claims = self._host.check(token.strip(), made_for) if scheme.lower() == "bearer" else None
        if claims is None:
            self._error(HTTPStatus.UNAUTHORIZED, "unauthorised")
        return claims

    def _lines(self) -> int:
        asked = parse_qs(urlsplit(self.path).query).get("lines", [""])[0][:6]
        lines = int(asked) if asked.isascii() and asked.isdigit() else _LOG_LINES
        return min(lines, _MOST_LOG_LINES)

    def _json(self, message: Mapping[str, object], status: HTTPStatus = HTTPStatus.OK) -> None:
        self._answer(status, json.dumps(message).encode(), "application/json")

    def _error(self, status: HTTPStatus, words: str) -> None:
        self._json({"error": words}, status)

    def _answer(self, status: HTTPStatus, body: bytes, kind: str = "") -> None:
        self.send_response(status)
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        if kind:
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
