"""The emulated Compute Engine inside the test's own process: in a thread, on a free port, with the clock it wants."""

import socket
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import httpx
from starlette.types import ASGIApp

from comfyweb.demo.box import Box
from comfyweb.demo.clock import ManualClock, SystemClock
from comfyweb.demo.cloud import Cloud
from comfyweb.demo.guest import Guest
from comfyweb.demo.identity import Identity
from comfyweb.demo.listening import HOST, bound
from comfyweb.demo.model import Machine, Times
from comfyweb.demo.server import Server, app_of
from comfyweb.demo.world import World
from tests.demo.discovery import Examiner

STARTED = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


class CloudBox:
    """An emulator on loopback. `url` is its endpoint, `world` what it emulates, `control` its control endpoint.

    With `manual=True` time stands still unless `advance` moves it, and Compute Engine is as slow as the real one;
    otherwise every transition takes at most 0.3 s. `identity` says whose calls are answered: everybody's unless given.
    `middleware` wraps the app. Every call to it, and every answer, is held to Google's discovery document. `sockets`
    are further ones that it answers on and then closes.
    """

    def __init__(
        self,
        *,
        manual: bool = False,
        times: Times | None = None,
        guest: Guest | None = None,
        identity: Identity | None = None,
        middleware: Callable[[ASGIApp], ASGIApp] | None = None,
        sockets: Sequence[socket.socket] = (),
    ) -> None:
        self.clock = ManualClock(STARTED) if manual else SystemClock()
        self._times = times or (Times() if manual else Times.fast())
        self._world = World(now=self.clock.now(), times=self._times)
        self.box = Box(self._world, clock=self.clock, guest=guest, identity=identity)
        own = bound(0)
        self.port: int = own.getsockname()[1]
        self.url = f"http://{HOST}:{self.port}"
        # Made without the certificates of the world, which take longer to read than most tests.
        self._http = httpx.Client(timeout=10, transport=httpx.HTTPTransport(verify=False))
        app: ASGIApp = app_of(self.box)
        self.examiner = Examiner()
        self._server = Server(self.examiner.wrap(middleware(app) if middleware else app), self.box)
        self._thread = threading.Thread(target=self._server.run, args=([own, *sockets],), daemon=True)
        self._thread.start()

    @property
    def world(self) -> World:
        """What is emulated, as of the last call or tick (a few hundredths of a second ago at most).

        Look at it; let `control` change it, since it lives in the server's thread.
        """
        return self._world

    @property
    def machine(self) -> Machine:
        """The machine that every world begins with."""
        return next(iter(self.world.machines.values()))

    def control(self, path: str, body: dict[str, Any] | None = None, *, method: str = "POST") -> dict[str, Any]:
        """Call `/control/PATH`; fails unless it answers 200. Returns the state afterwards."""
        answer = self._http.request(method, f"{self.url}/control/{path}".rstrip("/"), json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def fault(self, kind: str, **more: Any) -> None:
        """Let something go wrong."""
        self.control("fault", {"kind": kind, **more})

    def advance(self, by: timedelta | float) -> None:
        """Let time pass, in seconds unless it is a timedelta; only with a manual clock."""
        seconds = by.total_seconds() if isinstance(by, timedelta) else by
        self.control("clock", {"advance_seconds": seconds})

    def anew(self) -> None:
        """Begin again with a new world, at the time that a manual clock begins with; the server goes on."""
        self._world = World(now=STARTED, times=self._times)
        self.clock = self.box.clock = ManualClock(STARTED)
        self.box._cloud = Cloud(self._world)

    def close(self) -> None:
        """End the server and its thread."""
        self._http.close()
        self._server.end()
        self._thread.join(timeout=10)
        assert not self._thread.is_alive(), "the emulator did not end"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_error: object) -> None:
        self.close()
        assert kind or not self.examiner.found, self.examiner.found
