"""A loop that is driven by hand: the real client and ledger against the emulated cloud, with time that stands still."""

import functools
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import httpx
from sqlalchemy import create_engine

from comfyweb.cloud.compute import TIMEOUT_SECONDS, ComputeEngine
from comfyweb.cloud.host import HostClient, HostSilent
from comfyweb.control.clock import Clock
from comfyweb.control.ledger import Ledger
from comfyweb.control.loop import Loop
from comfyweb.control.migrate import migrate
from comfyweb.control.publisher import Publisher
from comfyweb.machine.model import HostSeen, Phase, Policy, StopMode, Wanted
from comfyweb.machine.snapshot import Place, Snapshot, nothing_seen_yet
from tests.cloudbox import CloudBox, still_cloud

FIXTURES = Path(__file__).parent.parent / "fixtures/host"
PLACE = Place(
    project="demo-project", zone="us-central1-a", instance="comfyui-gpu", comfyui_url="http://localhost:1", embed=True
)
POLICY = Policy(
    metadata={
        "comfyweb-keys": "K",
        "comfyweb-app-origin": "http://localhost:3000",
        "auth_pass": "",
        "enable-guest-attributes": "TRUE",
    },
    running_metadata=frozenset({"comfyweb-keys", "comfyweb-app-origin"}),
    max_run=timedelta(hours=10, minutes=15),
    session_cap=timedelta(hours=10),
    drain=timedelta(minutes=30),
)


class ScriptedHost:
    """The host, as a test says it is. Not the stand-in: that one lives in real time, and here time stands still."""

    def __init__(self) -> None:
        self.says: HostSeen | None = None
        self.heard: list[str] = []
        self.asked = 0

    async def status(self, url: str) -> HostSeen:
        self.asked += 1
        if self.says is None:
            raise HostSilent("nobody answers")
        return self.says

    async def drain(self, url: str, deadline: timedelta, *, stay: bool = False) -> None:
        if self.says is None:
            raise HostSilent("nobody answers")
        self.heard.append(f"drain {deadline.total_seconds():g}{' and stay' if stay else ''}")
        self.says = replace(self.says, drain_until=self.says.at + deadline, drain_remaining=self.says.jobs)

    async def cancel_drain(self, url: str) -> None:
        self.heard.append("cancel drain")
        assert self.says is not None
        self.says = replace(self.says, drain_until=None, drain_remaining=None)

    async def keep_alive(self, url: str) -> None:
        if self.says is None:
            raise HostSilent("nobody answers")
        self.heard.append("keep-alive")

    async def extend(self, url: str, minutes: float) -> None:
        if self.says is None:
            raise HostSilent("nobody answers")
        self.heard.append(f"extend {minutes:g}")

    async def revoke(self, url: str, session: str) -> None:
        if self.says is None:
            raise HostSilent("nobody answers")
        self.heard.append(f"revoke {session}")


