"""What a project has, and what can be done to it: disks, snapshots, addresses, quotas, machines made and changed."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from comfyweb.demo.bodies import fingerprint_of
from comfyweb.demo.cloud import Cloud
from comfyweb.demo.faults import Fault
from comfyweb.demo.model import Machine, Operation, Refusal, Status
from comfyweb.demo.world import World

STARTED = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
A, B = "us-central1-a", "us-central1-b"
REGION = "us-central1"
NODE: dict[str, Any] = {
    "name": "second",
    "machineType": f"zones/{A}/machineTypes/n1-standard-4",
    "disks": [{"boot": True, "autoDelete": True, "initializeParams": {"diskSizeGb": "50"}}],
    "networkInterfaces": [{"accessConfigs": [{"type": "ONE_TO_ONE_NAT"}]}],
    "scheduling": {"onHostMaintenance": "TERMINATE"},
}
T4 = {"guestAccelerators": [{"acceleratorType": f"zones/{A}/acceleratorTypes/nvidia-tesla-t4", "acceleratorCount": 2}]}


@pytest.fixture
def world() -> World:
    return World(now=STARTED)


@pytest.fixture
def first(world: World) -> Machine:
    return world.machine(A, "comfyui-gpu")


def end(world: World, operation: Operation, seconds: float = 60) -> str:
    """Let it end; return the code of its error."""
    world.advance(world.now + timedelta(seconds=seconds))
    assert operation.ended_at is not None
    return operation.error.code if operation.error else ""


def refused(act: Callable[[], object]) -> tuple[int, str]:
    with pytest.raises(Refusal) as caught:
        act()
    return caught.value.status, caught.value.reason


def made(world: World, **changes: Any) -> Machine:
    assert end(world, world.insert(A, {**NODE, **changes})) == ""
    return world.machine(A, changes.get("name", "second"))


def disk(world: World, name: str, zone: str = A, **more: Any) -> None:
    assert end(world, world.insert_disk(zone, {"name": name, **more})) == ""


# -- disks and snapshots -----------------------------------------------------------------------------------------------


def test_a_disk_is_made_grows_and_goes(world: World) -> None:
    operation = world.insert_disk(A, {"name": "models", "sizeGb": "20", "type": f"zones/{A}/diskTypes/pd-ssd"})
    found = world.disk(A, "models")
    assert (found.state, found.size_gb, found.kind) == ("CREATING", 20, "pd-ssd")
    assert end(world, operation) == ""
    assert found.state == "READY"
    assert end(world, world.resize_disk(found, {"sizeGb": 30})) == ""
    assert found.size_gb == 30
    assert end(world, world.delete_disk(found)) == ""
    assert refused(lambda: world.disk(A, "models")) == (404, "notFound")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": "Models"},
        {"name": "comfyui-"},
        {"name": "x", "sizeGb": "9"},
        {"name": "x", "sizeGb": "1e3"},
        {"name": "x", "type": f"zones/{B}/diskTypes/pd-ssd"},
        {"name": "x", "type": "pd-ssd"},
        {"name": "x", "sourceImage": "debian-12"},
        {"name": "x", "labels": {"Of": "me"}},
        {"name": "x", "labels": {"of": "Me"}},
        {"name": "x", "labels": {f"of-{number}": "" for number in range(65)}},
    ],
)
def test_a_disk_that_cannot_be_is_refused(world: World, body: dict[str, Any]) -> None:
    before = dict(world.disks)
    assert refused(lambda: world.insert_disk(A, body)) == (400, "invalid")
    assert world.disks == before


def test_a_disk_does_not_shrink_and_no_name_is_given_twice(world: World) -> None:
    found = world.disk(A, "comfyui")
    assert refused(lambda: world.resize_disk(found, {"sizeGb": "200"})) == (400, "invalid")
    assert refused(lambda: world.insert_disk(A, {"name": "comfyui"})) == (409, "alreadyExists")
    disk(world, "comfyui", B)


def test_of_two_that_grow_it_the_larger_wins_in_any_order(world: World) -> None:
    found = world.disk(A, "comfyui")
    world.resize_disk(found, {"sizeGb": "400"})
    assert end(world, world.resize_disk(found, {"sizeGb": "300"})) == ""
    assert found.size_gb == 400


def test_a_snapshot_moves_a_disk_to_another_zone(world: World) -> None:
    source = world.disk(A, "comfyui")
    operation = world.create_snapshot(source, {"name": "copy"})
    snapshot = world.snapshot("copy")
    insert = {"name": "comfyui", "sourceSnapshot": "global/snapshots/copy"}
    assert refused(lambda: world.insert_disk(B, insert)) == (400, "resourceNotReady")
    assert end(world, operation) == ""
    assert (snapshot.state, snapshot.size_gb, snapshot.source) == ("READY", 200, source.path)
    assert refused(lambda: world.insert_disk(B, {**insert, "sizeGb": "199"})) == (400, "invalid")
    disk(world, "comfyui", B, sourceSnapshot="global/snapshots/copy")
    assert world.disk(B, "comfyui").size_gb == 200
    assert refused(lambda: world.create_snapshot(source, {"name": "copy"})) == (409, "alreadyExists")
    assert end(world, world.delete_snapshot(snapshot)) == ""
    assert refused(lambda: world.snapshot("copy")) == (404, "notFound")
    assert world.disk(B, "comfyui").source == snapshot.path


def test_a_disk_in_use_is_neither_deleted_nor_attached_elsewhere(world: World, first: Machine) -> None:
    other = world.create(A, "other")
    found = world.disk(A, "comfyui")
    assert refused(lambda: world.delete_disk(found)) == (400, "resourceInUseByAnotherResource")
    attach = world.attach_disk(other, {"source": f"zones/{A}/disks/comfyui"})
    assert end(world, attach) == "RESOURCE_IN_USE_BY_ANOTHER_RESOURCE"
    assert attach.error
    assert attach.error.message == f"The disk resource '{found.path}' is already being used by '{first.path}'"


def test_two_that_attach_one_disk_do_not_both_get_it(world: World, first: Machine) -> None:
    disk(world, "models")
    other = world.create(A, "other")
    attaching = [world.attach_disk(each, {"source": f"zones/{A}/disks/models"}) for each in (first, other)]
    assert [end(world, each) for each in attaching] == ["", "RESOURCE_IN_USE_BY_ANOTHER_RESOURCE"]
    assert world.users_of(world.disk(A, "models")) == [first]


def test_many_may_read_a_disk_that_nobody_writes(world: World, first: Machine) -> None:
    disk(world, "models")
    other, third = world.create(A, "other"), world.create(A, "third")
    source = {"source": f"zones/{A}/disks/models"}
    for each in (first, other):
        assert end(world, world.attach_disk(each, {**source, "mode": "READ_ONLY"})) == ""
    assert end(world, world.attach_disk(third, source)) == "RESOURCE_IN_USE_BY_ANOTHER_RESOURCE"
    assert world.users_of(world.disk(A, "models")) == [first, other]


def test_a_disk_that_is_deleted_while_it_is_made_is_not_attached(world: World, first: Machine) -> None:
    world.insert_disk(A, {"name": "models"})
    world.delete_disk(world.disk(A, "models"))
    assert end(world, world.attach_disk(first, {"source": f"zones/{A}/disks/models"})) == "RESOURCE_NOT_READY"


def test_a_disk_on_its_way_out_is_not_attached(world: World, first: Machine) -> None:
    disk(world, "models")
    deletion = world.delete_disk(world.disk(A, "models"))
    assert end(world, world.attach_disk(first, {"source": f"zones/{A}/disks/models"})) == "RESOURCE_NOT_READY"
    world.advance(world.now + timedelta(minutes=1))
    disk(world, "models")
    boot = {"boot": True, "source": f"zones/{A}/disks/models"}
    deletion = world.delete_disk(world.disk(A, "models"))
    assert refused(lambda: world.insert(A, {**NODE, "disks": [boot]})) == (400, "resourceNotReady")
    assert end(world, deletion) == ""


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ({"source": f"zones/{A}/disks/none"}, (404, "notFound")),
        ({"source": f"zones/{B}/disks/models"}, (400, "invalid")),
        ({"source": f"projects/other/zones/{A}/disks/models"}, (400, "invalid")),
        ({}, (400, "invalid")),
        ({"source": f"zones/{A}/disks/models", "deviceName": "persistent-comfyui"}, (400, "invalid")),
        ({"source": f"zones/{A}/disks/models", "mode": "WRITE"}, (400, "invalid")),
        ({"source": f"zones/{A}/disks/models", "boot": True}, (400, "invalid")),
        ({"initializeParams": {}}, (400, "invalid")),
    ],
)
def test_what_cannot_be_attached_is_refused(
    world: World, first: Machine, body: dict[str, Any], answer: tuple[int, str]
) -> None:
    disk(world, "models")
    assert refused(lambda: world.attach_disk(first, body)) == answer


def test_a_disk_comes_and_goes_while_the_machine_runs_but_not_the_boot_disk(world: World, first: Machine) -> None:
    world.start(first)
    disk(world, "models")
    source = f"https://www.googleapis.com/compute/v1/projects/demo-project/zones/{A}/disks/models"
    assert end(world, world.attach_disk(first, {"source": source})) == ""
    assert [each.device for each in first.disks] == ["persistent-disk-0", "persistent-comfyui", "persistent-disk-2"]
    assert end(world, world.detach_disk(first, "persistent-disk-2")) == ""
    assert refused(lambda: world.detach_disk(first, "persistent-disk-2")) == (400, "invalid")
    assert end(world, world.detach_disk(first, "persistent-disk-0")) == "RESOURCE_NOT_READY"
    world.stop(first)
    world.advance(world.now + timedelta(minutes=1))
    assert end(world, world.detach_disk(first, "persistent-disk-0")) == ""


def test_nothing_is_attached_while_the_machine_is_on_its_way(world: World, first: Machine) -> None:
    disk(world, "models")
    world.start(first)
    attach = world.attach_disk(first, {"source": f"zones/{A}/disks/models"})
    assert end(world, attach) == "RESOURCE_NOT_READY"


# -- addresses ---------------------------------------------------------------------------------------------------------


def address(world: World, name: str, **more: Any) -> str:
    assert end(world, world.insert_address(REGION, {"name": name, **more})) == ""
    return world.address(REGION, name).address


def test_a_reserved_address_stays_with_its_machine_through_stop_and_start(world: World, first: Machine) -> None:
    kept = address(world, "front")
    assert end(world, world.delete_access_config(first, "nic0", "External NAT")) == ""
    assert end(world, world.add_access_config(first, "nic0", {"natIP": kept})) == ""
    for _ in range(2):
        assert end(world, world.start(first)) == ""
        assert first.external_ip == kept
        assert end(world, world.stop(first)) == ""
        assert first.external_ip == ""
    assert refused(lambda: world.delete_address(world.address(REGION, "front"))) == (
        400,
        "resourceInUseByAnotherResource",
    )


def test_a_machine_without_an_access_config_has_no_address(world: World, first: Machine) -> None:
    assert end(world, world.delete_access_config(first, "nic0", "External NAT")) == ""
    assert end(world, world.start(first)) == ""
    assert (first.status, first.external_ip) == (Status.RUNNING, "")
    assert end(world, world.add_access_config(first, "nic0", {})) == ""
    assert first.external_ip, "a running machine gets its address at once"
    assert end(world, world.delete_access_config(first, "nic0", "External NAT")) == ""
    assert first.external_ip == ""


def test_an_address_that_a_machine_has_can_be_kept(world: World, first: Machine) -> None:
    assert end(world, world.start(first)) == ""
    had = first.external_ip
    assert address(world, "front", address=had) == had
    assert end(world, world.stop(first)) == ""
    assert end(world, world.start(first)) == ""
    assert first.external_ip == had
    assert world.user_of(world.address(REGION, "front")) is first


def test_of_two_machines_that_want_one_address_one_gets_it(world: World, first: Machine) -> None:
    kept, other = address(world, "front"), world.create(A, "other")
    for machine in (first, other):
        assert end(world, world.delete_access_config(machine, "nic0", "External NAT")) == ""
    adding = [world.add_access_config(machine, "nic0", {"natIP": kept}) for machine in (first, other)]
    assert [end(world, each) for each in adding] == ["", "IP_IN_USE_BY_ANOTHER_RESOURCE"]
    assert refused(lambda: world.add_access_config(other, "nic0", {"natIP": kept}))[0] == 400


def test_an_address_that_goes_meanwhile_is_not_given(world: World, first: Machine) -> None:
    kept = address(world, "front")
    assert end(world, world.delete_access_config(first, "nic0", "External NAT")) == ""
    world.delete_address(world.address(REGION, "front"))
    assert end(world, world.add_access_config(first, "nic0", {"natIP": kept})) == "RESOURCE_NOT_READY"
    assert first.access is None


REFUSED_ADDRESSES: list[tuple[Callable[[World, Machine], object], tuple[int, str]]] = [
    (lambda world, first: world.add_access_config(first, "nic0", {}), (400, "invalid")),
    (lambda world, first: world.add_access_config(first, "nic1", {}), (400, "invalid")),
    (lambda world, first: world.delete_access_config(first, "nic0", "Other"), (400, "invalid")),
    (lambda world, first: world.delete_access_config(first, "nic1", "External NAT"), (400, "invalid")),
    (lambda world, _: world.insert_address(REGION, {"name": "x", "address": "203.0.113.7"}), (400, "invalid")),
    (lambda world, _: world.insert_address(REGION, {"name": "x", "addressType": "INTERNAL"}), (400, "invalid")),
    (lambda world, _: world.insert_address("moon1", {"name": "x"}), (404, "notFound")),
    (lambda world, _: world.insert_address(REGION, {"name": "X"}), (400, "invalid")),
]


@pytest.mark.parametrize(
    ("act", "answer"),
    REFUSED_ADDRESSES,
)
def test_what_cannot_be_done_with_addresses_is_refused(
    world: World, first: Machine, act: Callable[[World, Machine], object], answer: tuple[int, str]
) -> None:
    assert refused(lambda: act(world, first)) == answer
    assert not world.operations


def test_an_address_is_reserved_once(world: World, first: Machine) -> None:
    kept = address(world, "front")
    assert refused(lambda: world.insert_address(REGION, {"name": "front"})) == (409, "alreadyExists")
    assert refused(lambda: world.insert_address(REGION, {"name": "back", "address": kept})) == (400, "invalid")
    world.delete_address(world.address(REGION, "front"))
    assert end(world, world.delete_address(world.address(REGION, "front"))) == "", "twice is as good as once"


# -- quotas ------------------------------------------------------------------------------------------------------------


def test_what_runs_counts_and_what_is_off_does_not(world: World, first: Machine) -> None:
    def used() -> list[float]:
        region = world.quotas.usage(REGION)
        counted = [region[name] for name in ("CPUS", "NVIDIA_T4_GPUS", "IN_USE_ADDRESSES", "INSTANCES", "SSD_TOTAL_GB")]
        return [*counted, world.quotas.usage("")["GPUS_ALL_REGIONS"]]

    off, on = [0, 0, 0, 1, 250, 0], [4, 1, 1, 1, 250, 1]
    assert used() == off
    world.start(first)
    assert used() == on, "from the moment it is accepted"
    world.advance(world.now + timedelta(minutes=1))
    assert used() == on
    world.stop(first)
    world.advance(world.now + timedelta(seconds=1))
    assert (first.status, used()) == (Status.STOPPING, on)
    world.advance(world.now + timedelta(minutes=1))
    assert used() == off


@pytest.mark.parametrize(
    ("region", "metric", "words"),
    [
        (REGION, "NVIDIA_T4_GPUS", "Quota 'NVIDIA_T4_GPUS' exceeded.  Limit: 1.0 in region us-central1."),
        (REGION, "CPUS", "Quota 'CPUS' exceeded.  Limit: 4.0 in region us-central1."),
        (REGION, "IN_USE_ADDRESSES", "Quota 'IN_USE_ADDRESSES' exceeded.  Limit: 1.0 in region us-central1."),
        ("", "GPUS_ALL_REGIONS", "Quota 'GPUS_ALL_REGIONS' exceeded.  Limit: 1.0 globally."),
    ],
)
def test_one_start_too_many_fails_in_its_operation(
    world: World, first: Machine, region: str, metric: str, words: str
) -> None:
    other = world.create(B, "other")
    world.quotas.limits[region][metric] = 4 if metric == "CPUS" else 1
    starts = [world.start(machine) for machine in (first, other)]
    world.advance(world.now + timedelta(seconds=1))
    assert (other.status, starts[1].ended_at) == (Status.PROVISIONING, None)
    assert [end(world, start) for start in starts] == ["", "QUOTA_EXCEEDED"]
    assert starts[1].error
    assert (starts[1].error.message, starts[1].error.http_status) == (words, 403)
    assert other.status is Status.TERMINATED
    world.stop(first)
    world.advance(world.now + timedelta(minutes=1))
    assert end(world, world.start(other)) == "", "there is room again"


def test_a_stop_of_a_start_that_would_have_failed_takes_no_room(world: World, first: Machine) -> None:
    world.quotas.limits[""]["GPUS_ALL_REGIONS"] = 0
    world.start(first)
    world.advance(world.now + timedelta(seconds=1))
    world.stop(first)
    world.advance(world.now + timedelta(seconds=1))
    assert first.status is Status.STOPPING
    assert world.quotas.usage("")["GPUS_ALL_REGIONS"] == 0


OVER_QUOTA: list[tuple[str, Callable[[World], Operation]]] = [
    ("SSD_TOTAL_GB", lambda world: world.insert_disk(A, {"name": "x", "type": f"zones/{A}/diskTypes/pd-ssd"})),
    ("SSD_TOTAL_GB", lambda world: world.resize_disk(world.disk(A, "comfyui"), {"sizeGb": "201"})),
    ("DISKS_TOTAL_GB", lambda world: world.insert_disk(A, {"name": "x"})),
    ("STATIC_ADDRESSES", lambda world: world.insert_address(REGION, {"name": "x"})),
    ("INSTANCES", lambda world: world.insert(A, NODE)),
    ("CPUS", lambda world: world.insert(A, NODE)),
    ("SNAPSHOTS", lambda world: world.create_snapshot(world.disk(A, "comfyui"), {"name": "x"})),
]


@pytest.mark.parametrize(
    ("metric", "act"),
    OVER_QUOTA,
)
def test_what_is_over_the_quota_is_accepted_and_leaves_nothing_behind(
    world: World, metric: str, act: Callable[[World], Operation]
) -> None:
    region = "" if metric == "SNAPSHOTS" else REGION
    world.quotas.limits[region][metric] = world.quotas.usage(region)[metric]
    before = json.dumps([sorted(map(str, each)) for each in (world.disks, world.addresses, world.machines)])
    assert end(world, act(world)) == "QUOTA_EXCEEDED"
    assert json.dumps([sorted(map(str, each)) for each in (world.disks, world.addresses, world.machines)]) == before
    assert (world.disk(A, "comfyui").size_gb, world.snapshots) == (200, {})


# -- machines made and changed -----------------------------------------------------------------------------------------


def test_a_machine_is_made_with_its_disks_and_starts(world: World) -> None:
    disk(world, "models")
    kept = address(world, "front")
    attached = {"source": f"zones/{A}/disks/models", "deviceName": "persistent-comfyui", "mode": "READ_ONLY"}
    operation = world.insert(
        A,
        {
            **NODE,
            **T4,
            "disks": [*NODE["disks"], attached],
            "networkInterfaces": [{"accessConfigs": [{"natIP": kept}]}],
            "labels": {"of": "me"},
            "metadata": {"items": [{"key": "a", "value": "b"}]},
        },
    )
    machine = world.machine(A, "second")
    assert machine.status is Status.PROVISIONING
    assert end(world, operation) == ""
    assert (machine.status, machine.external_ip, machine.accelerators) == (Status.RUNNING, kept, 2)
    assert [(each.disk.name, each.boot) for each in machine.disks] == [("second", True), ("models", False)]
    assert (machine.labels, machine.metadata) == ({"of": "me"}, {"a": "b"})
    assert machine.internal_ip != world.machine(A, "comfyui-gpu").internal_ip
    assert end(world, world.delete(machine)) == ""
    assert ((A, "second") in world.disks, (A, "models") in world.disks) == (False, True)


def test_a_machine_that_finds_no_room_leaves_only_what_was_there_before(world: World) -> None:
    disk(world, "models")
    world.faults.add(Fault(kind="stockout"))
    attached = {"source": f"zones/{A}/disks/models"}
    boot = {"boot": True, "autoDelete": False, "initializeParams": {}}
    operation = world.insert(A, {**NODE, "disks": [boot, attached]})
    assert end(world, operation) == "ZONE_RESOURCE_POOL_EXHAUSTED"
    assert (A, "second") not in world.machines
    assert ((A, "second") in world.disks, (A, "models") in world.disks) == (False, True)
    assert world.users_of(world.disk(A, "models")) == []


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({"name": "comfyui-gpu"}, (409, "alreadyExists")),
        ({"name": ""}, (400, "invalid")),
        ({"machineType": ""}, (400, "invalid")),
        ({"machineType": f"zones/{A}/machineTypes/z9-huge"}, (404, "notFound")),
        ({"machineType": f"zones/{B}/machineTypes/n1-standard-4"}, (400, "invalid")),
        ({"disks": []}, (400, "invalid")),
        ({"disks": [{"boot": False, "initializeParams": {}}]}, (400, "invalid")),
        ({"disks": [{"boot": True, "source": f"zones/{A}/disks/comfyui"}]}, (400, "resourceInUseByAnotherResource")),
        ({"disks": [{"boot": True, "source": f"zones/{A}/disks/none"}]}, (404, "notFound")),
        ({"disks": [{"boot": True}, {"boot": True}]}, (400, "invalid")),
        ({"disks": [{"boot": True, "initializeParams": {"diskName": "comfyui"}}]}, (409, "alreadyExists")),
        ({"networkInterfaces": []}, (400, "invalid")),
        ({"networkInterfaces": [{"accessConfigs": [{}, {}]}]}, (400, "invalid")),
        ({"networkInterfaces": [{"accessConfigs": [{"natIP": "203.0.113.7"}]}]}, (400, "invalid")),
        ({**T4, "scheduling": {"onHostMaintenance": "MIGRATE"}}, (400, "invalid")),
        ({**T4, "machineType": f"zones/{A}/machineTypes/e2-medium"}, (400, "invalid")),
        ({**T4, "machineType": f"zones/{A}/machineTypes/g2-standard-4"}, (400, "invalid")),
        ({"guestAccelerators": [{"acceleratorType": f"zones/{A}/acceleratorTypes/abacus"}]}, (404, "notFound")),
        ({"guestAccelerators": [{**T4["guestAccelerators"][0], "acceleratorCount": 5}]}, (400, "invalid")),
        ({"labels": {"Of": "me"}}, (400, "invalid")),
    ],
)
def test_a_machine_that_cannot_be_is_refused_and_nothing_is_made(
    world: World, changes: dict[str, Any], answer: tuple[int, str]
) -> None:
    before = (dict(world.machines), dict(world.disks))
    assert refused(lambda: world.insert(A, {**NODE, **changes})) == answer
    assert (world.machines, world.disks, dict(world.operations)) == (*before, {})


@pytest.mark.parametrize(
    ("has", "wants", "gpus"),
    [
        ("n1-standard-4", "n1-standard-8", ("", 0)),
        ("n1-standard-4", "g2-standard-4", ("nvidia-l4", 1)),
        ("g2-standard-4", "a2-highgpu-1g", None),
        ("g2-standard-4", "n1-standard-4", ("", 0)),
        ("g2-standard-4", "g2-standard-8", ("nvidia-l4", 1)),
    ],
)
def test_another_size_brings_the_gpus_that_belong_to_it(
    world: World, has: str, wants: str, gpus: tuple[str, int] | None
) -> None:
    machine = made(world, machineType=f"zones/{A}/machineTypes/{has}")
    wanted = {"machineType": f"zones/{A}/machineTypes/{wants}"}
    if gpus is None:
        assert refused(lambda: world.set_machine_type(machine, wanted)) == (400, "invalid")
        return
    assert end(world, world.set_machine_type(machine, wanted)) == "RESOURCE_NOT_READY"
    assert end(world, world.stop(machine)) == ""
    assert end(world, world.set_machine_type(machine, wanted)) == ""
    assert machine.machine_type == wants
    assert (machine.accelerator if machine.accelerators else "", machine.accelerators) == gpus


def test_labels_change_under_their_fingerprint(world: World, first: Machine) -> None:
    body = {"labels": {"of": "me"}, "labelFingerprint": fingerprint_of({})}
    changes = [world.set_labels(first, body), world.set_labels(first, {**body, "labels": {"of": "you"}})]
    assert [end(world, each) for each in changes] == ["", "CONDITION_NOT_MET"]
    assert first.labels == {"of": "me"}
    assert refused(lambda: world.set_labels(first, body)) == (412, "conditionNotMet")


def test_a_machine_whose_disks_names_are_taken_gets_others(world: World, first: Machine) -> None:
    assert end(world, world.delete(first)) == ""
    again = world.create(A, "comfyui-gpu")
    assert [each.disk.name for each in again.disks] == ["comfyui-gpu", "comfyui"], "what was left behind is used again"
    disk(world, "third-comfyui")
    world.attach_disk(again, {"source": f"zones/{A}/disks/third-comfyui"})
    world.advance(world.now + timedelta(minutes=1))
    assert [each.disk.name for each in world.create(A, "third").disks] == ["third", "third-comfyui-2"]


# -- several projects --------------------------------------------------------------------------------------------------


def test_projects_do_not_see_each_other_but_share_no_address(world: World) -> None:
    cloud = Cloud(world)
    other = cloud.create("other-project", ["europe-west4-a", "europe-west4-b", "us-east1-c"])
    assert (other.regions, other.machines) == (("europe-west4", "us-east1"), {})
    machine = other.create("europe-west4-a", "comfyui-gpu")
    assert machine.path == "projects/other-project/zones/europe-west4-a/instances/comfyui-gpu"
    operations = [world.start(world.machine(A, "comfyui-gpu")), other.start(machine)]
    cloud.advance(STARTED + timedelta(minutes=1))
    assert [operation.name in world.operations for operation in operations] == [True, False]
    assert machine.external_ip
    assert machine.external_ip != world.machine(A, "comfyui-gpu").external_ip
    assert world.quotas.usage("")["GPUS_ALL_REGIONS"] == other.quotas.usage("")["GPUS_ALL_REGIONS"] == 1


@pytest.mark.parametrize(
    ("name", "zones", "status"),
    [
        ("demo-project", [], 409),
        ("Demo", [], 400),
        ("other-project", ["moon"], 400),
        ("x", [], 400),
    ],
)
def test_a_project_that_cannot_be_is_refused(world: World, name: str, zones: list[str], status: int) -> None:
    cloud = Cloud(world)
    assert refused(lambda: cloud.create(name, zones))[0] == status
    assert list(cloud.projects) == ["demo-project"]


def test_a_project_that_is_not_there_is_not_found(world: World) -> None:
    assert refused(lambda: Cloud(world).project("nobody")) == (404, "notFound")
