"""A process that stood still while another took over does nothing late, wherever it stood. The loop, step by step.

Two loops beside one emulated cloud and one PostgreSQL. Of the process that stands still only the calls are held back,
which is what the rest of the world sees of it.
"""

import asyncio
import threading
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import cast

import pytest

from comfyweb.cloud.compute import ComputeEngine
from comfyweb.cloud.host import HostClient
from comfyweb.control.clock import Clock
from comfyweb.control.lease import TERM, Deposed, Lease
from comfyweb.control.ledger import Ledger
from comfyweb.control.loop import Loop
from comfyweb.control.publisher import Publisher
from comfyweb.machine.model import Phase, StopMode, Wanted
from comfyweb.machine.snapshot import nothing_seen_yet
from tests.cloudbox import CloudBox, still_cloud
from tests.control.driving import PLACE, POLICY, ScriptedHost
from tests.replicas.servers import PostgreSQLServer

pytestmark = pytest.mark.slow
MACHINE = "demo-project/us-central1-a/comfyui-gpu"


class Standing(ComputeEngine):
    """Stands still at its start: before the request leaves, if `sent` is false, and else before its answer comes."""

    def __init__(self, box: CloudBox, *, sent: bool) -> None:
        super().__init__(
            project="demo-project", instance="comfyui-gpu", endpoint=box.url, credentials_file=None, now=box.clock.now
        )
        self._sent = sent
        self.stands = asyncio.Event()
        self.goes_on = asyncio.Event()

    async def start(self, zone: str, request_id: str) -> str:
        if self._sent:
            await super().start(zone, request_id)
        self.stands.set()
        await self.goes_on.wait()
        return await super().start(zone, request_id)


class Process:
    """One process's lease and loop."""

    def __init__(self, box: CloudBox, url: str, name: str, compute: ComputeEngine) -> None:
        self.box = box
        self.url = url
        self.compute = compute
        self.lease = Lease(url, machine=MACHINE, holder=name, clock=lambda: box.clock.now().timestamp())
        self.publisher = Publisher(nothing_seen_yet(PLACE))

    async def lead(self) -> None:
        """Take the lease, which is free, and begin a loop."""
        assert await self.lease.take()
        self.compute.may_change = self.lease.must_be_held()
        self.ledger = Ledger(self.url, machine=MACHINE, fence=self.lease.fence())
        self.loop = Loop(
            compute=self.compute,
            host=cast(HostClient, ScriptedHost()),
            ledger=self.ledger,
            publisher=self.publisher,
            policy=POLICY,
            place=PLACE,
            clock=Clock(now=self.box.clock.now, monotonic=lambda: self.box.clock.now().timestamp()),
            must_lead=self.compute.may_change,
        )

    async def until(self, phase: Phase) -> None:
        """Take turns until people see this phase."""
        for _ in range(60):
            await self.lease.renew()
            wait = await self.loop.round()
            if self.publisher.snapshot.phase is phase:
                return
            self.box.advance(max(wait, 0.05))
        raise AssertionError(f"{phase} was not reached: {self.publisher.snapshot.body}")

    async def ask(self, wanted: Wanted) -> None:
        await self.ledger.ask(wanted, StopMode.NOW, "s", self.loop.now())
        self.loop.wake()


Two = tuple[Process, Process, Standing]
Make = Callable[..., Awaitable[Two]]


@pytest.fixture
async def make(postgresql: PostgreSQLServer) -> AsyncIterator[Make]:
    url = postgresql.url()
    opened: list[Process] = []

    async def two(*, sent: bool) -> Two:
        stands = Standing(box, sent=sent)
        other = ComputeEngine(
            project="demo-project", instance="comfyui-gpu", endpoint=box.url, credentials_file=None, now=box.clock.now
        )
        old, new = Process(box, url, "old", stands), Process(box, url, "new", other)
        opened.extend((old, new))
        await old.lease.open()
        return old, new, stands

    with still_cloud() as box:
        yield two
        for process in opened:
            if process.lease.epoch:
                await process.ledger.close()
            await process.lease.close()
            await process.compute.close()


@asynccontextmanager
async def stood_still(old: Process, new: Process, stands: Standing) -> AsyncGenerator[asyncio.Task[None]]:
    """Let the old one stand still in the middle of a start, and the new one take over."""
    await old.lead()
    await old.ask(Wanted.ON)

    async def turns() -> None:
        while True:
            await old.lease.renew()
            old.box.advance(max(await old.loop.round(), 0.05))

    turning = asyncio.create_task(turns())
    await stands.stands.wait()
    assert not await new.lease.take(), "it was alive a moment ago"
    old.box.advance(TERM)
    await new.lead()
    yield turning
    assert turning.done()


def starts(box: CloudBox) -> int:
    return [each.kind for each in box.world.operations.values()].count("start")


@pytest.mark.parametrize("sent", [False, True], ids=["before its call", "before the answer"])
@pytest.mark.parametrize("later", [timedelta(), timedelta(minutes=50)], ids=["at once", "50 minutes later"])
async def test_a_call_that_comes_late_does_nothing(make: Make, *, sent: bool, later: timedelta) -> None:
    old, new, stands = await make(sent=sent)
    async with stood_still(old, new, stands) as turning:
        await new.until(Phase.BOOTING)
        assert starts(new.box) == 1
        await new.ask(Wanted.OFF)
        await new.until(Phase.OFF)
        new.box.advance(later)
        stands.goes_on.set()
        with pytest.raises(Deposed):
            await turning
        await new.until(Phase.OFF)
        assert starts(new.box) == 1
        assert new.box.machine.status == "TERMINATED"


async def test_nothing_leaves_a_process_whose_lease_has_run_out_though_nobody_has_taken_it(make: Make) -> None:
    old, *_ = await make(sent=False)
    await old.lead()
    await old.ask(Wanted.ON)
    old.box.advance(TERM)

    async def turns() -> None:
        for _ in range(10):
            await old.loop.round()
            old.box.advance(2)

    with pytest.raises(Deposed):
        await turns()
    assert old.box.world.operations == {}


async def test_metadata_that_is_sent_late_does_not_overwrite_what_the_new_one_wrote(make: Make) -> None:
    """The old one stands still between reading the metadata and writing it, in the thread that calls Google."""
    old, new, _ = await make(sent=False)
    await old.lead()
    stands, goes_on = threading.Event(), threading.Event()
    may_change = old.compute.may_change

    def slowly() -> None:
        stands.set()
        goes_on.wait(10)
        may_change()

    old.compute.may_change = slowly
    late = asyncio.create_task(old.compute.set_metadata(PLACE.zone, str(uuid.uuid4()), {"comfyweb-command": "old"}))
    await asyncio.to_thread(stands.wait, 10)
    assert not await new.lease.take()
    old.box.advance(TERM)
    await new.lead()
    assert await new.compute.set_metadata(PLACE.zone, str(uuid.uuid4()), {"comfyweb-command": "new"})
    goes_on.set()
    with pytest.raises(Deposed):
        await late
    old.box.advance(5)
    assert old.box.machine.metadata["comfyweb-command"] == "new"
