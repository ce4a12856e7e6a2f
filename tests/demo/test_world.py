"""The model of Compute Engine: told the time, it does what was due, in order, and never anything impossible."""

import base64
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from comfyweb.demo.bodies import fingerprint_of
from comfyweb.demo.faults import OPERATION_FAULTS, Fault
from comfyweb.demo.model import SYSTEM, Machine, Operation, Refusal, Status
from comfyweb.demo.world import World

STARTED = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
LIMIT = {"maxRunDuration": {"seconds": "3600"}, "instanceTerminationAction": "STOP", "onHostMaintenance": "TERMINATE"}


@pytest.fixture
def world() -> World:
    return World(now=STARTED)


def machine_of(world: World) -> Machine:
    return next(iter(world.machines.values()))


def after(world: World, seconds: float) -> Status:
    world.advance(world.now + timedelta(seconds=seconds))
    return machine_of(world).status


def running(world: World) -> Machine:
    world.start(machine_of(world))
    assert after(world, 60) is Status.RUNNING
    return machine_of(world)


def code_of(operation: Operation) -> str:
    assert operation.ended_at is not None
    return operation.error.code if operation.error else ""


def test_a_start_goes_through_all_states_and_ends_with_an_address(world: World) -> None:
    operation = world.start(machine_of(world))
    assert (operation.status(world.now), machine_of(world).status) == ("PENDING", Status.TERMINATED)
    assert [after(world, 1), after(world, 4), after(world, 4)] == [Status.PROVISIONING, Status.STAGING, Status.RUNNING]
    assert code_of(operation) == ""
    assert machine_of(world).external_ip
    assert machine_of(world).last_start == operation.ended_at


def test_a_stop_takes_the_address_away(world: World) -> None:
    machine = running(world)
    operation = world.stop(machine)
    assert after(world, 1) is Status.STOPPING
    assert operation.status(world.now) == "RUNNING"
    assert machine.boot_id, "the guest has electricity while it shuts down"
    assert after(world, 5) is Status.TERMINATED
    assert (machine.external_ip, machine.boot_id, machine.last_stop) == ("", "", operation.ended_at)


def test_every_start_brings_a_new_address_and_a_new_boot(world: World) -> None:
    first = running(world)
    address, boot = first.external_ip, first.boot_id
    world.stop(first)
    after(world, 10)
    second = running(world)
    assert second.external_ip != address
    assert second.boot_id != boot


@pytest.mark.parametrize("seconds", [0, 1, 5])
def test_a_stop_ends_a_start_that_is_under_way(world: World, seconds: float) -> None:
    start = world.start(machine_of(world))
    after(world, seconds)
    stop = world.stop(machine_of(world))
    assert after(world, 6) is Status.TERMINATED
    assert code_of(start) == "OPERATION_CANCELED_BY_USER"
    assert code_of(stop) == ""
    assert after(world, 60) is Status.TERMINATED


def test_a_start_while_it_stops_fails_as_not_ready(world: World) -> None:
    machine = running(world)
    world.stop(machine)
    after(world, 1)
    start = world.start(machine)
    assert after(world, 60) is Status.TERMINATED
    assert start.error
    assert (start.error.code, start.error.http_status) == ("RESOURCE_NOT_READY", 400)


def test_starting_what_runs_and_stopping_what_is_off_succeed(world: World) -> None:
    off = world.stop(machine_of(world))
    after(world, 1)
    on = world.start(running(world))
    after(world, 1)
    assert (code_of(off), code_of(on)) == ("", "")


def test_a_second_start_or_stop_joins_the_first(world: World) -> None:
    starts = [world.start(machine_of(world)), world.start(machine_of(world))]
    after(world, 60)
    stops = [world.stop(machine_of(world)), world.stop(machine_of(world))]
    after(world, 60)
    assert starts[0].ended_at == starts[1].ended_at
    assert stops[0].ended_at == stops[1].ended_at


@pytest.mark.parametrize("kind", OPERATION_FAULTS)
def test_a_start_that_fails_is_accepted_visits_provisioning_and_ends_off(world: World, kind: str) -> None:
    world.faults.add(Fault(kind=kind))
    operation = world.start(machine_of(world))
    assert after(world, 1) is Status.PROVISIONING
    assert operation.status(world.now) == "RUNNING"
    assert after(world, 4) is Status.TERMINATED
    assert operation.error
    assert operation.error.http_status in (400, 403, 503)
    assert machine_of(world).last_start is None
    running(world)


def test_a_scheduling_that_a_start_overtakes_fails_as_not_ready(world: World) -> None:
    operation = world.set_scheduling(machine_of(world), LIMIT)
    machine = running(world)
    assert code_of(operation) == "RESOURCE_NOT_READY"
    assert machine.terminates_at is None


