"""One process's worth of comfyweb, and beside it what outlives a process: the cloud, the host, people's memory.

Everything here that must survive a kill lies in the emulator (another process) or in small files that are replaced in
one step, so that a kill can't leave half of them.
"""

import asyncio
import pickle
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import httpx

from comfyweb.control import database
from comfyweb.machine.model import Policy
from tests.cloudbox import CloudBox
from tests.control.driving import Driver, ScriptedHost


class Cloud:
    """The emulator as its control endpoint shows it; time is moved there and read from there."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.clock = self
        self._http = httpx.Client(timeout=30, verify=False)  # noqa: S501 - http on loopback; reading certificates takes long
        self._now = datetime.now(UTC)
        self.seen = ""
        self.state()

    def now(self) -> datetime:
        """The one time there is."""
        return self._now

    def state(self) -> dict[str, Any]:
        """What the emulator shows of itself."""
        return self._told(self._http.get(f"{self.url}/control"))

    def control(self, path: str, body: dict[str, Any] | None = None, *, method: str = "POST") -> dict[str, Any]:
        """Let something happen in the cloud."""
        return self._told(self._http.request(method, f"{self.url}/control/{path}", json=body))

    def advance(self, by: timedelta | float) -> None:
        """Let time pass."""
        seconds = by.total_seconds() if isinstance(by, timedelta) else by
        self.control("clock", {"advance_seconds": seconds})

    @property
    def status(self) -> str:
        """Compute Engine's word for the machine as it is now; MISSING when there is none."""
        self.state()
        return self.seen

    def _told(self, answer: httpx.Response) -> dict[str, Any]:
        answer.raise_for_status()
        state = answer.json()
        self._now = datetime.fromisoformat(state["now"])
        self.seen = state["machines"][0]["status"] if state["machines"] else "MISSING"
        return state


def keep(path: Path, value: object) -> None:
    """Replace a file in one step."""
    new = path.with_suffix(".new")
    new.write_bytes(pickle.dumps(value))
    new.replace(path)


class KeptHost(ScriptedHost):
    """The scripted host, which goes on while the app is dead."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        if path.exists():
            self.says, self.heard = pickle.loads(path.read_bytes())  # noqa: S301 - written by ourselves

    def keep(self) -> None:
        """Store what it says and has heard."""
        keep(self._path, (self.says, self.heard))

    async def drain(self, url: str, deadline: timedelta, *, stay: bool = False) -> None:
        await super().drain(url, deadline, stay=stay)
        self.keep()

    async def cancel_drain(self, url: str) -> None:
        await super().cancel_drain(url)
        self.keep()

    async def revoke(self, url: str, session: str) -> None:
        await super().revoke(url, session)
        self.keep()


@dataclass(slots=True)
class Memory:
    """What people know: which act of the story they are in, whether it was acknowledged, and who has logged out."""

    act: int = 0
    acknowledged: bool = False
    ended: frozenset[str] = frozenset()
    key: str = ""


class Rig(Driver):
    """A driver whose surroundings outlive it.

    With `by_itself` the loop runs in a task, as in the app, and a turn is one that it takes when it is woken.
    """

    def __init__(self, folder: Path, url: str, policy: Policy, *, by_itself: bool = False) -> None:
        self.cloud = Cloud(url)
        self._memory_path = folder / "memory"
        self.reborn = self._memory_path.exists()
        self.memory: Memory = pickle.loads(self._memory_path.read_bytes()) if self.reborn else Memory()  # noqa: S301 - as above
        self.remember()
        self.kept_host = KeptHost(folder / "host")
        self._by_itself = by_itself
        if by_itself:
            database.BUSY_SECONDS = 0  # pyright: ignore[reportConstantRedefinition] - a held database is held at once
        self._running: asyncio.Task[None] | None = None
        self._turned = asyncio.Event()
        self.fails: Exception | None = None
        super().__init__(cast(CloudBox, self.cloud), folder / "ledger.db", policy, host=self.kept_host)

    def fresh(self) -> None:
        super().fresh()
        self.loop.on_round.append(self._has_turned)

    async def turn(self) -> float:
        if not self._by_itself:
            return await super().turn()
        if self._running is None:
            self._running = asyncio.create_task(self.loop.run())
        self.loop.wake()
        await self.has_turned()
        return 2.0

    async def has_turned(self) -> None:
        """Wait for a turn that the loop takes by itself."""
        self._turned.clear()
        async with asyncio.timeout(20):
            await self._turned.wait()

    async def _has_turned(self) -> None:
        self._turned.set()
        fails, self.fails = self.fails, None
        if fails:
            raise fails

    def remember(self) -> None:
        """Store what people know."""
        keep(self._memory_path, self.memory)

    def says(self, **changes: object) -> None:
        """Let the host answer from now on, with these differences, whether or not the app lives."""
        self.answers(**changes)
        self.kept_host.keep()

    def falls_silent(self) -> None:
        """Let the host answer no more."""
        self.host.says = None
        self.kept_host.keep()

    async def close(self) -> None:
        """End in order."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running})
        await self.compute.close()
        await self.ledger.close()
