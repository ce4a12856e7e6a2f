"""The status room: one emit reaches every tab that is logged in.

It goes past the tabs' states, since taking a lock for each of a thousand tabs is what made pushing slow. The delta is
Reflex's internal form ({state: {variable + "_rx_state_": value}}); a test builds a tab and compares.
"""

import asyncio
from datetime import UTC, datetime
from typing import Any, ClassVar, Final

import reflex as rx
from reflex.app import EventNamespace
from reflex.state import StateUpdate
from reflex_base.constants import SocketEvent
from reflex_base.constants.state import FIELD_MARKER

from comfyweb.access.sessions import Session
from comfyweb.control.services import services
from comfyweb.machine.snapshot import Snapshot
from comfyweb.ui import crowd

LOGGED_OUT: Final[dict[str, Any]] = {"phase": "logged-out"}
ROOM = "status"
TAB = "reflex___state____state.comfyweb___ui___state____tab"


def session_of(token: object) -> Session | None:
    """Return the live login that `token` stands for, if it is one."""
    return services.sessions.verify(token, _now())


def _now() -> datetime:
    return datetime.now(UTC)


def delta(body: dict[str, Any]) -> StateUpdate:
    """Return the update that shows `body` in a tab."""
    return StateUpdate(delta={TAB: {"snapshot" + FIELD_MARKER: body}})


class Live:
    """Who is in the room, and telling them. Made once per process, by the wiring."""

    _current: ClassVar["Live | None"] = None

    def __init__(self, app: rx.App) -> None:
        self._app = app
        self._tokens: dict[str, str] = {}
        Live._current = self

    @classmethod
    def current(cls) -> "Live":
        """Return the room of this process. Raises RuntimeError before the process has started."""
        if cls._current is None:
            raise RuntimeError("comfyweb has not started yet")
        return cls._current

    @property
    def count(self) -> int:
        """How many tabs are in the room."""
        return len(self._tokens)

    async def push(self, snapshot: Snapshot) -> None:
        """Show a snapshot to everybody in the room."""
        await self._namespace.emit(str(SocketEvent.EVENT), delta(snapshot.body), room=ROOM)

    async def enter(self, socket: str, token: str) -> None:
        """Let the tab on this websocket see what comes, as long as its login lives."""
        if socket not in self._namespace.sid_to_token:
            return  # it has gone while its event waited
        self._tokens[socket] = token
        self._trust(socket, logged_in=True)
        await self._namespace.enter_room(socket, ROOM)

    async def sweep(self) -> None:
        """Show the tabs whose login has ended that it has, and send them nothing more."""
        connected = self._namespace.sid_to_token
        for socket in [socket for socket in self._tokens if socket not in connected]:
            del self._tokens[socket]
        ended = [socket for socket, token in self._tokens.items() if session_of(token) is None]
        await asyncio.gather(*(self._dismiss(socket) for socket in ended))

    async def _dismiss(self, socket: str) -> None:
        self._tokens.pop(socket, None)
        self._trust(socket, logged_in=False)
        await self._namespace.leave_room(socket, ROOM)
        await self._namespace.emit(str(SocketEvent.EVENT), delta(LOGGED_OUT), to=socket)

    def _trust(self, socket: str, *, logged_in: bool) -> None:
        environ = self._app.sio.get_environ(socket, self._namespace.namespace) if self._app.sio else None
        crowd.trust((environ or {}).get("asgi.scope", {}), logged_in=logged_in)

    @property
    def _namespace(self) -> EventNamespace:
        if self._app.event_namespace is None:
            raise RuntimeError("the page has no websocket yet")
        return self._app.event_namespace