def test_a_run_ends_at_its_longest_duration(world: World) -> None:
    world.set_scheduling(machine_of(world), LIMIT)
    after(world, 1)
    machine = running(world)
    assert machine.last_start
    assert machine.terminates_at == machine.last_start + timedelta(hours=1)
    world.advance(machine.last_start + timedelta(minutes=59))
    assert machine.status is Status.RUNNING
    assert after(world, 61) is Status.STOPPING
    assert after(world, 10) is Status.TERMINATED
    assert machine.terminates_at is None


def test_a_run_that_ends_early_leaves_no_limit_behind_for_the_next(world: World) -> None:
    world.set_scheduling(machine_of(world), LIMIT)
    after(world, 1)
    world.stop(running(world))
    after(world, 60)
    after(world, 3500)
    running(world)
    assert after(world, 3000) is Status.RUNNING


def test_a_run_may_end_in_deletion(world: World) -> None:
    world.set_scheduling(machine_of(world), {**LIMIT, "instanceTerminationAction": "DELETE"})
    after(world, 1)
    running(world)
    world.advance(world.now + timedelta(hours=2))
    assert not world.machines


def test_years_pass_in_one_step_with_every_event_at_its_own_time(world: World) -> None:
    world.set_scheduling(machine_of(world), LIMIT)
    after(world, 1)
    world.start(machine_of(world))
    world.advance(STARTED + timedelta(days=3650))
    machine = machine_of(world)
    assert machine.last_start
    assert machine.last_stop
    assert machine.last_stop - machine.last_start == timedelta(hours=1) + world.times.stopping


@pytest.mark.parametrize(
    "body",
    [
        {},
        {**LIMIT, "onHostMaintenance": "MIGRATE"},
        {**LIMIT, "maxRunDuration": {"seconds": "29"}},
        {**LIMIT, "maxRunDuration": {"seconds": str(120 * 24 * 3600 + 1)}},
        {**LIMIT, "maxRunDuration": {"seconds": "soon"}},
        {**LIMIT, "maxRunDuration": {"seconds": True}},
        {**LIMIT, "maxRunDuration": "3600s"},
        {**LIMIT, "maxRunDuration": {"hours": 1}},
        {**LIMIT, "instanceTerminationAction": "EXPLODE"},
        {**LIMIT, "instanceTerminationAction": ["STOP"]},
        {**LIMIT, "automaticRestart": "no"},
        {**LIMIT, "max_run_duration": {"seconds": "60"}},
        {"maxRunDuration": {"seconds": "60"}, "onHostMaintenance": "TERMINATE"},
    ],
)
def test_a_scheduling_that_cannot_be_is_refused(world: World, body: dict[str, object]) -> None:
    before = dict(machine_of(world).scheduling)
    with pytest.raises(Refusal) as refused:
        world.set_scheduling(machine_of(world), body)
    after(world, 1)
    assert refused.value.status == 400
    assert machine_of(world).scheduling == before


def test_the_longest_duration_changes_only_while_it_is_off(world: World) -> None:
    machine = running(world)
    with pytest.raises(Refusal, match=r"stopped \(TERMINATED\); it is RUNNING"):
        world.set_scheduling(machine, LIMIT)
    world.set_scheduling(machine, {"onHostMaintenance": "TERMINATE", "automaticRestart": False})
    after(world, 1)
    assert machine.scheduling["automaticRestart"] is False


def test_metadata_shows_once_the_operation_is_done(world: World) -> None:
    machine = machine_of(world)
    operation = world.set_metadata(machine, {"fingerprint": fingerprint_of({}), "items": [{"key": "a", "value": "b"}]})
    assert machine.metadata == {}
    after(world, 1)
    assert machine.metadata == {"a": "b"}
    assert code_of(operation) == ""


def test_of_two_changes_with_the_same_fingerprint_the_second_fails(world: World) -> None:
    machine = machine_of(world)
    first, second = (
        world.set_metadata(machine, {"fingerprint": fingerprint_of({}), "items": [{"key": key, "value": "x"}]})
        for key in "ab"
    )
    after(world, 1)
    assert (code_of(first), code_of(second)) == ("", "CONDITION_NOT_MET")
    assert machine.metadata == {"a": "x"}


@pytest.mark.parametrize(
    ("fingerprint", "words"),
    [
        ("AAAAAAAAAAA=", "Supplied fingerprint does not match current metadata fingerprint."),
        ("", "Supplied fingerprint does not match current metadata fingerprint."),
        ("no base64", "Invalid fingerprint."),
        (7, "Invalid fingerprint."),
    ],
)
def test_a_wrong_fingerprint_is_refused_in_the_words_that_clients_look_for(
    world: World, fingerprint: object, words: str
) -> None:
    with pytest.raises(Refusal) as refused:
        world.set_metadata(machine_of(world), {"fingerprint": fingerprint})
    assert (refused.value.status, refused.value.reason, refused.value.message) == (412, "conditionNotMet", words)


