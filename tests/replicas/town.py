"""Two apps and more beside one demo cloud, one PostgreSQL and one Redis, as processes that can be killed."""

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx

from comfyweb.demo.launch import app_environment
from tests.launching import PATIENCE, Program, children, free_ports

PASSWORD = "a quiet river at dawn"
TOKEN = "7d0b1f6c1d2e4a5988776655aabbccdd"
MACHINE = "demo-project/us-central1-a/comfyui-gpu"


T = TypeVar("T")


def until(ready: Callable[[], T | None]) -> T:
    """Wait until that is so; return what it returned."""
    end = time.monotonic() + PATIENCE
    while not (found := ready()):
        assert time.monotonic() < end
        time.sleep(0.1)
    return found


def machine_calls(port: int) -> list[str]:
    """Return the starts and stops that the emulated Compute Engine at this port was made to do, in order."""
    zone = f"http://localhost:{port}/compute/v1/projects/demo-project/zones/us-central1-a"
    newest_first = httpx.get(f"{zone}/operations").json().get("items", [])
    kinds = [each["operationType"] for each in reversed(newest_first)]
    return [kind for kind in kinds if kind in {"start", "stop"}]


class App:
    """One process that serves the machine, asked by REST."""

    def __init__(self, port: int, environ: dict[str, str]) -> None:
        self._environ = environ | {"PORT": str(port)}
        self._login: dict[str, str] = {}
        self.move(port)

    def move(self, port: int) -> None:
        """Ask it at this port from now on."""
        self.url = f"http://localhost:{port}"
        self.client = httpx.Client(base_url=self.url, timeout=30)

    def start(self) -> None:
        """Start it and wait until it serves."""
        self.launch()
        self.serves()

    def launch(self) -> None:
        """Start it."""
        self.program = Program("-m", "comfyweb", environ=self._environ)

    def serves(self) -> None:
        """Wait until it serves."""
        self.program.answers(f"{self.url}/healthz")

    @property
    def leads(self) -> bool:
        """Whether it runs the machine's loop."""
        told = self.client.get("/metrics", headers={"authorization": f"Bearer {TOKEN}"}).text
        return re.search(r"^comfyweb_loop_leads 1\.0$", told, re.MULTILINE) is not None

    @property
    def calls(self) -> bool:
        """Whether it has called Compute Engine."""
        return (
            "comfyweb_compute_engine_calls_total{"
            in self.client.get("/metrics", headers={"authorization": f"Bearer {TOKEN}"}).text
        )

    def log_in(self) -> dict[str, str]:
        """Log in here; return the login."""
        answer = self.client.post("/api/auth/login", json={"password": PASSWORD})
        assert answer.status_code == 200, answer.text
        return {"x-auth-token": answer.json()["token"]}

    def log_in_anew(self) -> None:
        """Ask by another login from now on."""
        self._login = self.log_in()

    def lets_in(self, login: dict[str, str]) -> bool:
        """Whether a login counts here."""
        return self.client.get("/api/auth/check", headers=login).status_code == 200

    def post(self, verb: str, **body: str) -> httpx.Response:
        """Ask something of the machine."""
        return self.client.post(f"/api/instance/{verb}", headers=self._logged_in(), json=body)

    def status(self) -> dict[str, Any]:
        """Return what it shows."""
        return dict(self.client.get("/api/instance/status", headers=self._logged_in()).json())

    def shows(self, phase: str) -> dict[str, Any]:
        """Wait until it shows this phase and nothing wrong."""

        def seen() -> dict[str, Any] | None:
            status = self.status()
            return status if status["phase"] == phase and status["fault"] is None else None

        return until(seen)

    def shows_fault(self, code: str) -> None:
        """Wait until it shows this fault."""
        until(lambda: self.status()["fault"] is not None and self.status()["fault"]["code"] == code)

    def kill(self) -> None:
        """End it with SIGKILL, the whole of it at once."""
        self._signal(signal.SIGKILL)
        self.program.ended()

    def stand_still(self) -> None:
        """Let it do nothing more, while its connections stay open."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def end(self) -> None:
        """End it as systemd and Docker do."""
        self.__exit__()

    def _logged_in(self) -> dict[str, str]:
        self._login = self._login or self.log_in()
        return self._login

    def _signal(self, number: signal.Signals) -> None:
        for pid in (self.program.pid, *children(self.program.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.go_on()
        self.program.__exit__()
        self.client.close()


class Town:
    """The demo's cloud, and the apps beside it."""

    def __init__(self, port: int, environ: dict[str, str], ends: contextlib.ExitStack) -> None:
        self._port = port
        self._environ = environ
        self._ends = ends

    def app(self, number: int, **settings: str) -> App:
        """Start another app; the first is number 0."""
        return self._ends.enter_context(App(self._port + 2 + number, self._environ | settings))

    def done(self) -> list[str]:
        """Return what Compute Engine was made to do, in order."""
        return machine_calls(self._port)


@contextlib.contextmanager
def town(folder: Path, database: str, redis: str | None) -> Generator[Town]:
    """Begin with a cloud and no app yet."""
    port = free_ports(5)
    environ = app_environment({}, port=port - 1, password=PASSWORD, folder=folder)
    environ |= {
        "COMFYUI_URL": f"http://localhost:{port + 1}",
        "DATABASE_URL": database,
        "METRICS_TOKEN": TOKEN,
        "PUBLIC_URL": f"http://localhost:{port + 2}",  # one name for all, as behind a balancer
    }
    if redis:
        environ["REDIS_URL"] = redis
    with (
        Program("-m", "comfyweb.demo", "--port", str(port), "--fast", environ={}) as cloud,
        contextlib.ExitStack() as ends,
    ):
        cloud.answers(f"http://localhost:{port}/control")
        yield Town(port, environ, ends)
