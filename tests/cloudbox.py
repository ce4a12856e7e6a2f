"""The emulated Compute Engine inside the test's own process: in a thread, on a free port, with the clock it wants."""

import asyncio
import contextlib
import functools
import pickle
import socket
import threading
from collections.abc import Callable, Generator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import cloudpickle
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


class _Served(Server):
    """A server that other threads can have something done by, in its own thread."""

    def __init__(self, app: ASGIApp, box: Box) -> None:
        super().__init__(app, box)
        self._serving = threading.Event()

    async def main_loop(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._serving.set()
        await super().main_loop()

    def do(self, what: Callable[[], object]) -> None:
        """Have it done between two answers, and wait for it."""

        async def done() -> None:
            what()

        assert self._serving.wait(10), "the emulator did not begin"
        asyncio.run_coroutine_threadsafe(done(), self._loop).result(10)


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
        self._manual = manual
        self._times = times or (Times() if manual else Times.fast())
        self._new_world()
        self.box = Box(self._world, clock=self.clock, guest=guest, identity=identity)
        own = bound(0)
        self.port: int = own.getsockname()[1]
        self.url = f"http://{HOST}:{self.port}"
        # Made without the certificates of the world, which take longer to read than most tests.
        self._http = httpx.Client(timeout=10, transport=httpx.HTTPTransport(verify=False))
        app: ASGIApp = app_of(self.box)
        self.examiner = Examiner()
        self._server = _Served(self.examiner.wrap(middleware(app) if middleware else app), self.box)
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
        """Let time pass, in seconds unless it is a timedelta; only with a manual clock.

        Not by `control`, which takes ten times as long: some tests live through hours.
        """
        clock = self.clock
        assert isinstance(clock, ManualClock)
        clock.advance(by if isinstance(by, timedelta) else timedelta(seconds=by))
        self._server.do(lambda: self.box.world)

    def anew(self) -> None:
        """Begin again with a new world, at the time that a manual clock begins with; the server goes on."""
        self.examiner.seen.clear()
        self._new_world()
        self._server.do(lambda: self._begin(Cloud(self._world)))

    def copy(self) -> bytes:
        """Return all projects and the time as they are between two answers, for `resume`.

        By cloudpickle: what lies ahead is held as functions, which the standard library can't copy.
        """
        copies: list[bytes] = []
        self._server.do(lambda: copies.append(cloudpickle.dumps((self.clock, self.box.cloud))))
        return copies[0]

    def resume(self, copy: bytes) -> None:
        """Go on, with a manual clock, where another one was copied."""
        self.examiner.seen.clear()
        clock, cloud = pickle.loads(copy)  # noqa: S301 - written by ourselves
        self.clock, self._world = clock, cloud.first
        self._server.do(lambda: self._begin(cloud))

    def _new_world(self) -> None:
        self.clock = ManualClock(STARTED) if self._manual else SystemClock()
        self._world = World(now=self.clock.now(), times=self._times)

    def _begin(self, cloud: Cloud) -> None:
        self.box.clock, self.box._cloud = self.clock, cloud

    def examined(self) -> None:
        """Fail when a call or an answer was not as Google describes it."""
        assert not self.examiner.found, self.examiner.found

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
        if not kind:
            self.examined()


@functools.cache
def _shared() -> CloudBox:
    return CloudBox(manual=True)


@contextlib.contextmanager
def still_cloud() -> Generator[CloudBox]:
    """Give a new world in which time stands still, in an emulator that serves one test after another.

    An emulator of one's own takes 0.2 s to end.
    """
    box = _shared()
    box.examiner.found.clear()
    box.anew()
    yield box
    box.examined()
