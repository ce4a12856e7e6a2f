"""What the tests of the API share: the API over real sessions, with a machine that does as the test says."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import httpx
import pytest
from granian.constants import Interfaces
from granian.server.embed import Server

from comfyweb.access.sessions import Session, Sessions
from comfyweb.api.app import create_api
from comfyweb.control.measures import Durations, Measured
from comfyweb.control.publisher import Publisher
from comfyweb.control.services import Bound, services
from comfyweb.machine.model import Phase, StopMode
from comfyweb.machine.snapshot import Place, Snapshot, nothing_seen_yet
from comfyweb.settings import load
from comfyweb.ui.headers import SecurityHeaders
from tests.access.conftest import PASSWORD, SECRET, Bench
from tests.launching import free_ports

if TYPE_CHECKING:
    from comfyweb.control.controller import Controller

OURS = "http://localhost:3000"
SETTINGS = {"AUTH_PASSWORD": PASSWORD, "JWT_SECRET": SECRET, "GCP_PROJECT": "demo-project"}
UNSEEN = nothing_seen_yet(Place(project="demo-project", zone="us-central1-a", instance="comfyui-gpu"))
RUNNING = Snapshot(phase=Phase.READY, body=UNSEEN.body | {"phase": "ready", "status": "RUNNING"})


class FakeController:
    """Remembers what it was asked and does as told. The real one needs a ledger and a loop: tested elsewhere."""

    def __init__(self) -> None:
        self.publisher = Publisher(UNSEEN)
        self.asked: list[tuple[Any, ...]] = []
        self.refusal: Exception | None = None
        self.found = {"database": "ok", "compute-engine": "ok"}
        self.numbers = Measured(
            turns=Durations(), failed_turns=0, calls={}, looked_at=None, silence_seconds=0.0, run_seconds=0.0
        )

    async def start(self, session: Session) -> str:
        return self._hear("start")

    async def stop(self, session: Session, mode: StopMode) -> str:
        return self._hear("stop", mode)

    async def keep_alive(self, session: Session) -> str:
        return self._hear("keep-alive")

    async def extend(self, session: Session, minutes: float) -> str:
        return self._hear("extend", minutes)

    async def ticket(self, session: Session) -> str:
        return f"http://localhost:3002/_host/gate?ticket={self._hear('ticket', session.jti)}"

    async def dependencies(self) -> dict[str, str]:
        self._hear("dependencies")
        return self.found

    def measured(self) -> Measured:
        return self.numbers

    def _hear(self, *what: Any) -> str:
        self.asked.append(what)
        if self.refusal is not None:
            raise self.refusal
        return "As you wish."


@dataclass
class World:
    """A running process without its page: everything a test turns is here."""

    bench: Bench = field(default_factory=Bench)
    controller: FakeController = field(default_factory=FakeController)

    def __post_init__(self) -> None:
        self.bench.clock.at = datetime.now(UTC)  # the API reads the real clock
        self.sessions: Sessions = self.bench.sessions()

    async def token(self) -> str:
        """Log in."""
        token, _ = await self.sessions.login(PASSWORD, "192.0.2.9")
        return token

    async def expired_token(self) -> str:
        """Return a token whose session ended by itself an hour ago."""
        now = self.bench.clock.at
        self.bench.clock.forward(hours=-25)
        try:
            return await self.token()
        finally:
            self.bench.clock.at = now

    async def ended_token(self) -> str:
        """Return a token of a session that was logged out, and that had been used before."""
        token, session = await self.sessions.login(PASSWORD, "192.0.2.9")
        assert self.sessions.verify(token, datetime.now(UTC))
        await self.sessions.end(session)
        return token


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    settings = load(SETTINGS, None)
    services.bind(Bound(settings=settings, sessions=made.sessions, controller=cast("Controller", made.controller)))
    yield made
    services.bind(None)


@pytest.fixture
async def stranger() -> AsyncIterator[httpx.AsyncClient]:
    """Ask without a token."""
    transport = httpx.ASGITransport(app=create_api(), client=("192.0.2.1", 50000))
    async with httpx.AsyncClient(transport=transport, base_url=OURS) as client:
        yield client


@pytest.fixture
async def caller(world: World, stranger: httpx.AsyncClient) -> httpx.AsyncClient:
    """Ask with the token of a live session."""
    stranger.headers["x-auth-token"] = await world.token()
    return stranger


@pytest.fixture
async def served(world: World) -> AsyncIterator[str]:
    """The API behind the headers and the server of production, in this process."""
    port = free_ports()
    site = SecurityHeaders(create_api(), services.settings, ())
    server = Server(site, address="127.0.0.1", port=port, interface=Interfaces.ASGI, log_enabled=False)
    running = asyncio.create_task(server.serve())
    transport = httpx.AsyncHTTPTransport(retries=8)  # it needs a moment to listen
    url = f"http://127.0.0.1:{port}"
    async with httpx.AsyncClient(transport=transport) as client:
        assert (await client.get(f"{url}/healthz")).status_code == 200
    yield url
    server.stop()
    await running


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """Check that the answer is an error in the API's form, and return it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    told: dict[str, Any] = answer.json()
    assert told["status"] == status
    assert told["type"] == "about:blank"
    assert told["title"]
    assert told["detail"] == told["error"] != ""
    return told