@pytest.mark.parametrize(
    "items",
    [
        "a=b",
        ["a"],
        [{"key": "a b", "value": ""}],
        [{"key": "", "value": ""}],
        [{"value": "b"}],
        [{"key": "a", "value": 1}],
        [{"key": "a", "value": "1"}, {"key": "a", "value": "2"}],
        [{"key": "a", "value": "1", "more": "2"}],
        [{"key": "a", "value": "x" * (256 * 1024 + 1)}],
        [{"key": key, "value": "x" * 200_000} for key in "abc"],
    ],
)
def test_metadata_that_cannot_be_is_refused(world: World, items: object) -> None:
    with pytest.raises(Refusal) as refused:
        world.set_metadata(machine_of(world), {"fingerprint": fingerprint_of({}), "items": items})
    assert refused.value.status == 400


@pytest.mark.parametrize("request_id", ["00000000-0000-0000-0000-000000000000", "once", "1234", "{" + "0" * 36])
def test_a_request_id_that_is_no_uuid_or_zero_is_refused(world: World, request_id: str) -> None:
    with pytest.raises(Refusal) as refused:
        world.register.once(request_id, lambda: world.start(machine_of(world)))
    assert refused.value.status == 400
    assert not world.operations


def test_a_refused_call_uses_no_request_id_up(world: World) -> None:
    request_id = str(uuid.uuid4())
    with pytest.raises(Refusal):
        world.register.once(request_id, lambda: world.reset(machine_of(world)))
    running(world)
    assert world.register.once(request_id, lambda: world.reset(machine_of(world))).kind == "reset"


def test_a_reset_is_another_boot_of_the_same_run(world: World) -> None:
    machine = running(world)
    before = machine.boot_id, machine.external_ip, machine.last_start
    world.reset(machine)
    after(world, 1)
    assert machine.boot_id != before[0]
    assert (machine.external_ip, machine.last_start) == before[1:]


def test_a_reset_that_meets_a_stop_fails(world: World) -> None:
    machine = running(world)
    reset = world.reset(machine)
    world.stop(machine)
    after(world, 60)
    assert code_of(reset) == "RESOURCE_NOT_READY"


def test_a_guest_that_switches_itself_off_leaves_an_operation_of_the_system(world: World) -> None:
    machine = running(world)
    world.guest_shutdown(machine)
    world.guest_shutdown(machine)
    assert after(world, 10) is Status.TERMINATED
    assert [(each.kind, each.user) for each in world.operations.values()][1:] == [
        ("compute.instances.guestTerminate", "system")
    ]


def test_google_takes_back_only_what_runs(world: World) -> None:
    with pytest.raises(Refusal):
        world.preempt(machine_of(world))
    machine = running(world)
    world.preempt(machine)
    assert machine.preempted
    assert after(world, 10) is Status.TERMINATED
    running(world)
    assert not machine.preempted


def test_a_machine_can_be_deleted_and_made_anew(world: World) -> None:
    machine = running(world)
    operation = world.delete(machine)
    world.advance(world.now + timedelta(seconds=60))
    assert not world.machines
    assert code_of(operation) == ""
    with pytest.raises(Refusal):
        world.machine(machine.zone, machine.name)
    assert world.create(machine.zone, machine.name).id != machine.id
    with pytest.raises(Refusal):
        world.create(machine.zone, machine.name)


@pytest.mark.parametrize("status", [Status.SUSPENDED, Status.REPAIRING])
def test_a_machine_put_in_a_strange_state_stays_there_until_it_is_stopped(world: World, status: Status) -> None:
    machine = machine_of(world)
    world.put_in(machine, status)
    start = world.start(machine)
    assert after(world, 60) is status
    assert code_of(start) == "RESOURCE_NOT_READY"
    world.stop(machine)
    assert after(world, 60) is Status.TERMINATED


def test_a_clock_that_goes_backwards_undoes_nothing(world: World) -> None:
    running(world)
    now = world.now
    world.advance(STARTED)
    assert (world.now, machine_of(world).status) == (now, Status.RUNNING)


def test_the_same_seed_makes_the_same_world() -> None:
    names = [
        [World(now=STARTED, seed=seed).start(machine_of(World(now=STARTED, seed=seed))).name] for seed in (1, 1, 2)
    ]
    assert names[0] == names[1] != names[2]


def test_only_the_newest_operations_are_kept(world: World) -> None:
    for _ in range(1100):
        world.stop(machine_of(world))
        after(world, 1)
    assert len(world.operations) == 1000


