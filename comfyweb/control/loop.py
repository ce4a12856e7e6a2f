"""The one loop of a machine: observe, decide, act, publish. Nothing outside of it calls Compute Engine.

Killed between any two lines it goes on where it was: what was asked for is in the ledger before anything is called, and
each call is there with its request id before it is made, so that an answer that was lost is fetched by the same call.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime

from comfyweb.cloud.compute import ComputeEngine
from comfyweb.cloud.host import HostClient
from comfyweb.control import books
from comfyweb.control.attempts import Attempts
from comfyweb.control.clock import Clock, CorrectedClock
from comfyweb.control.database import LedgerError
from comfyweb.control.lease import Deposed
from comfyweb.control.ledger import Ledger, Standing
from comfyweb.control.measures import Durations, Measured
from comfyweb.control.messenger import Messenger
from comfyweb.control.observer import Observer
from comfyweb.control.orders import Orders
from comfyweb.control.publisher import Publisher
from comfyweb.logs import about
from comfyweb.machine.decide import MOVING, decide
from comfyweb.machine.faults import named
from comfyweb.machine.guards import latest_end
from comfyweb.machine.model import (
    AskDrain,
    Call,
    CancelDrain,
    Decision,
    Enforce,
    Intent,
    NameSeen,
    Observation,
    Policy,
    Replay,
    Verb,
    Wanted,
)
from comfyweb.machine.notices import notices
from comfyweb.machine.orders import Order
from comfyweb.machine.snapshot import Place, picture, troubled

log = logging.getLogger(__name__)


class Loop:
    """Runs one machine. `round` is one turn; `run` takes turns for ever, sooner when it is woken.

    `must_lead` raises Deposed where another process may run the machine by now: then the host is told nothing more.
    Compute Engine has `may_change` for that.
    """

    def __init__(
        self,
        *,
        compute: ComputeEngine,
        host: HostClient,
        ledger: Ledger,
        publisher: Publisher,
        policy: Policy,
        place: Place,
        clock: Clock,
        name: Callable[[Observation], NameSeen | None] = lambda _: None,
        orders: Orders | None = None,
        must_lead: Callable[[], None] = lambda: None,
    ) -> None:
        self._compute = compute
        self._ledger = ledger
        self._publisher = publisher
        self._policy = policy
        self._place = place
        self._clock = CorrectedClock(clock)
        self._orders = orders or Orders()
        self._observer = Observer(compute=compute, host=host, ledger=ledger, place=place, clock=self._clock, name=name)
        self._attempts = Attempts(
            compute=compute,
            ledger=ledger,
            observer=self._observer,
            orders=self._orders,
            policy=policy,
            place=place,
            clock=self._clock,
        )
        self._messenger = Messenger(
            host=host,
            ledger=ledger,
            observer=self._observer,
            orders=self._orders,
            place=place,
            clock=self._clock,
            must_lead=must_lead,
        )
        self._wake = asyncio.Event()
        self.trouble: str | None = "the first look has not ended yet"
        self.on_round: list[Callable[[], Awaitable[None]]] = []
        self._turns, self._failed_turns = Durations(), 0

    @property
    def measured(self) -> Measured:
        """What is counted of it and of its calls."""
        machine, run = self.seen.machine, self.seen.run
        return Measured(
            turns=self._turns,
            failed_turns=self._failed_turns,
            calls=self._compute.outcomes,
            looked_at=machine.at if machine else None,
            silence_seconds=self.seen.silence.total_seconds(),
            run_seconds=max(0.0, (self.now() - run.started_at).total_seconds()) if run else 0.0,
        )

    @property
    def seen(self) -> Observation:
        """What was last observed."""
        return self._observer.seen

    def now(self) -> datetime:
        """Return the time, Google's when our own clock is wrong."""
        return self._clock.now()

    @property
    def latest_end(self) -> datetime | None:
        """When the run is ended in any case; None while nothing ends it."""
        return latest_end(self.seen, self._policy.session_cap)

    def order(self, order: Order) -> bool:
        """Tell the host by metadata; False when it isn't heard by way of Google either, or still answers by HTTPS."""
        return self._messenger.order(order)

    def wake(self) -> None:
        """Look at once: somebody asked for something, or did something on the machine."""
        self._observer.wake()
        self._wake.set()

    async def run(self) -> None:
        """Take turns until cancelled, or deposed. A failing turn is logged, told to `/readyz`, and tried again."""
        while True:
            began = self._clock.monotonic()
            try:
                wait = await self.round()
                self.trouble = None
            except Deposed as error:
                log.warning("the loop ends: %s", error)
                return
            except LedgerError as error:
                if self.trouble != str(error):  # once, not at each turn
                    log.warning("the ledger failed: %s", error)
                self.trouble, wait = str(error), MOVING.total_seconds()
                await self._publisher.publish(troubled(self._publisher.snapshot, named("ledger")))
            except Exception as error:
                trouble = f"a turn of the loop failed ({type(error).__name__}); the log has the cause"
                if self.trouble != trouble:
                    log.exception("a turn of the loop failed")
                self.trouble, wait = trouble, MOVING.total_seconds()
                await self._publisher.publish(troubled(self._publisher.snapshot, named("loop")))
            self._turns.add(self._clock.monotonic() - began)
            self._failed_turns += self.trouble is not None
            try:
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def round(self) -> float:
        """Take one turn; return the seconds until the next one is due. Raises LedgerError."""
        self._wake.clear()
        standing = await self._ledger.standing()
        with about(intent_id=standing.open_intent.id if standing.open_intent else None):
            return await self._turn(standing)

    async def _turn(self, standing: Standing) -> float:
        observer = self._observer
        await observer.observe(standing, self._attempts.follow)
        standing = await books.keep(await self._ledger.standing(), self._ledger, observer)
        observer.listen(standing)
        now = self.now()
        decision = decide(standing.open_intent, observer.seen, self._policy, now)
        if standing.open_intent is not None and standing.open_intent.wanted is Wanted.ON:
            self._orders.keep_on(observer.seen, now)
        if standing.open_intent is not None and decision.verdict is not None:
            await self._ledger.end_intent(standing.open_intent.id, decision.verdict.fault, now)
            standing = await self._ledger.standing()
            decision = decide(None, observer.seen, self._policy, now)
        if isinstance(decision.act, Enforce):
            log.warning("%s stops the machine", decision.act.guard)
            await self._ledger.ask(Wanted.OFF, decision.act.mode, decision.act.guard, now)
            standing = await self._ledger.standing()
            decision = decide(standing.open_intent, observer.seen, self._policy, now)
        if decision.act is not None:
            await self._act(decision, standing.open_intent)
        if not isinstance(decision.act, Call | Replay) and self._orders.due(observer.seen, now):
            await self._attempts.make(Verb.SEND_COMMANDS, None)
        await self._publish(decision, standing, now)
        await self._messenger.revoke(now)
        for hook in self.on_round:
            await hook()
        return observer.pause(decision)

    async def _act(self, decision: Decision, intent: Intent | None) -> None:
        match decision.act:
            case Call(verb=verb):
                await self._attempts.make(verb, intent)
            case Replay(attempt=attempt):
                await self._attempts.call(attempt)
            case AskDrain(until=until, stay=stay):
                await self._messenger.drain(until, stay=stay)
            case CancelDrain():
                await self._messenger.cancel_drain()
            case Enforce() | None:
                pass  # Nothing to call.

    async def _publish(self, decision: Decision, standing: Standing, now: datetime) -> None:
        observer = self._observer
        since = observer.seen.since if observer.seen.phase is decision.phase else now
        observer.seen = replace(observer.seen, phase=decision.phase, since=since)
        told = notices(
            observer.seen,
            self._policy,
            project=self._place.project,
            missing_permissions=observer.missing_permissions or (),
            clock_difference=self._clock.difference,
            password_deleted=self._attempts.password_deleted,
        )
        history = books.history(standing, observer.seen, tuple(told))
        await self._publisher.publish(picture(decision, standing.open_intent, observer.seen, self._place, history, now))
