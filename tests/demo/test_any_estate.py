"""Any calls about machines, disks, snapshots and addresses, at any time: what holds all the while."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from comfyweb.demo import render, render_catalog, render_resources
from comfyweb.demo.bodies import fingerprint_of
from comfyweb.demo.faults import Fault
from comfyweb.demo.model import AccessConfig, Machine, Operation, Refusal, Status
from comfyweb.demo.register import AddressPool
from comfyweb.demo.world import World
from tests.demo.discovery import violations

STARTED = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
REGION = "us-central1"
ZONES = ("us-central1-a", "us-central1-b")
NAMES = ("one", "two", "three")
LIMITS = {"CPUS": 12, "NVIDIA_T4_GPUS": 2, "IN_USE_ADDRESSES": 2, "INSTANCES": 5, "STATIC_ADDRESSES": 2}

zones = st.sampled_from([*[ZONES[0]] * 3, ZONES[1]])
names = st.sampled_from(NAMES)
which = st.integers(0, 5)
"""Which of those that there are."""

T = TypeVar("T")


def pick(number: int, things: Iterable[T]) -> T | None:
    """Choose one of the things, unless there is none."""
    found = list(things)
    return found[number % len(found)] if found else None


modes = st.sampled_from(["READ_WRITE", "READ_ONLY"])


class AnyEstate(RuleBasedStateMachine):
    """Whatever is refused changes nothing; whatever is accepted ends."""

    def __init__(self) -> None:
        super().__init__()
        few = AddressPool(0, [f"192.0.2.{number}" for number in range(1, 5)])
        self.world = World(now=STARTED, zones=ZONES, pool=few)
        self.world.quotas.limits[REGION].update(LIMITS, SSD_TOTAL_GB=600, DISKS_TOTAL_GB=100)
        self.world.quotas.limits[""].update(GPUS_ALL_REGIONS=3, SNAPSHOTS=2)
        self.accepted: list[Operation] = []
        self.known: dict[int, tuple[dict[str, str], str]] = {}
        one = self.world.create(ZONES[0], "one")
        self.world.insert_disk(ZONES[0], {"name": "two"})
        self.world.insert_address(REGION, {"name": "one"})
        one.access = AccessConfig(reserved=self.world.address(REGION, "one").address)
        self.world.advance(STARTED + timedelta(minutes=1))

    def _try(self, act: Callable[[], Operation]) -> None:
        before = len(self.world.operations)
        with contextlib.suppress(Refusal):
            self.accepted.append(act())
            return
        assert len(self.world.operations) == before, "what is refused opens no operation"

    def _machine(self, number: int) -> Machine | None:
        return pick(number, self.world.machines.values())

    # -- machines ------------------------------------------------------------------------------------------------------

    @rule(zone=zones, name=names, disk=st.none() | which, mode=modes, gpus=st.integers(0, 2), held=st.none() | which)
    def insert(self, zone: str, name: str, disk: int | None, mode: str, gpus: int, held: int | None) -> None:
        address = None if held is None else pick(held, self.world.addresses.values())
        gpu = {"acceleratorType": f"zones/{zone}/acceleratorTypes/nvidia-tesla-t4", "acceleratorCount": gpus}
        disks: list[dict[str, Any]] = [
            {"boot": True, "autoDelete": True, "initializeParams": {"diskName": f"{name}-boot"}}
        ]
        other = None if disk is None else pick(disk, (each for each in self.world.disks.values() if each.zone == zone))
        if other:
            disks.append({"source": other.path, "mode": mode})
        body = {
            "name": name,
            "machineType": f"zones/{zone}/machineTypes/n1-standard-4",
            "disks": disks,
            "networkInterfaces": [{"accessConfigs": [{"natIP": address.address} if address else {}]}],
            "scheduling": {"onHostMaintenance": "TERMINATE"},
            "guestAccelerators": [gpu] if gpus else [],
        }
        self._try(lambda: self.world.insert(zone, body))

    @rule(number=which)
    def restart(self, number: int) -> None:
        if machine := self._machine(number):
            self._try(lambda: self.world.stop(machine))
            self.world.advance(self.world.now + timedelta(seconds=10))
            if machine in self.world.machines.values():  # It may have been on its way out.
                self._try(lambda: self.world.start(machine))
            self.world.advance(self.world.now + timedelta(seconds=10))

    @rule(number=which, verb=st.sampled_from(["start", "start", "start", "stop", "delete"]))
    def power(self, number: int, verb: str) -> None:
        if machine := self._machine(number):
            self._try(lambda: getattr(self.world, verb)(machine))

    @rule(number=which)
    def preempt(self, number: int) -> None:
        if machine := self._machine(number):
            with contextlib.suppress(Refusal):
                self.world.preempt(machine)

    @rule(number=which, value=st.sampled_from(["a", "b"]))
    def label(self, number: int, value: str) -> None:
        if machine := self._machine(number):
            body = {"labels": {"k": value}, "labelFingerprint": fingerprint_of(machine.labels)}
            self._try(lambda: self.world.set_labels(machine, body))

    @rule(number=which, size=st.sampled_from(["n1-standard-1", "n1-standard-8", "g2-standard-4"]))
    def resize_machine(self, number: int, size: str) -> None:
        if machine := self._machine(number):
            body = {"machineType": f"zones/{machine.zone}/machineTypes/{size}"}
            self._try(lambda: self.world.set_machine_type(machine, body))

    @rule(kind=st.sampled_from(["stockout", "quota"]))
    def break_next_start(self, kind: str) -> None:
        self.world.faults.add(Fault(kind=kind))

    # -- disks ---------------------------------------------------------------------------------------------------------

    @rule(zone=zones, name=names, size=st.integers(10, 200), kind=st.sampled_from(["ssd", "standard"]), copy=which)
    def insert_disk(self, zone: str, name: str, size: int, kind: str, copy: int) -> None:
        body: dict[str, Any] = {"name": name, "sizeGb": str(size), "type": f"zones/{zone}/diskTypes/pd-{kind}"}
        if snapshot := pick(copy, self.world.snapshots.values()):
            body["sourceSnapshot"] = snapshot.path
        self._try(lambda: self.world.insert_disk(zone, body))

    @rule(number=which, size=st.integers(10, 300))
    def grow_disk(self, number: int, size: int) -> None:
        if disk := pick(number, self.world.disks.values()):
            self._try(lambda: self.world.resize_disk(disk, {"sizeGb": str(size)}))

    @rule(number=which)
    def delete_disk(self, number: int) -> None:
        if disk := pick(number, self.world.disks.values()):
            self._try(lambda: self.world.delete_disk(disk))

    @rule(number=which, disk=which, mode=modes)
    def attach(self, number: int, disk: int, mode: str) -> None:
        machine = self._machine(number)
        if machine and (found := pick(disk, (each for each in self.world.disks.values() if each.zone == machine.zone))):
            body = {"source": found.path, "mode": mode, "deviceName": found.name}
            self._try(lambda: self.world.attach_disk(machine, body))

    @rule(number=which, disk=which)
    def detach(self, number: int, disk: int) -> None:
        machine = self._machine(number)
        if machine and (attachment := pick(disk, machine.disks)):
            self._try(lambda: self.world.detach_disk(machine, attachment.device))

    @rule(number=which, name=names)
    def take_snapshot(self, number: int, name: str) -> None:
        if disk := pick(number, self.world.disks.values()):
            self._try(lambda: self.world.create_snapshot(disk, {"name": name}))

    @rule(number=which)
    def delete_snapshot(self, number: int) -> None:
        if snapshot := pick(number, self.world.snapshots.values()):
            self._try(lambda: self.world.delete_snapshot(snapshot))

    # -- addresses -----------------------------------------------------------------------------------------------------

    @rule(name=names, of=st.none() | which)
    def insert_address(self, name: str, of: int | None) -> None:
        machine = None if of is None else self._machine(of)
        body = {"name": name, **({"address": machine.external_ip} if machine else {})}
        self._try(lambda: self.world.insert_address(REGION, body))

    @rule(number=which)
    def delete_address(self, number: int) -> None:
        if address := pick(number, self.world.addresses.values()):
            self._try(lambda: self.world.delete_address(address))

    @rule(number=which, held=st.none() | which)
    def change_access(self, number: int, held: int | None) -> None:
        """Take a machine's access config away or, where there is none, add one."""
        machine = self._machine(number)
        if machine and machine.access:
            self._try(lambda: self.world.delete_access_config(machine, "nic0", "External NAT"))
        elif machine:
            address = None if held is None else pick(held, self.world.addresses.values())
            body = {"natIP": address.address} if address else {}
            self._try(lambda: self.world.add_access_config(machine, "nic0", body))

    # -- time ----------------------------------------------------------------------------------------------------------

    @rule(milliseconds=st.integers(0, 6000))
    def wait(self, milliseconds: int) -> None:
        self.world.advance(self.world.now + timedelta(milliseconds=milliseconds))

    @rule()
    def a_long_time(self) -> None:
        self.world.advance(self.world.now + timedelta(seconds=30))
        assert all(each.ended_at for each in self.accepted), "every operation ends"
        assert {disk.state for disk in self.world.disks.values()} <= {"READY"}
        assert {snapshot.state for snapshot in self.world.snapshots.values()} <= {"READY"}
        assert {address.state for address in self.world.addresses.values()} <= {"RESERVED"}
        assert {machine.status for machine in self.world.machines.values()} <= {Status.RUNNING, Status.TERMINATED}

    # -- what holds ----------------------------------------------------------------------------------------------------

    @invariant()
    def a_disk_has_one_writer_or_only_readers(self) -> None:
        for disk in self.world.disks.values():
            users = self.world.users_of(disk)
            found = [attachment.mode for each in users if (attachment := each.attachment(disk))]
            assert len(found) <= 1 or "READ_WRITE" not in found

    @invariant()
    def whatever_is_attached_is_there_and_in_the_same_zone(self) -> None:
        for machine in self.world.machines.values():
            for attachment in machine.disks:
                assert self.world.disks.get((machine.zone, attachment.disk.name)) is attachment.disk
            devices = [attachment.device for attachment in machine.disks]
            assert len(set(devices)) == len(devices)

    @invariant()
    def an_address_has_one_owner(self) -> None:
        machines = self.world.machines.values()
        external = [machine.external_ip for machine in machines if machine.external_ip]
        internal = [machine.internal_ip for machine in machines]
        reserved = [address.address for address in self.world.addresses.values()]
        held = [machine.access.reserved for machine in machines if machine.access and machine.access.reserved]
        for each in (external, internal, reserved, held):
            assert len(set(each)) == len(each)
        assert set(held) <= set(reserved), "nobody holds what is not reserved"
        for machine in machines:
            if machine.external_ip in reserved:
                assert machine.access
                assert machine.access.reserved == machine.external_ip, "nobody uses what somebody else reserved"

    @invariant()
    def nothing_exceeds_its_quota(self) -> None:
        for region, limits in self.world.quotas.limits.items():
            used = self.world.quotas.usage(region)
            assert all(used[metric] <= limit for metric, limit in limits.items()), (region, used)
        for machine in self.world.machines.values():
            if machine.status in (Status.STAGING, Status.RUNNING):
                assert machine.admitted
            if machine.status is Status.TERMINATED and not machine.doing:
                assert not machine.admitted

    @invariant()
    def a_fingerprint_changes_with_its_content_and_only_then(self) -> None:
        for machine in self.world.machines.values():
            now = (dict(machine.labels), fingerprint_of(machine.labels))
            before = self.known.get(machine.id, now)
            assert (before[0] == now[0]) == (before[1] == now[1])
            self.known[machine.id] = now

    def _written(self) -> Iterator[tuple[str, dict[str, Any]]]:
        world = self.world
        yield from (("Instance", render_resources.instance(each)) for each in world.machines.values())
        yield from (("Disk", render_resources.disk(each, world)) for each in world.disks.values())
        yield from (("Snapshot", render_resources.snapshot(each)) for each in world.snapshots.values())
        yield from (("Address", render_resources.address(each, world)) for each in world.addresses.values())
        yield from (("Operation", render.operation(each, world.now)) for each in list(world.operations.values())[-3:])
        yield "Region", render_catalog.region(REGION, world)
        yield "Project", render_catalog.project(world)

    @rule()
    def all_of_it_is_what_google_describes(self) -> None:
        for schema, body in self._written():
            assert list(violations(body, {"$ref": schema})) == []


AnyEstate.TestCase.settings = settings(max_examples=40, stateful_step_count=50, deadline=None)
TestAnyEstate = AnyEstate.TestCase