LEGAL = {
    Status.TERMINATED: {Status.PROVISIONING},
    Status.PROVISIONING: {Status.STAGING, Status.STOPPING, Status.TERMINATED},
    Status.STAGING: {Status.RUNNING, Status.STOPPING},
    Status.RUNNING: {Status.STOPPING},
    Status.STOPPING: {Status.TERMINATED},
}
SOON = timedelta(seconds=20)


class AnySequence(RuleBasedStateMachine):
    """Any calls, at any time, with any faults: what holds all the while."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(now=STARTED)
        self.machine = machine_of(self.world)
        self.accepted: list[Operation] = []
        self.request_ids: dict[str, Operation] = {}
        self.addresses: list[str] = []
        self.known = (self.machine.metadata, fingerprint_of(self.machine.metadata))

    def _call(self, verb: str, request_id: uuid.UUID | None = None) -> None:
        act = getattr(self.world, verb)
        operation = self.world.register.once(str(request_id or ""), lambda: act(self.machine))
        before = self.request_ids.setdefault(str(request_id), operation) if request_id else operation
        assert operation is before, "a replay is the same operation"
        self.accepted.append(operation)

    @rule(verb=st.sampled_from(["start", "stop"]), request_id=st.none() | st.uuids(version=4))
    def start_or_stop(self, verb: str, request_id: uuid.UUID | None) -> None:
        self._call(verb, request_id)

    @precondition(lambda self: self.request_ids)
    @rule(data=st.data(), verb=st.sampled_from(["start", "stop"]))
    def replay(self, data: st.DataObject, verb: str) -> None:
        self._call(verb, uuid.UUID(data.draw(st.sampled_from(sorted(self.request_ids)))))

    @precondition(lambda self: self.machine.status is Status.RUNNING and not self.machine.doing)
    @rule(verb=st.sampled_from(["reset", "preempt", "guest_shutdown"]))
    def disturb(self, verb: str) -> None:
        getattr(self.world, verb)(self.machine)

    @rule(value=st.sampled_from("abc"))
    def write(self, value: str) -> None:
        body = {"fingerprint": fingerprint_of(self.machine.metadata), "items": [{"key": "k", "value": value}]}
        self.accepted.append(self.world.set_metadata(self.machine, body))

    @precondition(lambda self: self.machine.status is Status.TERMINATED and not self.machine.doing)
    @rule(seconds=st.integers(30, 120))
    def limit(self, seconds: int) -> None:
        self.accepted.append(
            self.world.set_scheduling(self.machine, {**LIMIT, "maxRunDuration": {"seconds": str(seconds)}})
        )

    @rule(kind=st.sampled_from(sorted(OPERATION_FAULTS)))
    def break_next_start(self, kind: str) -> None:
        self.world.faults.add(Fault(kind=kind))

    @rule(milliseconds=st.integers(0, 6000))
    def wait(self, milliseconds: int) -> None:
        """Go from event to event, so that each transition is seen."""
        end = self.world.now + timedelta(milliseconds=milliseconds)
        while self.world.now < end:
            before, address, operation_count = (
                self.machine.status,
                self.machine.external_ip,
                len(self.world.operations),
            )
            self.world.advance(min(end, self.world.now + timedelta(milliseconds=10)))
            if self.machine.status is not before:
                assert self.machine.status in LEGAL[before]
            if self.machine.external_ip not in ("", address):
                self.addresses.append(self.machine.external_ip)
                assert address == "", "no address changes while there is one"
            assert len(self.world.operations) >= operation_count

    @rule()
    def a_long_time(self) -> None:
        self.world.advance(self.world.now + SOON)
        assert all(each.ended_at for each in self.accepted), "every operation ends"
        # What still goes on nobody asked for: the limit of a run can be reached at any moment.
        assert all(operation.user == SYSTEM for operation in self.machine.operations)

    @invariant()
    def an_address_exactly_while_it_is_up(self) -> None:
        if self.machine.status in (Status.STAGING, Status.RUNNING):
            assert self.machine.external_ip
        if self.machine.status in (Status.TERMINATED, Status.PROVISIONING):
            assert not self.machine.external_ip
        assert len(set(self.addresses)) == len(self.addresses), "each start has its own"

    @invariant()
    def electricity_only_while_running_or_stopping(self) -> None:
        if self.machine.boot_id:
            assert self.machine.status in (Status.RUNNING, Status.STOPPING)
        assert self.machine.status is not Status.RUNNING or self.machine.boot_id

    @invariant()
    def the_fingerprint_changes_with_the_metadata_and_only_then(self) -> None:
        metadata, fingerprint = self.known
        base64.b64decode(fingerprint, validate=True)
        assert (metadata == self.machine.metadata) == (fingerprint == fingerprint_of(self.machine.metadata))
        self.known = (dict(self.machine.metadata), fingerprint_of(self.machine.metadata))


AnySequence.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestAnySequence = AnySequence.TestCase
