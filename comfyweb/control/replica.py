"""One of several processes that serve a machine: it runs the loop while it holds the lease, and follows else."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

from comfyweb.control.database import LedgerError
from comfyweb.control.follower import Follower, without_metadata
from comfyweb.control.lease import BEAT, Lease
from comfyweb.control.loop import Loop
from comfyweb.control.postgresql import PATIENCE_SECONDS
from comfyweb.control.publisher import Publisher
from comfyweb.control.relay import TOLD_EVERY, Asked, Relay, Told
from comfyweb.control.visitors import METADATA_KEY
from comfyweb.machine.faults import named
from comfyweb.machine.snapshot import troubled

log = logging.getLogger(__name__)

MakeLoop = Callable[[Lease], AbstractAsyncContextManager[Loop]]
AGAIN_SECONDS = 0.5
# Giving the lease back may take as long as a database that doesn't answer is waited for.
IN_ORDER_SECONDS = PATIENCE_SECONDS + 1
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
        beside = [self._beat]
        if self._relay:
            relay = self._relay
            beside += [lambda: self._hear(relay), lambda: self._ask(relay)]
        tasks = [asyncio.create_task(_for_ever(each)) for each in (self._lead_or_follow, *beside)]
        try:
            await asyncio.wait(tasks)  # which leaves cancelling them to `_end`
        finally:
            await _end(*tasks, again_seconds=IN_ORDER_SECONDS)

    async def _lead_or_follow(self) -> None:
        if await self._taken():
            await self._lead()
        await self._follower.notice_silence()

    async def _taken(self) -> bool:
        try:
            taken = await self._lease.take()
        except LedgerError as error:
            await self._failed(error)
            return False
        self._well()
        return taken

    async def _lead(self) -> None:
        """Run the loop as long as the lease is held, and it turns: one that was deposed has ended."""
        log.info("this process runs the machine's loop (epoch %s)", self._lease.epoch)
        async with self._make_loop(self._lease) as loop:
            loop.on_round = self._follower.on_round
            self.current = loop
            turning = asyncio.create_task(loop.run(), name="loop")
            tasks = [turning]
            if self._relay:
                relay = self._relay
                tasks.append(asyncio.create_task(_for_ever(lambda: self._tell(relay, loop))))
            try:
                while not turning.done() and (left := self._lease.left_seconds) > 0:
                    try:
                        async with asyncio.timeout(left):
                            await asyncio.sleep(BEAT.total_seconds())
                            await self._renewed()
                    except TimeoutError:
                        await self._failed(LedgerError("the database does not answer"))
            finally:
                self._follower.begin(loop.seen, loop.now(), self._lease.epoch or 0)
                self.current = self._follower
                await _end(*tasks)
                await self._give_back()
        log.warning("this process no longer runs the machine's loop")

    async def _give_back(self) -> None:
        if self._trouble:
            return  # It ends by itself, and nobody here waits for a database that doesn't answer.
        try:
            await self._lease.give_back()
        except LedgerError as error:
            log.warning("the lease could not be given back, so another process waits for its end: %s", error)

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
            await hook()

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
                told = Told(
                    epoch=self._lease.epoch or 0,
                    now=loop.now(),
                    phase=snapshot.phase,
                    body=snapshot.body,
                    seen=without_metadata(loop.seen, TOLD_METADATA),
                    trouble=loop.trouble,
                )
                if loop.seen.phase is not None:  # Before its first turn it has nothing to tell.
                    await relay.tell(told)
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


async def _for_ever(what: Callable[[], Awaitable[None]]) -> None:
    """Do it again and again. A mistake of ours is logged, and ends nothing."""
    while True:
        try:
            await what()
        except Exception:
            log.exception("something that is done every second failed")
        await asyncio.sleep(BEAT.total_seconds())


async def _end(*tasks: asyncio.Task[None], again_seconds: float = AGAIN_SECONDS) -> None:
    """Cancel tasks until they have ended: redis swallows a cancellation that comes together with its own time limit."""
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=again_seconds)
