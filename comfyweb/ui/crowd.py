"""How many websockets strangers may hold. Each is a tab with a state on the server, and nothing ends one that is idle.

Whoever comes is let in, since it may be the owner on the way to the login; when there are too many strangers, the
oldest of them goes: of the same network, or of the one that holds most. So who holds thousands pushes out only himself.
A tab that is logged in counts no more.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from comfyweb.access.addresses import address_of, counted_as

OF_ONE_NETWORK: Final = 128
IN_ALL: Final = 1024
TRY_AGAIN_LATER: Final = 1013
VISITOR: Final = "comfyweb.visitor"


@dataclass(slots=True, eq=False)
class Visitor:
    """One websocket, while it is open."""

    network: str
    out: asyncio.Event = field(default_factory=asyncio.Event)
    stranger: bool = True


class Crowd:
    """ASGI layer around the websocket. It puts the visitor into the scope, for `trust` to find."""

    def __init__(
        self, app: ASGIApp, trusted_hops: int, of_one_network: int = OF_ONE_NETWORK, in_all: int = IN_ALL
    ) -> None:
        self._app = app
        self._hops = trusted_hops
        self._of_one_network, self._in_all = of_one_network, in_all
        self._strangers: dict[str, deque[Visitor]] = {}  # by network, the oldest first
        self._number = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a websocket in, and show another out if there are too many."""
        if scope["type"] != "websocket":
            await self._app(scope, receive, send)
            return
        visitor = Visitor(counted_as(address_of(scope, self._hops)))
        self._count(visitor)

        async def receive_while_in() -> Message:
            return await _either(receive, visitor.out)

        try:
            await self._app({**scope, VISITOR: (self, visitor)}, receive_while_in, send)
        finally:
            self._forget(visitor)

    def trust(self, visitor: Visitor, *, logged_in: bool) -> None:
        """Count a visitor as logged in, or as a stranger again."""
        if visitor.stranger is not logged_in:
            return
        if logged_in:
            self._forget(visitor)
            visitor.stranger = False
        else:
            visitor.stranger = True
            self._count(visitor)

    def _count(self, visitor: Visitor) -> None:
        self._strangers.setdefault(visitor.network, deque()).append(visitor)
        self._number += 1
        if len(self._strangers[visitor.network]) > self._of_one_network:
            self._show_out(self._strangers[visitor.network][0])
        elif self._number > self._in_all:
            self._show_out(max(self._strangers.values(), key=len)[0])

    def _forget(self, visitor: Visitor) -> None:
        near = self._strangers.get(visitor.network)
        if near is None or visitor not in near:
            return
        near.remove(visitor)
        self._number -= 1
        if not near:
            del self._strangers[visitor.network]

    def _show_out(self, visitor: Visitor) -> None:
        self._forget(visitor)
        visitor.out.set()


async def _either(receive: Receive, out: asyncio.Event) -> Message:
    """Return what comes next, or that the connection has ended once its visitor is shown out.

    The application then lets go of it, and the server closes it, whether or not anybody reads there.
    """
    hearing, leaving = asyncio.ensure_future(receive()), asyncio.ensure_future(out.wait())
    try:
        await asyncio.wait((hearing, leaving), return_when=asyncio.FIRST_COMPLETED)
        if hearing.done():
            return hearing.result()
        return {"type": "websocket.disconnect", "code": TRY_AGAIN_LATER}
    finally:
        hearing.cancel()
        leaving.cancel()


def trust(scope: Scope, *, logged_in: bool) -> None:
    """Count the websocket of this scope as one that is logged in, or as a stranger's again."""
    crowd, visitor = scope.get(VISITOR) or (None, None)
    if isinstance(crowd, Crowd) and isinstance(visitor, Visitor):
        crowd.trust(visitor, logged_in=logged_in)
