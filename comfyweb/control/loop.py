"""The one loop of a machine: observe, decide, act, publish. Nothing else calls Compute Engine.

Killed between any two lines it goes on where it was: what was asked for is in the ledger before anything is called, and
each call is there with its request id before it is made, so that an answer that was lost is fetched by the same call.
"""

import asyncio
import logging
import math
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from comfyweb.cloud.cloud_error import CloudError
from comfyweb.cloud.compute import ComputeEngine
from comfyweb.cloud.host import HostClient, HostRefused, HostSilent, from_guest_attributes
from comfyweb.control.ledger import Ledger, LedgerError, Standing
from comfyweb.control.measures import Durations, Measured
from comfyweb.control.orders import Orders
from comfyweb.control.publisher import Publisher
from comfyweb.logs import about
from comfyweb.machine import orders
from comfyweb.machine.decide import COMING, GOING, HOST_FRESH, MOVING, OFF, UP, current_host, decide
from comfyweb.machine.faults import lacking, named
from comfyweb.machine.guards import BOOT_GRACE, FIRST_BOOT_GRACE, latest_end, silence
from comfyweb.machine.model import (
    AskDrain,
    Attempt,
    Call,
    CancelDrain,
    Decision,
    Enforce,
    Fault,
    Intent,
    MachineMissing,
    MachineSeen,
    NameSeen,
    Observation,
    Phase,
    Policy,
    Replay,
    Verb,
    Wanted,
)
from comfyweb.machine.orders import Order
from comfyweb.machine.preparation import foreign_script, wanted_metadata
from comfyweb.machine.snapshot import History, Place, address, picture, troubled
from comfyweb.machine.stops import why_stopped

log = logging.getLogger(__name__)

