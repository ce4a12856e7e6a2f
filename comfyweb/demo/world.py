"""Compute Engine as a model without a clock: time is told to it, and it does all that was due until then, in order.

Nothing here waits, so a simulation may run years of it in seconds. Everything random comes from one seed.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from comfyweb.demo.bodies import STOPPED_ONLY, fingerprint_of, max_run, metadata_in, scheduling_in
from comfyweb.demo.faults import OPERATION_FAULTS, Faults, canceled, not_ready
from comfyweb.demo.model import CALLER, SYSTEM, Machine, Operation, OperationError, Refusal, Status, Step, Times
from comfyweb.demo.register import Register

PROJECT = "demo-project"
MACHINE = "comfyui-gpu"
ZONES = ("us-central1-a", "us-central1-b", "us-central1-c")
TIME_LIMIT = "compute.instances.timeLimitReached"
"""What ends a run at its longest duration. The real name of this operation is not known; the others' are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Edit:
    """A change that needs a moment: what `apply` returns is the operation's error."""

    at: datetime
    operation: Operation
    apply: Callable[[], OperationError | None]


def _nothing() -> None:
    """Change nothing: the operation succeeds."""


class World:
    """One project. Call `advance` first, then look or act: everything happens at the time told last."""

    def __init__(
        self, *, now: datetime, times: Times | None = None, seed: int = 0, zones: Sequence[str] = ZONES
    ) -> None:
        self.now = now
        self.began = now
        self.times = times or Times()
        self.zones = tuple(zones)
        self.faults = Faults()
        self.machines: dict[tuple[str, str], Machine] = {}
        self.register = Register(seed)
        self.operations = self.register.operations
        self._edits: list[_Edit] = []
        self.create(self.zones[0], MACHINE)

    # -- time ------------------------------------------------------------------------------------------------------

    def advance(self, now: datetime) -> None:
        """Do all that is due until `now`, each at its own time. A clock that went backwards stands still here."""
        while (due := min(self._due(), key=lambda each: each[0], default=None)) and due[0] <= now:
            self.now = max(self.now, due[0])
            due[1]()
        self.now = max(self.now, now)
        self.faults.expire(self.now)

    def _due(self) -> Iterable[tuple[datetime, Callable[[], None]]]:
        for edit in self._edits:
            yield edit.at, lambda edit=edit: self._apply(edit)
        for machine in self.machines.values():
            if machine.steps:
                yield machine.steps[0].at, lambda machine=machine: self._step(machine)
            elif machine.status is Status.RUNNING and machine.terminates_at is not None:
                yield machine.terminates_at, lambda machine=machine: self._time_is_up(machine)

    def _apply(self, edit: _Edit) -> None:
        self._edits.remove(edit)
        edit.operation.end(edit.at, edit.apply())

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

    def _enter(self, machine: Machine, status: Status | None) -> None:
        if status is Status.PROVISIONING:
            machine.serial = ""
        elif status is Status.STAGING:
            machine.external_ip = self.register.address({each.external_ip for each in self.machines.values()})
        elif status is Status.RUNNING:
            machine.last_start = self.now
            limit = max_run(machine.scheduling)
            machine.terminates_at = self.now + limit if limit is not None else None
            machine.preempted = False
            self._boot(machine)
        elif status is Status.TERMINATED:
            if machine.status is Status.STOPPING:
                machine.last_stop = self.now
            machine.external_ip = machine.boot_id = ""
            machine.terminates_at = None
        elif status is None:
            machine.external_ip = machine.boot_id = ""
            del self.machines[machine.zone, machine.name]
        if status is not None:
            machine.status = status
            self._write(machine, f"compute: {status}")

    def _boot(self, machine: Machine) -> None:
        machine.boot_id = self.register.boot_id()
        self._write(machine, f"SeaBIOS\r\nkernel: boot id {machine.boot_id}")

    def _write(self, machine: Machine, line: str) -> None:
        machine.serial += f"{self.now:%b %d %H:%M:%S} {machine.name} {line}\r\n"

    def _time_is_up(self, machine: Machine) -> None:
        machine.terminates_at = None
        gone = machine.scheduling["instanceTerminationAction"] == "DELETE"
        self._leave(machine, self._by_itself(TIME_LIMIT, machine), gone=gone)

    # -- what callers may do ----------------------------------------------------------------------------------------

    def zone(self, name: str) -> str:
        """Find the zone of that name. Raises `Refusal`."""
        if name not in self.zones:
            raise Refusal.not_found(f"projects/{PROJECT}/zones/{name}")
        return name

    def machine(self, zone: str, name: str) -> Machine:
        """Find the machine. Raises `Refusal`."""
        try:
            return self.machines[self.zone(zone), name]
        except KeyError:
            raise Refusal.not_found(f"projects/{PROJECT}/zones/{zone}/instances/{name}") from None

    def operation(self, zone: str, name: str) -> Operation:
        """Find the operation. Raises `Refusal`."""
        found = self.operations.get(name)
        if found is None or found.zone != self.zone(zone):
            raise Refusal.not_found(f"projects/{PROJECT}/zones/{zone}/operations/{name}")
        return found

    def start(self, machine: Machine, *, user: str = CALLER) -> Operation:
        """Start it. Succeeds at once while it runs, joins a start under way, fails as not ready while it stops."""
        operation = self._open("start", machine, user)
        if machine.doing == "start":
            machine.operations.append(operation)
        elif machine.doing or machine.status not in (Status.TERMINATED, Status.RUNNING):
            self._edit(operation, lambda: not_ready(_path(machine)))
        elif machine.status is Status.RUNNING:
            self._edit(operation, _nothing)
        else:
            self._plan(machine, operation, self._start_steps(machine, operation.started_at))
        return operation

    def _start_steps(self, machine: Machine, at: datetime) -> list[Step]:
        staging = at + self.times.provisioning
        steps = [Step(at, Status.PROVISIONING)]
        if fault := self.faults.take("start", operation=True):
            error = OPERATION_FAULTS[fault.kind](machine, PROJECT, fault.zones_available)
            return [*steps, Step(staging, Status.TERMINATED, error)]
        return [*steps, Step(staging, Status.STAGING), Step(staging + self.times.staging, Status.RUNNING)]

    def stop(self, machine: Machine, *, user: str = CALLER) -> Operation:
        """Stop it, from any state. A start under way ends as canceled, another stop under way is joined."""
        operation = self._open("stop", machine, user)
        if machine.doing in ("stop", "delete"):
            machine.operations.append(operation)
        elif machine.status is Status.TERMINATED:
            self._settle(machine, canceled(user))
            self._edit(operation, _nothing)
        else:
            self._leave(machine, operation)
        return operation

    def reset(self, machine: Machine, *, user: str = CALLER) -> Operation:
        """Cut its electricity for a moment: another boot of the same run. Raises `Refusal` unless it is RUNNING."""
        if machine.status is not Status.RUNNING or machine.doing:
            raise Refusal(400, "resourceNotReady", f"The resource '{_path(machine)}' is not ready")
        operation = self._open("reset", machine, user)

        def apply() -> OperationError | None:
            if machine.status is not Status.RUNNING or machine.doing:
                return not_ready(_path(machine))
            self._boot(machine)
            return None

        return self._edit(operation, apply)

    def set_metadata(self, machine: Machine, body: Mapping[str, Any], *, user: str = CALLER) -> Operation:
        """Replace the metadata. Raises `Refusal`; the fingerprint is looked at now and when the change is made."""
        metadata, fingerprint = metadata_in(body)
        words = "Supplied fingerprint does not match current metadata fingerprint."
        if fingerprint != fingerprint_of(machine.metadata):
            raise Refusal(412, "conditionNotMet", words)

        def apply() -> OperationError | None:
            if fingerprint != fingerprint_of(machine.metadata):
                return OperationError(
                    code="CONDITION_NOT_MET", message=words, http_status=412, http_message="PRECONDITION FAILED"
                )
            machine.metadata = metadata
            return None

        return self._edit(self._open("setMetadata", machine, user), apply)

    def set_scheduling(self, machine: Machine, body: Mapping[str, Any], *, user: str = CALLER) -> Operation:
        """Replace the scheduling. Raises `Refusal`, also for what can be changed only while it is TERMINATED."""
        wanted = scheduling_in(body, has_gpu=bool(machine.accelerator))
        off = machine.status is Status.TERMINATED and not machine.doing
        for name in STOPPED_ONLY:
            if not off and wanted.get(name) != machine.scheduling.get(name):
                raise Refusal.invalid(
                    f"Scheduling field '{name}' of '{_path(machine)}' can only be changed while the instance is "
                    f"stopped (TERMINATED); it is {machine.status}."
                )

        def apply() -> OperationError | None:
            if off and (machine.doing or machine.status is not Status.TERMINATED):
                return not_ready(_path(machine))
            machine.scheduling = wanted
            return None

        return self._edit(self._open("setScheduling", machine, user), apply)

    def delete(self, machine: Machine, *, user: str = CALLER) -> Operation:
        """Delete it, switching it off first."""
        operation = self._open("delete", machine, user)
        if machine.doing == "delete":
            machine.operations.append(operation)
        else:
            self._leave(machine, operation, gone=True)
        return operation

    # -- what happens by itself, or is done to it from outside ---------------------------------------------------------

    def create(self, zone: str, name: str) -> Machine:
        """Put a machine there, TERMINATED. Raises `Refusal` when there is one."""
        if (self.zone(zone), name) in self.machines:
            raise Refusal(
                409, "alreadyExists", f"The resource 'projects/{PROJECT}/zones/{zone}/instances/{name}' exists"
            )
        machine = Machine(
            name=name,
            zone=zone,
            id=self.register.number(),
            created_at=self.now,
            internal_ip=f"10.128.0.{2 + len(self.machines)}",
            scheduling=scheduling_in({"onHostMaintenance": "TERMINATE"}, has_gpu=True),
        )
        self.machines[zone, name] = machine
        return machine

    def guest_shutdown(self, machine: Machine) -> None:
        """Switch off, as its guest asked. Nothing happens unless it is running."""
        if machine.status is Status.RUNNING and not machine.doing:
            self._leave(machine, self._by_itself("compute.instances.guestTerminate", machine))

    def preempt(self, machine: Machine) -> None:
        """Google takes the machine back. Raises `Refusal` unless it is running."""
        if machine.status is not Status.RUNNING or machine.doing:
            raise Refusal(
                409, "resourceNotReady", f"{machine.name} is {machine.status}: only a running machine is preempted"
            )
        machine.preempted = True
        self._leave(machine, self._by_itself("compute.instances.preempted", machine))

    def put_in(self, machine: Machine, status: Status) -> None:
        """Put it in a state that it doesn't reach by itself, and leave it there."""
        self._settle(machine, canceled(SYSTEM))
        self._enter(machine, status)

    # -- the machinery -----------------------------------------------------------------------------------------------

    def _leave(self, machine: Machine, operation: Operation, *, gone: bool = False) -> None:
        """Switch off, or off and away. What was under way ends as canceled."""
        self._settle(machine, canceled(operation.user))
        off = operation.started_at + self.times.stopping
        steps = [] if machine.status is Status.TERMINATED else [Step(operation.started_at, Status.STOPPING)]
        self._plan(machine, operation, [*steps, Step(off, None if gone else Status.TERMINATED)])

    def _plan(self, machine: Machine, operation: Operation, steps: list[Step]) -> None:
        machine.doing = "delete" if steps[-1].status is None else "start" if operation.kind == "start" else "stop"
        machine.operations = [operation]
        machine.steps = steps

    def _by_itself(self, kind: str, machine: Machine) -> Operation:
        return self.register.open(kind, machine, SYSTEM, now=self.now, started_at=self.now)

    def _open(self, kind: str, machine: Machine, user: str) -> Operation:
        return self.register.open(kind, machine, user, now=self.now, started_at=self.now + self.times.pending)

    def _edit(self, operation: Operation, apply: Callable[[], OperationError | None]) -> Operation:
        self._edits.append(_Edit(at=operation.inserted_at + self.times.edit, operation=operation, apply=apply))
        return operation


def _path(machine: Machine) -> str:
    return f"projects/{PROJECT}/zones/{machine.zone}/instances/{machine.name}"
