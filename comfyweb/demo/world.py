"""Compute Engine as a model without a clock: time is told to it, and it does all that was due until then, in order.

Nothing here waits, so a simulation may run years of it in seconds. Everything random comes from one seed. What a
project has is in `estate`; what callers may do to it in `storage`, `addresses` and `alterations`; here is how machines
come, start, stop and go.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from comfyweb.demo.arrivals import Arrivals
from comfyweb.demo.bodies import max_run, scheduling_in
from comfyweb.demo.estate import ZONES
from comfyweb.demo.faults import OPERATION_FAULTS, Faults, canceled, not_ready
from comfyweb.demo.model import (
    CALLER,
    PROJECT,
    SYSTEM,
    Attachment,
    Disk,
    Machine,
    Operation,
    OperationError,
    Refusal,
    Status,
    Step,
    Times,
    region_of,
)
from comfyweb.demo.quotas import of_machine
from comfyweb.demo.register import AddressPool
from comfyweb.demo.timeline import nothing

MACHINE = "comfyui-gpu"
TIME_LIMIT = "compute.instances.timeLimitReached"
"""What ends a run at its longest duration. The real name of this operation is not known; the others' are."""


FOREVER = timedelta(days=3650)


class World(Arrivals):
    """One project. Call `advance` first, then look or act: everything happens at the time told last."""

    def __init__(
        self,
        *,
        now: datetime,
        times: Times | None = None,
        seed: int = 0,
        zones: Sequence[str] = ZONES,
        project: str = PROJECT,
        machine: str = MACHINE,
        pool: AddressPool | None = None,
        faults: Faults | None = None,
    ) -> None:
        super().__init__(now=now, times=times, seed=seed, zones=zones, project=project, pool=pool, faults=faults)
        if machine:
            self.create(self.zones[0], machine)

    # -- time ------------------------------------------------------------------------------------------------------

    def advance(self, now: datetime) -> None:
        """Do all that is due until `now`, each at its own time. A clock that went backwards stands still here."""
        super().advance(now)
        self.faults.expire(self.now)

    def due(self) -> Iterable[tuple[datetime, Callable[[], None]]]:
        """List what lies ahead, each with its time."""
        yield from super().due()
        for machine in self.machines.values():
            if machine.steps:
                yield machine.steps[0].at, lambda machine=machine: self._step(machine)
            elif machine.status is Status.RUNNING and machine.terminates_at is not None:
                yield machine.terminates_at, lambda machine=machine: self._time_is_up(machine)

    def _step(self, machine: Machine) -> None:
        step = machine.steps.pop(0)
        self._enter(machine, step.status)
        if not machine.steps:
            self._settle(machine, step.error)

    def _settle(self, machine: Machine, error: OperationError | None) -> None:
        for operation in machine.operations:
            operation.end(self.now, error)
        machine.operations.clear()
        machine.steps.clear()
        machine.doing = ""
        if machine.status is Status.TERMINATED:
            machine.admitted = False

    def _enter(self, machine: Machine, status: Status | None) -> None:
        if status is Status.PROVISIONING:
            machine.serial = ""
        elif status is Status.STAGING:
            self.connect(machine)
        elif status is Status.RUNNING:
            machine.last_start = self.now
            limit = max_run(machine.scheduling)
            machine.terminates_at = self.now + limit if limit is not None else None
            machine.preempted = False
            self._boot(machine)
        elif status in (Status.TERMINATED, None):
            if machine.status is Status.STOPPING:
                machine.last_stop = self.now
            self.disconnect(machine)
            machine.boot_id = ""
            machine.terminates_at = None
        if status is None:
            self._remove(machine)
        else:
            machine.status = status
            self._write(machine, f"compute: {status}")

    def _remove(self, machine: Machine) -> None:
        del self.machines[machine.zone, machine.name]
        failed = machine.made_with if machine.doing == "insert" else []
        for attachment in tuple(machine.disks):
            self.detach(machine, attachment)
            goes = attachment.auto_delete or attachment.disk in failed
            if goes and not self.users_of(attachment.disk):
                self.disks.pop((machine.zone, attachment.disk.name), None)

    def _boot(self, machine: Machine) -> None:
        machine.boot_id = self.register.boot_id()
        self._write(machine, f"SeaBIOS\r\nkernel: boot id {machine.boot_id}")

    def _write(self, machine: Machine, line: str) -> None:
        machine.serial += f"{self.now:%b %d %H:%M:%S} {machine.name} {line}\r\n"

    def _time_is_up(self, machine: Machine) -> None:
        machine.terminates_at = None
        gone = machine.scheduling["instanceTerminationAction"] == "DELETE"
        self._leave(machine, self.by_itself(TIME_LIMIT, machine), gone=gone)

    # -- what callers may do ----------------------------------------------------------------------------------------

    def insert(self, zone: str, body: Mapping[str, Any], *, user: str = CALLER) -> Operation:
        """Make a machine with its disks, and start it. If that fails, all that was made for it goes again."""
        wanted = self.arrival_in(zone, body)
        machine = wanted.machine
        operation = self.open("insert", machine, user)
        if excess := self.quotas.excess(region_of(zone), wanted.amounts()):
            return self.edit(operation, lambda: excess)
        self.machines[zone, machine.name] = machine
        for disk in wanted.new_disks:
            self.disks[zone, disk.name] = disk
        for attachment in wanted.attachments:
            self.attach(machine, attachment)
        machine.made_with = wanted.new_disks
        machine.status = Status.PROVISIONING
        self._plan(machine, operation, "insert", self._start_steps(machine, operation.started_at, failed=None))
        return operation

    def start(self, machine: Machine, *, user: str = CALLER) -> Operation:
        """Start it. Succeeds at once while it runs, joins a start under way, fails as not ready while it stops."""
        operation = self.open("start", machine, user)
        if machine.doing == "start":
            machine.operations.append(operation)
        elif machine.doing or machine.status not in (Status.TERMINATED, Status.RUNNING):
            self.edit(operation, lambda: not_ready(machine.path))
        elif machine.status is Status.RUNNING:
            self.edit(operation, nothing)
        else:
            steps = self._start_steps(machine, operation.started_at, failed=Status.TERMINATED)
            self._plan(machine, operation, "start", steps)
        return operation

    def _start_steps(self, machine: Machine, at: datetime, *, failed: Status | None) -> list[Step]:
        staging = at + self.times.provisioning
        steps = [Step(at, Status.PROVISIONING)]
        if fault := self.faults.take("start", operation=True):
            error = OPERATION_FAULTS[fault.kind](machine, self.project, fault.zones_available)
            if fault.after is not None:
                staging = at + fault.after
        else:
            error = self.quotas.excess(region_of(machine.zone), of_machine(machine))
        if error:
            return [*steps, Step(staging, failed, error)]
        return [*steps, Step(staging, Status.STAGING), Step(staging + self.times.staging, Status.RUNNING)]

    def stop(self, machine: Machine, *, user: str = CALLER) -> Operation:
        """Stop it, from any state. A start under way ends as canceled, another stop under way is joined."""
        operation = self.open("stop", machine, user)
        if machine.doing in ("stop", "delete"):
            machine.operations.append(operation)
        elif machine.status is Status.TERMINATED:
            self._settle(machine, canceled(user))
            self.edit(operation, nothing)
        else:
            self._leave(machine, operation)
        return operation

    def reset(self, machine: Machine, *, user: str = CALLER) -> Operation:
        """Cut its electricity for a moment: another boot of the same run. Raises `Refusal` unless it is RUNNING."""
        if machine.status is not Status.RUNNING or machine.doing:
            raise Refusal(400, "resourceNotReady", f"The resource '{machine.path}' is not ready")
        operation = self.open("reset", machine, user)

        def apply() -> OperationError | None:
            if machine.status is not Status.RUNNING or machine.doing:
                return not_ready(machine.path)
            self._boot(machine)
            return None

        return self.edit(operation, apply)

    def delete(self, machine: Machine, *, user: str = CALLER) -> Operation:
        """Delete it, switching it off first. Its disks stay, but for those that go with it (`autoDelete`)."""
        operation = self.open("delete", machine, user)
        if machine.doing == "delete":
            machine.operations.append(operation)
        else:
            self._leave(machine, operation, gone=True)
        return operation

    # -- what happens by itself, or is done to it from outside ---------------------------------------------------------

    def create(self, zone: str, name: str) -> Machine:
        """Put a machine there, TERMINATED, with a boot disk and one for ComfyUI. Raises `Refusal` when there is one."""
        if (self.zone(zone), name) in self.machines:
            raise Refusal.exists(f"{self.path}/zones/{zone}/instances/{name}")
        machine = Machine(
            name=name,
            zone=zone,
            id=self.register.number(),
            created_at=self.now,
            project=self.project,
            internal_ip=self.free_internal_ip(),
            scheduling=scheduling_in({"onHostMaintenance": "TERMINATE"}, has_gpu=True),
        )
        boot = self._kept(zone, name, 50)
        data = self._kept(zone, "comfyui" if name == MACHINE else f"{name}-comfyui", 200)
        self.machines[zone, name] = machine
        self.attach(machine, Attachment(disk=boot, device="persistent-disk-0", boot=True, auto_delete=True))
        self.attach(machine, Attachment(disk=data, device="persistent-comfyui"))
        return machine

    def rename(self, machine: Machine, name: str) -> None:
        """Give it another name. Raises `Refusal` unless it is TERMINATED, and when the name is taken."""
        if machine.status is not Status.TERMINATED or machine.doing:
            raise Refusal(400, "resourceNotReady", f"The resource '{machine.path}' is not ready")
        if (machine.zone, name) in self.machines:
            raise Refusal(409, "alreadyExists", f"There is a machine named {name} in {machine.zone} already")
        del self.machines[machine.zone, machine.name]
        machine.name = name
        self.machines[machine.zone, name] = machine

    def _kept(self, zone: str, name: str, size_gb: int) -> Disk:
        """Find the disk that an earlier machine left behind, or make one; a name that somebody uses gets a number."""
        number, free = 1, name
        while (used := self.disks.get((zone, free))) and self.users_of(used):
            number += 1
            free = f"{name}-{number}"
        found = self.disks.get((zone, free))
        if found is None:
            found = Disk(
                name=free,
                zone=zone,
                id=self.register.number(),
                created_at=self.now,
                project=self.project,
                size_gb=size_gb,
            )
            self.disks[zone, free] = found
        return found

    def guest_shutdown(self, machine: Machine) -> None:
        """Switch off, as its guest asked. Nothing happens unless it is running."""
        if machine.status is Status.RUNNING and not machine.doing:
            self._leave(machine, self.by_itself("compute.instances.guestTerminate", machine))

    def preempt(self, machine: Machine) -> None:
        """Google takes the machine back. Raises `Refusal` unless it is running."""
        if machine.status is not Status.RUNNING or machine.doing:
            raise Refusal(
                409, "resourceNotReady", f"{machine.name} is {machine.status}: only a running machine is preempted"
            )
        machine.preempted = True
        self._leave(machine, self.by_itself("compute.instances.preempted", machine))

    def put_in(self, machine: Machine, status: Status) -> None:
        """Put it in a state that it doesn't reach by itself, and leave it there."""
        self._settle(machine, canceled(SYSTEM))
        machine.admitted = status not in (Status.TERMINATED, Status.SUSPENDED)
        self._enter(machine, status)

    # -- the machinery -----------------------------------------------------------------------------------------------

    def _leave(self, machine: Machine, operation: Operation, *, gone: bool = False) -> None:
        """Switch off, or off and away. What was under way ends as canceled."""
        self._settle(machine, canceled(operation.user))
        slow = self.faults.take("stop", operation=True) if operation.kind == "stop" else None
        takes = self.times.stopping if slow is None else FOREVER if slow.after is None else slow.after
        off = operation.started_at + takes
        steps = [] if machine.status is Status.TERMINATED else [Step(operation.started_at, Status.STOPPING)]
        end = Step(off, None if gone else Status.TERMINATED)
        self._plan(machine, operation, "delete" if gone else "stop", [*steps, end])

    def _plan(self, machine: Machine, operation: Operation, doing: str, steps: list[Step]) -> None:
        machine.doing = doing
        machine.operations = [operation]
        machine.steps = steps
        machine.admitted = machine.admitted or (doing in ("start", "insert") and steps[-1].error is None)
