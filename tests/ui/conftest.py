"""The product's own app with a made-up machine behind it, driven as a browser's websocket drives it."""

import asyncio
import itertools
from collections import defaultdict
from collections.abc import AsyncGenerator
from typing import Any, cast

import pytest
from reflex.state import StateUpdate

from comfyweb.comfyweb import app
from comfyweb.control.services import Bound, services
from comfyweb.ui import live
from comfyweb.ui.live import TAB, Live
from tests.ui import stand_ins
from tests.ui.stand_ins import PASSWORD, Clock, Machine

SECRET = "us-east9-z"
BODY = {
    "phase": "ready",
    "phase_since": "2026-11-24T12:00:00Z",
    "machine": {"zone": SECRET},
    "notices": ["a notice", "another"],
}
ROOT = "reflex___state____state"
TOKEN_VAR = f"{TAB}.token_rx_state_"


class Wire:
    """What the server sends, by websocket; stands in for socket.io below Reflex's namespace."""

    def __init__(self) -> None:
        self.sent: dict[str, list[Any]] = defaultdict(list)
        self.rooms: dict[str, set[str]] = defaultdict(set)
        self.emits = 0

    async def emit(self, event: str, data: Any = None, to: str | None = None, room: str | None = None) -> None:
        self.emits += 1
        for socket in self.rooms[room] if room else {to}:
            self.sent[cast("str", socket)].append(data)

    async def enter_room(self, socket: str, room: str) -> None:
        self.rooms[room].add(socket)

    async def leave_room(self, socket: str, room: str) -> None:
        self.rooms[room].discard(socket)


class Tab:
    """A browser's tab: its id, its websocket, and what it was sent."""

    def __init__(self, wire: Wire, tab_id: str, socket: str, path: str = "/") -> None:
        self.tab_id, self.socket, self._wire, self.path = tab_id, socket, wire, path

    async def open(self, stored: Any = None, *, hydrate: bool = True) -> "Tab":
        """Connect; with what the browser's storage holds, as a browser does."""
        variables = {} if stored is None else {TOKEN_VAR: stored}
        event = {"name": f"{ROOT}.hydrate_and_load", "payload": {"vars": variables}, "router_data": self._at()}
        environ = {
            "QUERY_STRING": f"token={self.tab_id}",
            "asgi.scope": {"headers": [], "client": ("192.0.2.7", 1)},
        }
        await _namespace().on_connect(self.socket, environ, {"event": event} if hydrate else None)
        await _settled()
        return self

    async def send(self, name: str, **payload: Any) -> None:
        """Send an event, by its full name or by that of the tab's handler."""
        name = name if name.startswith(ROOT) else f"{TAB}.{name}"
        await _namespace().on_event(self.socket, {"name": name, "payload": payload, "router_data": self._at()})
        await _settled()

    async def close(self) -> None:
        """Lose the connection."""
        task = _namespace().on_disconnect(self.socket)
        if task is not None:
            await task

    @property
    def sent(self) -> list[Any]:
        """Everything the server sent on this websocket."""
        return self._wire.sent[self.socket]

    @property
    def shown(self) -> dict[str, Any]:
        """The variables of the tab as the browser has them now."""
        variables: dict[str, Any] = {}
        for update in self.sent:
            if isinstance(update, StateUpdate):
                variables |= update.delta.get(TAB, {})
        return {name.removesuffix("_rx_state_"): value for name, value in variables.items()}

    @property
    def redirects(self) -> list[str]:
        """Where the browser was sent."""
        events = [event for update in self.sent if isinstance(update, StateUpdate) for event in update.events]
        return [event.payload["path"] for event in events if event.name == "_redirect"]

    def _at(self) -> dict[str, Any]:
        return {"pathname": self.path, "asPath": self.path, "query": {}}


def _namespace() -> Any:
    return app.event_namespace


async def _settled() -> None:
    """Wait until no event is left, and none that came of one."""
    processor = app.event_processor
    async with asyncio.timeout(10):
        while processor._tasks or processor._futures or not (processor._queue is None or processor._queue.empty()):
            await asyncio.sleep(0)


class House:
    """One running app."""

    _numbers = itertools.count()  # Reflex's namespace is the process's, so no two houses may name a tab alike

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wire, self.clock, self.machine = Wire(), Clock(), Machine(BODY)
        self.sessions = stand_ins.sessions(self.clock)
        for name in ("emit", "enter_room", "leave_room"):
            monkeypatch.setattr(app.event_namespace, name, getattr(self.wire, name))
        monkeypatch.setattr(live, "_now", self.clock.now)
        self.live = Live(app)

    def tab(self, tab_id: str = "", path: str = "/") -> Tab:
        """Return a tab that has not connected yet; a given id is one that was heard somewhere."""
        number = next(self._numbers)
        return Tab(self.wire, tab_id or f"tab-{number}", f"socket-{number}", path)

    async def token(self) -> str:
        """Log in elsewhere."""
        return (await self.sessions.login(PASSWORD, "192.0.2.1"))[0]


@pytest.fixture
async def house(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[House]:
    """Run the app without a server and without its own lifespan."""
    house = House(monkeypatch)
    services.bind(Bound(settings=cast("Any", None), sessions=house.sessions, controller=cast("Any", house.machine)))
    async with app._setup_event_processor():
        yield house
    services.bind(None)
