"""The emulated Compute Engine inside the test's own process: in a thread, on a free port, with the clock it wants."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import httpx
from starlette.types import ASGIApp

from comfyweb.demo.box import Box
from comfyweb.demo.clock import ManualClock, SystemClock
from comfyweb.demo.guest import Guest
from comfyweb.demo.model import Machine, Times
from comfyweb.demo.server import HOST, Server, app_of, bound
from comfyweb.demo.world import World

STARTED = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


class CloudBox:
    """An emulator on loopback. `url` is its endpoint, `world` what it emulates, `control` its control endpoint.

    With `manual=True` time stands still unless `advance` moves it, and Compute Engine is as slow as the real one;
    otherwise every transition takes at most 0.3 s. `middleware` wraps the app (to check what it answers).
    """

    def __init__(
        self,
        *,
        manual: bool = False,
        times: Times | None = None,
        guest: Guest | None = None,
        middleware: Callable[[ASGIApp], ASGIApp] | None = None,
    ) -> None:
        self.clock = ManualClock(STARTED) if manual else SystemClock()
        self._world = World(now=self.clock.now(), times=times or (Times() if manual else Times.fast()))
        self.box = Box(self._world, clock=self.clock, guest=guest)
        socket = bound(0)
        self.port: int = socket.getsockname()[1]
        self.url = f"http://{HOST}:{self.port}"
        self._http = httpx.Client(timeout=10)
        app: ASGIApp = app_of(self.box)
        self._server = Server(middleware(app) if middleware else app, self.box)
        self._thread = threading.Thread(target=self._server.run, args=([socket],), daemon=True)
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

    def close(self) -> None:
        """End the server and its thread."""
        self._http.close()
        self._server.end()
        self._thread.join(timeout=10)
        assert not self._thread.is_alive(), "the emulator did not end"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