# Guest attributes are read at each look while the machine boots, and afterwards at most this often.
GUEST_ATTRIBUTES_EVERY = timedelta(minutes=1)
PREPARATIONS = frozenset({Verb.SET_METADATA, Verb.SET_SCHEDULING, Verb.SEND_COMMANDS})
# Metadata and scheduling are changed in a second or so; a start waits for them.
PREPARING = timedelta(milliseconds=500)
# Compute Engine ends an operation within minutes; one that lasts longer is no longer waited for.
WAITED_FOR = timedelta(minutes=10)
# A call whose answer is lost is repeated with its own request id for this long; then it counts as failed.
REPEATED_FOR = timedelta(minutes=1)
# While nobody can read how a start or a stop goes, the machine tells; a stock-out was recorded to show after 96 s.
UNTOLD = timedelta(minutes=2)
# By more than this our clock is wrong: Google's says so in whole seconds, and an answer takes 15 s at most.
CLOCKS_DIFFER = timedelta(minutes=1)
# Where the system before comfyweb kept its password.
PASSWORD_KEYS = frozenset({"auth_user", "auth_pass"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """Time, injected: `now` for what is told and stored, `monotonic` (seconds) for when to look again."""

    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    monotonic: Callable[[], float] = time.monotonic


class Loop:
    """Runs one machine. `round` is one turn; `run` takes turns for ever, sooner when it is woken."""

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
    ) -> None:
        self._compute = compute
        self._host = host
        self._ledger = ledger
        self._publisher = publisher
        self._policy = policy
        self._place = place
        self._clock = clock
        self._name = name
        self._orders = orders or Orders()
        # A time and when that was on the monotonic clock: what time it is follows from both.
        self._time, self._timed = clock.now(), clock.monotonic()
        self._ahead = timedelta()
        self._seen = Observation()
        # When to look next, on the monotonic clock: 0 is at once.
        self._machine_due = 0.0
        self._host_due = 0.0
        self._guest_due = 0.0
        self._looked = self._asked = 0.0
        self._host_answers = False
        self._guest_readable = True
        self._lost_in_a_row = 0
        self._listened = clock.monotonic()
        self._permissions: tuple[str, ...] | None = None
        self._may_look = True
        self._password_deleted = False
        self._decided = Decision(phase=Phase.FAULT, machine_every=MOVING)
        self._wake = asyncio.Event()
        self.trouble: str | None = "the first look has not ended yet"
        self.on_round: list[Callable[[], Awaitable[None]]] = []
        self._turns, self._failed_turns = Durations(), 0

    @property
    def measured(self) -> Measured:
        """What is counted of it and of its calls."""
        machine, run = self._seen.machine, self._seen.run
        return Measured(
            turns=self._turns,
            failed_turns=self._failed_turns,
            calls=self._compute.outcomes,
            looked_at=machine.at if machine else None,
            silence_seconds=self._seen.silence.total_seconds(),
            run_seconds=max(0.0, (self.now() - run.started_at).total_seconds()) if run else 0.0,
        )

    @property
    def seen(self) -> Observation:
        """What was last observed."""
        return self._seen

    def now(self) -> datetime:
        """Return the time, by the last look: an own clock that jumps or is wrong decides nothing.

        Between looks it goes on by a clock that nobody can set.
        """
        return self._time + timedelta(seconds=self._clock.monotonic() - self._timed)

    @property
    def latest_end(self) -> datetime | None:
        """When the run is ended in any case; None while nothing ends it."""
        return latest_end(self._seen, self._policy.session_cap)

    def order(self, order: Order) -> bool:
        """Tell the host by metadata; False when it isn't heard by way of Google either, or still answers by HTTPS."""
        return self._orders.put(order, self._seen, self.now())

    def wake(self) -> None:
        """Look at once: somebody asked for something, or did something on the machine."""
        self._machine_due = self._host_due = 0.0
        self._seen = replace(self._seen, call_again=None)
        self._wake.set()

    async def run(self) -> None:
        """Take turns until cancelled. A failing turn is logged, told to `/readyz`, and tried again."""
        while True:
            began = self._clock.monotonic()
            try:
                wait = await self.round()
                self.trouble = None
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
        await self._observe(standing)
        standing = await self._keep_books(await self._ledger.standing())
        self._listen(standing)
        now = self.now()
        decision = decide(standing.open_intent, self._seen, self._policy, now)
        if standing.open_intent is not None and standing.open_intent.wanted is Wanted.ON:
            self._orders.keep_on(self._seen, now)
        if standing.open_intent is not None and decision.verdict is not None:
            await self._ledger.end_intent(standing.open_intent.id, decision.verdict.fault, now)
            standing = await self._ledger.standing()
            decision = decide(None, self._seen, self._policy, now)
        if isinstance(decision.act, Enforce):
            log.warning("%s stops the machine", decision.act.guard)
            await self._ledger.ask(Wanted.OFF, decision.act.mode, decision.act.guard, now)
            standing = await self._ledger.standing()
            decision = decide(standing.open_intent, self._seen, self._policy, now)
        if decision.act is not None:
            await self._act(decision, standing.open_intent)
        if not isinstance(decision.act, Call | Replay) and self._orders.due(self._seen, now):
            await self._act(replace(decision, act=Call(verb=Verb.SEND_COMMANDS)), None)
        self._decided = decision
        since = self._seen.since if self._seen.phase is decision.phase else now
        self._seen = replace(self._seen, phase=decision.phase, since=since)
        history = replace(_history(standing, self._seen), notices=tuple(self._notices()))
        await self._publisher.publish(picture(decision, standing.open_intent, self._seen, self._place, history, now))
        await self._revoke(now)
        for hook in self.on_round:
            await hook()
        return self._pause(decision)

    # -- observe ---------------------------------------------------------------------------------------------------

    async def _observe(self, standing: Standing) -> None:
        self._seen = replace(self._seen, attempts=standing.attempts, run=standing.run)
        if self._clock.monotonic() >= self._machine_due:
            first = self._seen.machine is None
            if first:
                await self._learn_the_time()
            in_flight = [a for a in standing.attempts if a.in_flight] if self._seen.machine is not None else []
            for attempt in in_flight:
                await self._look_at_operation(attempt)
            if in_flight or not first:
                await self._look_at_machine()
            self._looked, self._machine_due = self._clock.monotonic(), math.inf
        if self._clock.monotonic() >= self._host_due:
            await self._look_at_host()
            self._asked, self._host_due = self._clock.monotonic(), math.inf
        self._seen = replace(self._seen, name=self._name(self._seen))

    async def _learn_the_time(self) -> None:
        """Look before anything is judged or stored by our own clock, which may be wrong."""
        await self._look_at_machine()
        if self._seen.machine is not None:
            await self._ledger.stored_by(self.now())

    async def _look_at_operation(self, attempt: Attempt) -> None:
        now = self.now()
        if not attempt.operation:
            if now - attempt.made_at > REPEATED_FOR:
                await self._ledger.end_attempt(attempt.id, self._seen.call_fault or named("operation-forgotten"), now)
                self._answered()
            return
        try:
            operation = await self._compute.operation(attempt.zone, attempt.operation)
        except CloudError as error:
            log.warning("operation %s: %s", attempt.operation, error)
            self._seen = replace(self._seen, call_fault=error.fault)
            if self._is_done(attempt):
                await self._ledger.end_attempt(attempt.id, None, self.now())
            # Such as a missing permission: nobody will ever tell how it ended.
            elif not error.fault.passes and (attempt.verb in PREPARATIONS or now - attempt.made_at > UNTOLD):
                await self._ledger.end_attempt(attempt.id, error.fault, self.now())
            return
        self._seen = replace(self._seen, call_fault=None)
        if operation.done:
            await self._ledger.end_attempt(attempt.id, operation.fault, self.now())
        elif now - attempt.made_at > WAITED_FOR:
            await self._ledger.end_attempt(attempt.id, named("operation-forgotten"), self.now())

    def _is_done(self, attempt: Attempt) -> bool:
        """Whether the machine shows that it has started or stopped since."""
        machine = self._seen.machine
        if attempt.verb in PREPARATIONS or not isinstance(machine, MachineSeen) or machine.at <= attempt.made_at:
            return False
        return machine.status in (UP if attempt.verb is Verb.START else OFF)

    async def _look_at_machine(self) -> None:
        asked = self._clock.monotonic()
        try:
            machine = await self._compute.look(self._place.zone)
        except CloudError as error:
            self._seen = replace(self._seen, machine_fault=error.fault)
            if error.fault.code == "permission" and self._permissions is None:
                await self._look_at_permissions()  # It may not be the only one that is missing.
                self._may_look = False
        else:
            machine = self._set_time(machine, asked)
            self._seen = replace(self._seen, machine=machine, machine_fault=None)
            if self._permissions is None or not self._may_look:
                await self._look_at_permissions()
                self._may_look = True

    def _set_time(self, machine: MachineSeen | MachineMissing, asked: float) -> MachineSeen | MachineMissing:
        """Go by our own clock as long as it agrees with Google's, and by Google's when it doesn't."""
        told = machine.told_at if isinstance(machine, MachineSeen) else None
        ahead = told - machine.at if told is not None and abs(told - machine.at) > CLOCKS_DIFFER else timedelta()
        if ahead and abs(ahead - self._ahead) > CLOCKS_DIFFER:
            log.warning("this computer's clock is %s than Google's, which is gone by", _apart(ahead))
        self._ahead = ahead
        self._time, self._timed = machine.at + ahead, asked
        return replace(machine, at=self._time)

    async def _look_at_permissions(self) -> None:
        """Find out once, at the beginning, what Google will refuse later."""
        try:
            self._permissions = await self._compute.missing_permissions(self._place.zone)
        except CloudError as error:
            log.warning("permissions could not be checked: %s", error)
            self._permissions = ()
        for permission in self._permissions:
            log.warning("missing permission: %s", permission)

    async def _look_at_host(self) -> None:
        machine = self._seen.machine
        if not isinstance(machine, MachineSeen) or machine.status not in UP:
            return
        url = address(machine, self._place)
        try:
            if url:
                # An answer is as old as its question, whatever the host's clock says.
                asked = self.now()
                host = replace(await self._host.status(url), at=asked)
                self._seen = replace(self._seen, host=host, unheard="")
                self._host_answers = True
                return
        except (HostSilent, HostRefused) as error:
            log.debug("the host does not answer: %s", error)
            self._seen = replace(self._seen, unheard=str(error))
            if self._host_answers:  # It has just fallen silent: Compute Engine may know why.
                self._host_answers, self._machine_due = False, 0.0
        await self._read_guest_attributes()

    async def _read_guest_attributes(self) -> None:
        """While HTTPS is silent, hear the host by way of Google. What it says there can be forged: it informs only."""
        host = self._seen.host
        answered_lately = host is not None and host.by_https and self.now() - host.at < HOST_FRESH
        if answered_lately or self._clock.monotonic() < self._guest_due:
            return
        every = MOVING if self._decided.phase is Phase.BOOTING else GUEST_ATTRIBUTES_EVERY
        self._guest_due = self._clock.monotonic() + every.total_seconds()
        try:
            values = await self._compute.guest_attributes(self._place.zone)
        except CloudError as error:
            log.debug("guest attributes: %s", error)
            self._guest_readable = False
            return
        self._guest_readable = True
        told = from_guest_attributes(values, self.now())
        boot = self._seen.run.boot_id if self._seen.run else ""
        if told is not None and boot in ("", told.boot_id):
            self._seen = replace(self._seen, host=told)

    def _listen(self, standing: Standing) -> None:
        """Measure how long the host has been silent. A channel that we can't read is not a silent one."""
        before, self._listened = self._listened, self._clock.monotonic()
        passed = timedelta(seconds=self._listened - before) if self._guest_readable else timedelta()
        heard = current_host(self._seen, self.now()) is not None
        grace = BOOT_GRACE if standing.booted_before else FIRST_BOOT_GRACE
        now_silent = silence(self._seen.silence, passed, self._seen, grace, heard=heard)
        self._seen = replace(self._seen, silence=now_silent)

    # -- keep books ------------------------------------------------------------------------------------------------

    async def _keep_books(self, standing: Standing) -> Standing:
        """Store the beginning, the news and the end of a run."""
        machine, run = self._seen.machine, standing.run
        changed = False
        if isinstance(machine, MachineSeen):
            on = machine.status in UP | COMING and machine.last_started is not None
            another = run is not None and on and run.started_at != machine.last_started
            # While a start is going on, Compute Engine still tells the last run's time.
            before = standing.last_run.started_at if standing.last_run else None
            new = on and machine.last_started is not None and machine.last_started != before
            if run is not None and (machine.status in OFF or another):
                # What was stored when it was seen going off is nearer to the truth than what can be told now.
                reason = run.reason or why_stopped(run, machine, standing.stop)
                await self._ledger.end_run(run.id, machine.last_stopped or machine.at, reason)
                self._seen = replace(self._seen, host=None)
                run, changed = None, True
            elif run is not None and machine.status in GOING | UP and (run.reason is None) is (machine.status in GOING):
                reason = why_stopped(run, machine, standing.stop) if machine.status in GOING else None
                await self._ledger.note_reason(run.id, reason)
                changed = True
            if run is None and new and machine.last_started is not None:
                await self._ledger.begin_run(machine.last_started, _asked_at(standing))
                changed = True
            elif run is not None and (host := self._seen.host) is not None and host.at >= run.started_at:
                news = replace(
                    run,
                    ready_at=run.ready_at or (host.at if host.comfyui_ready else None),
                    stops_at=host.stops_at,
                    boot_id=host.boot_id if host.by_https else run.boot_id,
                )
                if news != run:
                    await self._ledger.note_run(
                        run.id, ready_at=news.ready_at, stops_at=news.stops_at, boot_id=news.boot_id
                    )
                    changed = True
        if changed:
            standing = await self._ledger.standing()
        self._seen = replace(self._seen, attempts=standing.attempts, run=standing.run)
        return standing

    # -- act -------------------------------------------------------------------------------------------------------

    async def _act(self, decision: Decision, intent: Intent | None) -> None:
        match decision.act:
            case Call(verb=verb):
                request_id = str(uuid.uuid4())
                attempt = await self._ledger.begin(
                    verb, self._place.zone, request_id, intent.id if intent else None, self.now()
                )
                await self._call(attempt)
            case Replay(attempt=attempt):
                await self._call(attempt)
            case AskDrain(until=until, stay=stay):
                left = until - self.now()
                await self._tell_host(lambda url: self._host.drain(url, left, stay=stay), orders.drain(left, stay=stay))
            case CancelDrain():
                await self._tell_host(self._host.cancel_drain, orders.cancel_drain())
            case Enforce() | None:
                pass  # Nothing to call.

    async def _call(self, attempt: Attempt) -> None:
        """Make the call of a stored attempt and store the answer."""
        with about(intent_id=attempt.intent_id, attempt_request_id=attempt.request_id):
            await self._call_and_store(attempt)

    async def _call_and_store(self, attempt: Attempt) -> None:
        try:
            log.info("calling Compute Engine: %s", attempt.verb)
            operation = await self._send(attempt)
        except CloudError as error:
            log.warning("%s failed: %s", attempt.verb, error)
            # While it is unknown whether the call was carried out, it stays in flight and is repeated as it is.
            if not error.lost or self.now() - attempt.made_at > REPEATED_FOR:
                await self._ledger.end_attempt(attempt.id, error.fault, self.now())
                self._answered()
            else:
                self._lost_in_a_row += 1
                pause = error.fault.retry[min(self._lost_in_a_row, len(error.fault.retry)) - 1]
                again = self.now() + timedelta(seconds=pause)
                self._seen = replace(self._seen, call_fault=error.fault, call_again=again)
        else:
            self._answered()
            if operation is None:
                await self._ledger.end_attempt(attempt.id, None, self.now())
            else:
                await self._ledger.called(attempt.id, operation)
        if attempt.verb in PREPARATIONS:
            self._machine_due = self._clock.monotonic() + PREPARING.total_seconds()

    def _answered(self) -> None:
        self._lost_in_a_row = 0
        self._seen = replace(self._seen, call_fault=None, call_again=None)

    async def _send(self, attempt: Attempt) -> str | None:
        zone, request_id = attempt.zone, attempt.request_id
        match attempt.verb:
            case Verb.START:
                return await self._compute.start(zone, request_id)
            case Verb.STOP:
                return await self._compute.stop(zone, request_id)
            case Verb.FORCE_STOP:
                return await self._compute.stop(zone, request_id, force=True)
            case Verb.SET_SCHEDULING:
                return await self._compute.set_scheduling(zone, request_id, self._policy.max_run)
            case Verb.SEND_COMMANDS:
                return await self._compute.set_metadata(zone, request_id, self._orders.write())
            case Verb.SET_METADATA:
                machine = self._seen.machine
                running = isinstance(machine, MachineSeen) and machine.status in UP
                wanted = dict(self._policy.metadata)
                if running:
                    wanted = {k: v for k, v in wanted.items() if k in self._policy.running_metadata}
                elif isinstance(machine, MachineSeen):
                    wanted = wanted_metadata(wanted, machine.metadata)
                    self._password_deleted |= not PASSWORD_KEYS.isdisjoint(machine.metadata)
                return await self._compute.set_metadata(zone, request_id, wanted)

    async def _tell_host(self, say: Callable[[str], Awaitable[None]], order: Order) -> None:
        if self._seen.host is not None and not self._seen.host.by_https:
            self.order(order)
            return  # It is told by way of Google.
        machine = self._seen.machine
        url = address(machine, self._place) if isinstance(machine, MachineSeen) else ""
        if not url:
            return  # The machine has lost its address since its host answered.
        try:
            await say(url)
        except (HostSilent, HostRefused) as error:
            log.warning("the host did not obey: %s", error)
        else:
            self._host_due = 0.0  # Show at once what it makes of that. A refusal is tried again at the usual pace.

    async def _revoke(self, now: datetime) -> None:
        """Tell the host of sessions that have ended, until it has heard: their ComfyUI cookies die with them."""
        host, machine = self._seen.host, self._seen.machine
        if host is None or not isinstance(machine, MachineSeen):
            return
        told: list[str] = []
        for jti in await self._ledger.unrevoked(now):
            if not host.by_https:
                # An acknowledgement by way of Google can be forged, so it is told again when HTTPS is back.
                self.order(orders.revoke(jti))
                continue  # with the next, by way of Google
            try:
                await self._host.revoke(address(machine, self._place), jti)
            except (HostSilent, HostRefused) as error:
                log.warning("the host did not hear of a logout: %s", error)
                break
            told.append(jti)
        if told:
            await self._ledger.revoked(told, now)

    def _notices(self) -> Iterable[str]:
        """Yield what the person at the page should know and Compute Engine or the host don't say."""
        refused = self._seen.machine_fault.what if self._seen.machine_fault else ""
        for permission in self._permissions or ():
            if permission not in refused:  # That one is told as the fault.
                fault = lacking(permission, self._place.project)
                yield f"{fault.what} {fault.todo}"
        machine = self._seen.machine
        if isinstance(machine, MachineSeen) and foreign_script(self._policy.metadata, machine.metadata):
            yield (
                "The machine has a start-up script that is not comfyweb's. It was left as it is, so comfyweb's own "
                "host software is not installed."
            )
        if self._ahead:
            yield (
                f"The clock of comfyweb's computer is {_apart(self._ahead)} than Google's, which is gone by. "
                "Set it right: until then logins end too early or too late."
            )
        if self._password_deleted:
            yield "The old system's password (auth_user, auth_pass) was deleted from the machine's metadata."

    def _pause(self, decision: Decision) -> float:
        """Set when to look next, unless something asked for an earlier look; return the seconds until then."""
        self._machine_due = min(self._machine_due, self._looked + decision.machine_every.total_seconds())
        host_every = decision.host_every.total_seconds() if decision.host_every else math.inf
        self._host_due = min(self._host_due, self._asked + host_every)
        return max(min(self._machine_due, self._host_due) - self._clock.monotonic(), 0.0)


def _apart(ahead: timedelta) -> str:
    minutes = round(abs(ahead) / timedelta(minutes=1))
    return f"{minutes} minute{'s' if minutes > 1 else ''} {'slower' if ahead > timedelta() else 'faster'}"


def _asked_at(standing: Standing) -> datetime | None:
    """Return when somebody asked for the run that has just begun, or None when it was started elsewhere."""
    intent = standing.last_intent
    if intent is None or intent.wanted is not Wanted.ON:
        return None
    ours = (a for a in standing.attempts if a.intent_id == intent.id and a.verb is Verb.START)
    return intent.asked_at if any(a.fault is None for a in ours) else None


def _history(standing: Standing, seen: Observation) -> History:
    refused: Fault | None = None
    intent, machine = standing.last_intent, seen.machine
    if intent is not None and standing.last_intent_fault is not None:
        up = isinstance(machine, MachineSeen) and machine.status in UP | COMING
        # A refusal is told until the machine is what was asked for, or something else is asked for.
        refused = standing.last_intent_fault if up is (intent.wanted is Wanted.OFF) else None
    return History(last_run=standing.last_run, refused=refused, usual_start=standing.usual_start)
