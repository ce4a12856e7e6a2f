"""One of several processes that serve a machine: it runs the loop while it holds the lease, and follows else."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager

from comfyweb.control.database import LedgerError
from comfyweb.control.follower import Follower, without_metadata
from comfyweb.control.lease import BEAT, Lease
from comfyweb.control.loop import Loop
from comfyweb.control.publisher import Publisher
from comfyweb.control.relay import TOLD_EVERY, Asked, Relay, Told
from comfyweb.control.visitors import METADATA_KEY
from comfyweb.machine.faults import named
from comfyweb.machine.snapshot import troubled

log = logging.getLogger(__name__)

MakeLoop = Callable[[Lease], AbstractAsyncContextManager[Loop]]
TOLD_METADATA = frozenset({METADATA_KEY})


class Replica:
    """`current` is the loop, or what stands in for it here. `relay` is None without Redis: nothing is heard then."""

    def __init__(
        self, *, lease: Lease, relay: Relay | None, follower: Follower, publisher: Publisher, make_loop: MakeLoop
    ) -> None:
        self._lease = lease
        self._relay = relay
        self._follower = follower
        self._publisher = publisher
        self._make_loop = make_loop
        self._trouble = ""
        self.current: Loop | Follower = follower

    async def run(self) -> None:
        """Lead or follow until cancelled; then give the lease back, so that another process takes it at once."""
        talking = (
            [asyncio.create_task(each) for each in (self._hear(self._relay), self._ask(self._relay))]
            if self._relay
            else []
        )
        try:
            while True:
                if await self._taken():
                    await self._lead()
                await self._beat()
                await self._follower.notice_silence()
                await asyncio.sleep(BEAT.total_seconds())
        finally:
            await _end(*talking)

    async def _taken(self) -> bool:
        try:
            taken = await self._lease.take()
        except LedgerError as error:
            await self._failed(error)
            return False
        self._well()
        return taken

    async def _lead(self) -> None:
        """Run the loop as long as the lease is held."""
        log.info("this process runs the machine's loop (epoch %s)", self._lease.epoch)
        async with self._make_loop(self._lease) as loop, _given_back(self._lease):
            loop.on_round = self._follower.on_round
            self.current = loop
            tasks = [asyncio.create_task(loop.run(), name="loop")]
            if self._relay:
                tasks.append(asyncio.create_task(self._tell(self._relay, loop)))
            try:
                while (left := self._lease.left_seconds) > 0:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(left):
                            await asyncio.sleep(BEAT.total_seconds())
                            await self._renewed()
                    await self._beat()
            finally:
                self._follower.begin(loop.seen, loop.now())
                self.current = self._follower
                await _end(*tasks)
        log.warning("this process no longer runs the machine's loop")

    async def _renewed(self) -> None:
        try:
            await self._lease.renew()
        except LedgerError as error:
            await self._failed(error)
        else:
            self._well()

    def _well(self) -> None:
        self._trouble, self._follower.cut_off = "", False

    async def _failed(self, error: LedgerError) -> None:
        if self._trouble != str(error):  # once, not each second
            log.warning("the lease can't be had or kept: %s", error)
        self._trouble, self._follower.cut_off = str(error), True
        await self._publisher.publish(troubled(self._publisher.snapshot, named("ledger")))

    async def _beat(self) -> None:
        """Learn of logins and logouts at the other processes, and do what else is done after each turn."""
        for hook in self._follower.on_round:
            try:
                await hook()
            except Exception:
                log.exception("what follows each turn failed")

    async def _tell(self, relay: Relay, loop: Loop) -> None:
        """Tell the others what is seen: when the picture changes, and every few seconds."""
        news = asyncio.Event()

        async def changed(_: object) -> None:
            news.set()

        unsubscribe = self._publisher.subscribe(changed)
        try:
            while True:
                news.clear()
                snapshot = self._publisher.snapshot
                await relay.tell(
                    Told(
                        epoch=self._lease.epoch or 0,
                        now=loop.now(),
                        phase=snapshot.phase,
                        body=snapshot.body,
                        seen=without_metadata(loop.seen, TOLD_METADATA),
                        trouble=loop.trouble,
                    )
                )
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TOLD_EVERY.total_seconds()):
                        await news.wait()
        finally:
            unsubscribe()

    async def _hear(self, relay: Relay) -> None:
        async for news in relay.news():
            match news, self.current:
                case Told(), Follower() as follower:
                    await follower.take(news)
                case Asked(order=order), Loop() as loop:
                    if order is not None:
                        loop.order(order)
                    loop.wake()
                case _:
                    pass  # Its own words, or what is asked of another.

    async def _ask(self, relay: Relay) -> None:
        while True:
            await relay.ask(await self._follower.asked.get())


@contextlib.asynccontextmanager
async def _given_back(lease: Lease) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        try:
            await lease.give_back()
        except LedgerError as error:
            log.warning("the lease could not be given back, so another process waits for its end: %s", error)


async def _end(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