class Driver:
    """A loop with everything around it. `turn` takes one turn; `pass_time` moves the one clock of them all."""

    def __init__(
        self,
        box: CloudBox,
        path: Path,
        policy: Policy,
        *,
        host: ScriptedHost | None = None,
        url: str = "",
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        self.box = box
        self.url = url or box.url
        self.timeout_seconds = timeout_seconds
        self.policy = policy
        self.path = path
        self.host = host or ScriptedHost()
        self.shown: list[Snapshot] = []
        self.wrong = timedelta()
        self.fresh()

    def fresh(self) -> None:
        """Make a new process's worth of objects, as after a crash: only the database is the same."""
        self.ledger = Ledger(f"sqlite:///{self.path}", machine="demo-project/us-central1-a/comfyui-gpu")
        self.compute = ComputeEngine(
            project="demo-project",
            instance="comfyui-gpu",
            endpoint=self.url,
            credentials_file=None,
            now=self.wall,
            timeout_seconds=self.timeout_seconds,
        )
        self.publisher = Publisher(nothing_seen_yet(PLACE))
        self.publisher.subscribe(self._show)
        self.loop = Loop(
            compute=self.compute,
            host=cast(HostClient, self.host),
            ledger=self.ledger,
            publisher=self.publisher,
            policy=self.policy,
            place=PLACE,
            clock=Clock(now=self.wall, monotonic=lambda: self.now().timestamp()),
        )

    async def _show(self, snapshot: Snapshot) -> None:
        self.shown.append(snapshot)

    def now(self) -> datetime:
        """The one time there is."""
        return self.box.clock.now()

    def wall(self) -> datetime:
        """What the clock of the app's computer says: `wrong` is how far it is ahead."""
        return self.now() + self.wrong

    @property
    def phase(self) -> Phase:
        """What people see."""
        return self.publisher.snapshot.phase

    @property
    def body(self) -> dict[str, object]:
        """What people see, in full."""
        return self.publisher.snapshot.body

    async def ask(self, wanted: Wanted, mode: StopMode = StopMode.DRAIN) -> None:
        """Press a button."""
        await self.ledger.ask(wanted, mode, "s", self.loop.now())
        self.loop.wake()

    async def turn(self) -> float:
        """Take one turn; return the seconds until the next."""
        return await self.loop.round()

    async def until(self, phase: Phase, *, turns: int = 60) -> None:
        """Take turns, letting the time between them pass, until people see this phase."""
        for _ in range(turns):
            wait = await self.turn()
            if self.phase is phase:
                return
            self.box.advance(max(wait, 0.05))
        raise AssertionError(f"{phase} was not reached: {self.phase}, {self.body}")

    async def live(self, seconds: float) -> None:
        """Take every turn that falls into this time."""
        end = self.now() + timedelta(seconds=seconds)
        while self.now() < end:
            wait = await self.turn()
            self.box.advance(min(max(wait, 0.05), max((end - self.now()).total_seconds(), 0.05)))
        await self.turn()

    async def through(self, seconds: float, *, step: float = 25.0) -> None:
        """Let time pass with no more turns than it takes that nobody takes a look for old.

        A host that answers goes on answering.
        """
        end = self.now() + timedelta(seconds=seconds)
        while (left := (end - self.now()).total_seconds()) > 0:
            self.box.advance(min(step, left))
            if self.host.says is not None:
                self.answers()
            await self.turn()

    def say_by_guest_attributes(self, key: str, **changes: object) -> None:
        """Let the host write its `phase` or `heartbeat` by way of Google, now, with these differences."""
        said = json.loads((FIXTURES / f"{key}.json").read_text()) | {"at": self.now().isoformat(), **changes}
        address = f"{self.box.url}/computeMetadata/v1/instance/guest-attributes/comfyweb/{key}"
        headers = {"Metadata-Flavor": "Google"}
        # Http on loopback: reading the certificates of the world takes longer than a test.
        httpx.put(address, content=json.dumps(said), headers=headers, verify=False).raise_for_status()  # noqa: S501

    def answers(self, **changes: object) -> None:
        """Let the host say that ComfyUI is ready, with these differences."""
        seen = HostSeen(at=self.now(), boot_id="boot-1", phase="ready", comfyui_ready=True)
        self.host.says = replace(seen, **changes)  # pyright: ignore[reportArgumentType] - names are checked at run time


@functools.cache
def empty_ledger() -> bytes:
    """The file of a database that has had every migration; making one takes as long as many a test."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "empty.db"
        engine = create_engine(f"sqlite:///{path}")
        migrate(engine)
        engine.dispose()
        return path.read_bytes()


@asynccontextmanager
async def driven(tmp_path: Path, policy: Policy = POLICY) -> AsyncGenerator[Driver]:
    """A driver with its cloud, closed at the end."""
    with still_cloud() as box:
        path = tmp_path / "ledger.db"
        path.write_bytes(empty_ledger())
        driver = Driver(box, path, policy)
        await driver.ledger.open()
        yield driver
        await driver.compute.close()
        await driver.ledger.close()
