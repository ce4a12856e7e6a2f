"""Keeps room for new connections while somebody holds thousands that ask for nothing.

The server cuts off who sends no request for 10 s, but until then each holds one of its places, and it has no limit
per address. So from three quarters of the places on, connections without a request in progress are cut off, of those
networks first that hold most, until half of the places are free again. Behind a proxy all come from one address, and
this is the proxy's to do.
"""

import asyncio
import contextlib
import logging
import os
import resource
import socket
import stat
from collections import Counter, defaultdict
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from comfyweb.access.addresses import counted_as

log = logging.getLogger(__name__)

FILES: Final = Path("/proc/self/fd")  # Linux; elsewhere nothing is cut off
EVERY_SECONDS: Final = 0.5
PLACES: Final = 8192  # a tab or an event stream takes one for as long as it is open
FILES_BESIDE: Final = 256  # the database, Google, the host, threads

Peer = tuple[str, int]


def places() -> int:
    """Return how many connections this process can hold, having asked for as many open files as it may have.

    Many systems give 1024 at first. Without a free one neither the database nor Google could be reached.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = PLACES + FILES_BESIDE
    may = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < may:
        resource.setrlimit(resource.RLIMIT_NOFILE, (may, hard))
        soft = may
    return PLACES if soft == resource.RLIM_INFINITY else max(1, min(PLACES, soft - FILES_BESIDE))


class Idle:
    """ASGI layer around everything; it knows which connections have a request in progress. `watch` cuts others off."""

    def __init__(self, app: ASGIApp, *, port: int, places: int) -> None:
        self._app = app
        self._port = port
        self._crowded, self._share = places * 3 // 4, places // 2
        self._busy: dict[Peer, int] = {}  # how many requests of each are in progress

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and know its connection as busy meanwhile."""
        peer: Peer | None = tuple(scope["client"]) if scope.get("client") else None
        if peer is None:
            await self._app(scope, receive, send)
            return
        self._busy[peer] = self._busy.get(peer, 0) + 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._busy[peer] -= 1
            if not self._busy[peer]:
                del self._busy[peer]

    async def watch(self) -> None:
        """Make room whenever there is little, until cancelled."""
        while FILES.is_dir():
            await asyncio.sleep(EVERY_SECONDS)
            try:
                # The names alone, quickly.
                crowded = len(os.listdir(FILES)) > self._crowded  # noqa: PTH208
                cut = await asyncio.to_thread(self.make_room, frozenset(self._busy)) if crowded else 0
            except OSError as error:  # no file is free for looking at them: look again
                log.warning("idle connections could not be looked at: %s", error)
                continue
            if cut:
                log.warning("%s idle connections were cut off to make room", cut)

    def make_room(self, busy: Iterable[Peer]) -> int:
        """Cut idle connections off until no network holds more than its share; return how many."""
        busy = frozenset(busy)
        number: Counter[str] = Counter()
        idle: defaultdict[str, list[tuple[int, Peer]]] = defaultdict(list)
        for file in map(int, os.listdir(FILES)):  # noqa: PTH208 - as above
            with _connection(file, self._port) as (_, peer):
                if peer is not None:
                    network = counted_as(peer[0])
                    number[network] += 1
                    if peer not in busy:
                        idle[network].append((file, peer))
        share = fair_share(number.values(), self._share)
        cut = 0
        for network, files in idle.items():
            for file, before in files[: max(0, number[network] - share)]:
                with _connection(file, self._port) as (connection, peer):
                    # Meanwhile that file may have become another's.
                    if connection is not None and peer == before:
                        with contextlib.suppress(OSError):
                            connection.shutdown(socket.SHUT_RDWR)
                            cut += 1
        return cut


def fair_share(numbers: Iterable[int], most: int) -> int:
    """Return how many each may hold at most, so that together they hold no more than `most`."""
    left, waiting = most, sorted(numbers)
    while waiting and waiting[0] * len(waiting) <= left:
        left -= waiting.pop(0)
    return left // len(waiting) if waiting else most


@contextlib.contextmanager
def _connection(file: int, port: int) -> Generator[tuple[socket.socket | None, Peer | None]]:
    """Give a duplicate of an accepted connection on that port and its peer; None twice for any other file.

    The server has the connections and offers no list. What it does with one meanwhile is its own; shutting a duplicate
    down is like the client's leaving. One is open at a time: thousands of copies would need as many free files.
    """
    try:
        copy = os.dup(file)
    except OSError:
        yield None, None  # it has just been closed
        return
    if not stat.S_ISSOCK(os.fstat(copy).st_mode):
        os.close(copy)
        yield None, None
        return
    with socket.socket(fileno=copy) as connection:
        try:
            here, there = connection.getsockname(), connection.getpeername()
        except OSError:
            here = there = None  # it listens, or its client has gone
        ours = here and connection.family in {socket.AF_INET, socket.AF_INET6} and here[1] == port
        yield (connection, (str(there[0]), int(there[1]))) if ours and there else (None, None)
