"""People and the app, who come to a machine over the network as they do in the world: by nginx."""

import contextlib
import hashlib
import http.client
import json
import socket
from dataclasses import dataclass, field

from tests.demo.standin_machine import APP, App, Clocks
from tests.machines.machine import Machine
from tests.machines.network import GUEST

HTTP = 80


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def cookie(self) -> str:
        """The cookie that it sets, as a browser sends it."""
        return self.headers.get("set-cookie", "").partition(";")[0]


@dataclass
class Visitor:
    """Somebody outside of a machine that takes `app` for its app."""

    machine: Machine
    app: App = field(default_factory=lambda: App(Clocks(), APP))  # pyright: ignore[reportArgumentType] - reads the time

    def introduce(self) -> None:
        """Let the machine's metadata say whom to believe."""
        self.machine.metadata(comfyweb_app_origin=APP, comfyweb_keys=self.app.jwks)

    def ask(self, path: str, method: str = "GET", body: object = None, **headers: str) -> Answer:
        """Ask from outside; underscores in header names stand for dashes. Raises `OSError`."""
        connection = http.client.HTTPConnection(GUEST, HTTP, timeout=10)
        connection.sock = self.machine.network.reach(HTTP)
        content = None if body is None else json.dumps(body).encode()
        with contextlib.closing(connection):
            connection.request(method, path, content, {k.replace("_", "-"): v for k, v in headers.items()})
            answer = connection.getresponse()
            names = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, names, answer.read().decode())

    def status(self, path: str = "/", **headers: str) -> int:
        """Return what is answered, 0 when nobody does."""
        try:
            return self.ask(path, **headers).status
        except (OSError, http.client.HTTPException):
            return 0

    def enter(self, ticket: str = "") -> str:
        """Come in with a ticket, and return the cookie; empty when that is refused."""
        return self.ask(f"/_host/gate?ticket={ticket or self.app.ticket()}").cookie

    def call(self, method: str, path: str, body: object) -> Answer:
        """Command the host as the app does."""
        digest = hashlib.sha256(json.dumps(body).encode()).hexdigest()
        token = self.app.token(purpose="host", htm=method, htu=f"http://{GUEST}{path}", body_sha256=digest)
        return self.ask(path, method, body, Authorization=f"Bearer {token}")

    def websocket(self, cookie: str) -> socket.socket | None:
        """Open a websocket; None when it is refused."""
        made = self.machine.network.reach(HTTP)
        lines = {
            "Host": GUEST,
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            "Cookie": cookie,
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        made.sendall(f"GET /ws?clientId=1 HTTP/1.1\r\n{head}\r\n".encode())
        made.settimeout(10)
        if b" 101 " in made.recv(4096):
            return made
        made.close()
        return None
