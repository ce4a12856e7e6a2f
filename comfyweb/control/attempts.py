"""Carries attempts out: makes the call of each, stores the answer, and follows the operation to its end."""

import logging
import uuid
from dataclasses import replace
from datetime import timedelta

from comfyweb.cloud.cloud_error import CloudError
from comfyweb.cloud.compute import ComputeEngine
from comfyweb.control.clock import CorrectedClock
from comfyweb.control.ledger import Ledger
from comfyweb.control.observer import Observer
from comfyweb.control.orders import Orders
from comfyweb.logs import about
from comfyweb.machine.decide import OFF, UP
from comfyweb.machine.faults import named
from comfyweb.machine.model import Attempt, Intent, MachineSeen, Policy, Verb
from comfyweb.machine.preparation import wanted_metadata
from comfyweb.machine.snapshot import Place

log = logging.getLogger(__name__)

PREPARATIONS = frozenset({Verb.SET_METADATA, Verb.SET_SCHEDULING, Verb.SEND_COMMANDS})
# Metadata and scheduling are changed in a second or so; a start waits for them.
PREPARING = timedelta(milliseconds=500)
# Compute Engine ends an operation within minutes; one that lasts longer is no longer waited for.
WAITED_FOR = timedelta(minutes=10)
# A call whose answer is lost is repeated with its own request id for this long; then it counts as failed.
REPEATED_FOR = timedelta(minutes=1)
# While nobody can read how a start or a stop goes, the machine tells; a stock-out was recorded to show after 96 s.
UNTOLD = timedelta(minutes=2)
# Where the system before comfyweb kept its password.
PASSWORD_KEYS = frozenset({"auth_user", "auth_pass"})


class Attempts:
    """The attempts on one machine. `password_deleted` says that the system before comfyweb had left its password."""

    def __init__(
        self,
        *,
        compute: ComputeEngine,
        ledger: Ledger,
        observer: Observer,
        orders: Orders,
        policy: Policy,
        place: Place,
        clock: CorrectedClock,
    ) -> None:
        self.password_deleted = False
        self._compute = compute
        self._ledger = ledger
        self._observer = observer
        self._orders = orders
        self._policy = policy
        self._place = place
        self._clock = clock
        self._lost_in_a_row = 0

    async def make(self, verb: Verb, intent: Intent | None) -> None:
        """Store a new attempt, and make its call. Raises LedgerError."""
        request_id = str(uuid.uuid4())
        attempt = await self._ledger.begin(
            verb, self._place.zone, request_id, intent.id if intent else None, self._clock.now()
        )
        await self.call(attempt)

    async def call(self, attempt: Attempt) -> None:
        """Make the call of a stored attempt and store the answer. Raises LedgerError."""
        with about(intent_id=attempt.intent_id, attempt_request_id=attempt.request_id):
            await self._call_and_store(attempt)

    async def follow(self, attempt: Attempt) -> None:
        """Look how one in flight goes, and store its end if it has come to one. Raises LedgerError."""
        now, observer = self._clock.now(), self._observer
        if not attempt.operation:
            if now - attempt.made_at > REPEATED_FOR:
                fault = observer.seen.call_fault or named("operation-forgotten")
                await self._ledger.end_attempt(attempt.id, fault, now)
                self._answered()
            return
        try:
            operation = await self._compute.operation(attempt.zone, attempt.operation)
        except CloudError as error:
            log.warning("operation %s: %s", attempt.operation, error)
            observer.seen = replace(observer.seen, call_fault=error.fault)
            if self._is_done(attempt):
                await self._ledger.end_attempt(attempt.id, None, self._clock.now())
            # Such as a missing permission: nobody will ever tell how it ended.
            elif not error.fault.passes and (attempt.verb in PREPARATIONS or now - attempt.made_at > UNTOLD):
                await self._ledger.end_attempt(attempt.id, error.fault, self._clock.now())
            return
        observer.seen = replace(observer.seen, call_fault=None)
        if operation.done:
            await self._ledger.end_attempt(attempt.id, operation.fault, self._clock.now())
        elif now - attempt.made_at > WAITED_FOR:
            await self._ledger.end_attempt(attempt.id, named("operation-forgotten"), self._clock.now())

    def _is_done(self, attempt: Attempt) -> bool:
        """Whether the machine shows that it has started or stopped since."""
        machine = self._observer.seen.machine
        if attempt.verb in PREPARATIONS or not isinstance(machine, MachineSeen) or machine.at <= attempt.made_at:
            return False
        return machine.status in (UP if attempt.verb is Verb.START else OFF)

    async def _call_and_store(self, attempt: Attempt) -> None:
        observer = self._observer
        try:
            log.info("calling Compute Engine: %s", attempt.verb)
            operation = await self._send(attempt)
        except CloudError as error:
            log.warning("%s failed: %s", attempt.verb, error)
            # While it is unknown whether the call was carried out, it stays in flight and is repeated as it is.
            if not error.lost or self._clock.now() - attempt.made_at > REPEATED_FOR:
                await self._ledger.end_attempt(attempt.id, error.fault, self._clock.now())
                self._answered()
            else:
                self._lost_in_a_row += 1
                pause = error.fault.retry[min(self._lost_in_a_row, len(error.fault.retry)) - 1]
                again = self._clock.now() + timedelta(seconds=pause)
                observer.seen = replace(observer.seen, call_fault=error.fault, call_again=again)
        else:
            self._answered()
            if operation is None:
                await self._ledger.end_attempt(attempt.id, None, self._clock.now())
            else:
                await self._ledger.called(attempt.id, operation)
        if attempt.verb in PREPARATIONS:
            observer.machine_due = self._clock.monotonic() + PREPARING.total_seconds()

    def _answered(self) -> None:
        self._lost_in_a_row = 0
        self._observer.seen = replace(self._observer.seen, call_fault=None, call_again=None)

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
                machine = self._observer.seen.machine
                running = isinstance(machine, MachineSeen) and machine.status in UP
                wanted = dict(self._policy.metadata)
                if running:
                    wanted = {k: v for k, v in wanted.items() if k in self._policy.running_metadata}
                elif isinstance(machine, MachineSeen):
                    wanted = wanted_metadata(wanted, machine.metadata)
                    self.password_deleted |= not PASSWORD_KEYS.isdisjoint(machine.metadata)
                return await self._compute.set_metadata(zone, request_id, wanted)
