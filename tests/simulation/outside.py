"""Everything that is not comfyweb's app: the cloud, what its machine truly does, and the guest inside it."""

import asyncio
import random
from collections import deque
from datetime import datetime, timedelta

from comfyweb.demo.faults import Fault
from comfyweb.demo.model import CALLER, SYSTEM, Machine, Refusal, Status, Times
from comfyweb.demo.world import MACHINE, ZONES, World
from tests.simulation.facts import End, Facts
from tests.simulation.guest import Guest
from tests.simulation.virtual_time import VirtualTimeLoop

CONSOLE = "colleague@example.com"
ZONE = ZONES[0]
TIME_LIMIT_OPERATION = "compute.instances.timeLimitReached"
PREEMPTED_OPERATION = "compute.instances.preempted"
GUEST_OPERATION = "compute.instances.guestTerminate"


class Outside:
    """The model with virtual time, and the truth about it."""

    def __init__(self, loop: VirtualTimeLoop, facts: Facts, rng: random.Random) -> None:
        self._loop = loop
        self._facts = facts
        self._rng = rng
        self.world = World(now=loop.now(), seed=rng.randrange(1 << 30), times=_times(rng))
        self.spot = rng.random() < 0.2
        self.hangs = ""
        self.guest = Guest(self, facts, rng)
        self.ends: deque[End] = deque(maxlen=64)
        self._wakened = asyncio.Event()
        self._status: str = "TERMINATED"
        self._boot_id = ""
        self._started: datetime | None = None
        self._touched = False
        if self.spot:
            self.machine_there().scheduling |= {"provisioningModel": "SPOT", "preemptible": True}
        facts.status(self.now(), "TERMINATED")

    def now(self) -> datetime:
        """Return the virtual time."""
        return self._loop.now()

    @property
    def machine(self) -> Machine | None:
        """The machine, None while it is deleted."""
        return self.world.machines.get((ZONE, MACHINE))

    def machine_there(self) -> Machine:
        """Return the machine. Raises KeyError while it is deleted."""
        return self.world.machines[ZONE, MACHINE]

    @property
    def status(self) -> str:
        """Compute Engine's word, MISSING while there is no machine."""
        return self._status

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong out here that a person at the page can't mend."""
        return not self.hangs and not self.world.faults.pending() and self._status not in STRANGE

    def latency(self) -> float:
        """Return how long the next call takes."""
        return self._rng.uniform(0.05, 0.4)

    # -- time --------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Let the model do what is due, each at its own time."""
        while True:
            self.advance()
            self._wakened.clear()
            due = self._next()
            try:
                async with asyncio.timeout(None if due is None else max((due - self.now()).total_seconds(), 0.001)):
                    await self._wakened.wait()
            except TimeoutError:
                pass

    def advance(self) -> None:
        """Bring the model up to now, and note what became of the machine."""
        self.world.advance(self.now())
        self._note()

    def changed(self) -> None:
        """Something was done to the model: what is due next may be another thing."""
        self._note()
        self._wakened.set()

    def _next(self) -> datetime | None:
        machine = self.machine
        if machine is None:
            return None
        return machine.steps[0].at if machine.steps else machine.terminates_at

    def _note(self) -> None:
        machine = self.machine
        status = machine.status.value if machine else "MISSING"
        if status != self._status:
            before, self._status = self._status, status
            self._facts.status(self.world.now, status)
            if before == "RUNNING":
                self._left(machine)
            if status == "RUNNING" and machine is not None:
                self._started = machine.last_start
        boot_id = machine.boot_id if machine and status == "RUNNING" else ""
        if boot_id != self._boot_id:
            self._boot_id = boot_id
            self.guest.power(boot_id)

    def _left(self, machine: Machine | None) -> None:
        operation = machine.operations[0] if machine and machine.operations else None
        if self._started is not None:
            self.ends.append(
                End(
                    started=self._started,
                    left=self.world.now,
                    kind=operation.kind if operation else "",
                    by_us=operation is not None and operation.user == CALLER,
                    request_id=operation.request_id if operation else "",
                    jobs=self.guest.jobs,
                    why_off=self.guest.why_off,
                    system=operation is not None and operation.user == SYSTEM,
                )
            )
            self._facts.left(self.ends[-1])

    # -- what others do ----------------------------------------------------------------------------------------------

    def console(self, verb: str) -> None:
        """Somebody acts outside comfyweb: start, stop, reset, delete, create. What Google refuses changes nothing."""
        self.advance()
        self._facts.say(f"at the console: {verb}")
        try:
            if verb == "create":
                self.world.create(ZONE, MACHINE)
            else:
                getattr(self.world, verb)(self.machine_there(), user=CONSOLE)
        except (Refusal, KeyError):
            self._facts.say("  refused")
        self.changed()

    def preempt(self) -> None:
        """Google takes a Spot machine back."""
        self.advance()
        if self.spot and self.machine is not None:
            self._facts.say("Google takes the machine back")
            try:
                self.world.preempt(self.machine_there())
            except Refusal:
                self._facts.say("  refused")
            self.changed()

    def put_in(self, status: Status) -> None:
        """Put it in a state that it doesn't reach by itself."""
        self.advance()
        if self.machine is not None:
            self._facts.say(f"the machine is put in {status}")
            self._facts.touched()
            self.world.put_in(self.machine_there(), status)
            self.changed()

    def power_off(self) -> None:
        """The guest switches its machine off."""
        self.advance()
        if self.machine is not None:
            self.world.guest_shutdown(self.machine_there())
            self.changed()

    def fault(self, kind: str, verb: str = "*", *, times: int | None = 1, seconds: float | None = None) -> None:
        """Let calls go wrong, that many times or for that long."""
        until = self.now() + timedelta(seconds=seconds) if seconds else None
        self._facts.say(f"fault: {kind} for {verb}, {times or 'any'} times, {seconds or 'any'} seconds")
        self.world.faults.add(Fault(kind=kind, verb=verb, times=times, until=until))

    def write_attribute(self, key: str, value: str) -> None:
        """Write a guest attribute, as any program on the machine can."""
        machine = self.machine
        if machine is not None and machine.guest_attributes_enabled:
            machine.guest_attributes.setdefault("comfyweb", {})[key] = value

    def heal(self) -> None:
        """Mend all that a person at the page can't mend."""
        self.hangs = ""
        self.world.faults.clear()
        self.advance()
        if self.machine is None:
            self.console("create")
        elif self._status in STRANGE:
            self.console("stop")
        self.guest.heal()


STRANGE = frozenset({"SUSPENDED", "SUSPENDING", "REPAIRING", "DEPROVISIONING", "MISSING"})


def _times(rng: random.Random) -> Times:
    """Draw how long Compute Engine takes in this world, within what was recorded of it."""
    return Times(
        pending=timedelta(seconds=rng.uniform(0.1, 2)),
        provisioning=timedelta(seconds=rng.uniform(3, 60)),
        staging=timedelta(seconds=rng.uniform(3, 30)),
        stopping=timedelta(seconds=rng.uniform(5, 110)),
    )
