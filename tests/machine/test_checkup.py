"""What the doctor makes of what it sees."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network

import pytest

from comfyweb.machine import checkup, checkup_here
from comfyweb.machine.checkup import State
from comfyweb.machine.faults import FAULTS, named
from comfyweb.machine.firewall import EVERYWHERE, Firewall, Open, Rule, Traffic, opened
from comfyweb.machine.model import Certificate, MachineMissing, MachineSeen, NameSeen, Quota

NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
OFF = MachineSeen(
    at=NOW,
    status="TERMINATED",
    zone="us-central1-a",
    machine_type="n1-standard-4",
    accelerators=(("nvidia-tesla-t4", 1),),
    disks=("persistent-disk-0", "persistent-comfyui"),
)
ON = replace(OFF, status="RUNNING", external_ip="203.0.113.9")
CLOUDFLARE = [ip_network("104.16.0.0/13")]
NAME = "comfy.example.com"
T4 = "NVIDIA_T4_GPUS"


def rule(
    *ports: str, allows: bool = True, priority: int = 1000, sources: tuple[str, ...] = (EVERYWHERE,), of: str = "tcp"
) -> Rule:
    return Rule(
        name="r",
        priority=priority,
        allows=allows,
        traffic=(Traffic(protocol=of, ports=ports),),
        sources=sources,
    )


@pytest.mark.parametrize(
    ("rules", "whom"),
    [
        ([], Open.NOBODY),
        ([rule("443")], Open.EVERYBODY),
        ([rule("80-500")], Open.EVERYBODY),
        ([rule()], Open.EVERYBODY),
        ([rule(of="all")], Open.EVERYBODY),
        ([rule("22")], Open.NOBODY),
        ([rule("443", of="udp")], Open.NOBODY),
        ([rule("443", sources=())], Open.NOBODY),
        ([rule("443", sources=("93.184.216.0/24",))], Open.SOME),
        ([rule("443", sources=("10.128.0.0/9",))], Open.NOBODY),
        ([rule("443"), rule("443", allows=False)], Open.NOBODY),
        ([rule("443", priority=900), rule("443", allows=False)], Open.EVERYBODY),
        ([rule("443"), rule("443", allows=False, priority=900)], Open.NOBODY),
        (
            [rule("443", priority=800, sources=("93.184.216.0/24",)), rule("443", allows=False, priority=900), rule()],
            Open.SOME,
        ),
        ([rule("443-", "x")], Open.EVERYBODY),
        ([rule("nonsense")], Open.NOBODY),
    ],
)
def test_the_first_rule_that_names_a_port_decides(rules: list[Rule], whom: Open) -> None:
    assert opened(rules, 443)[0] is whom


def test_a_closed_firewall_fails_a_narrow_one_warns_and_policies_leave_it_open() -> None:
    assert checkup.firewall(Firewall(rules=(rule("443"),)), (80, 443)).state is State.FAILED
    narrow = Firewall(rules=(rule("443", sources=("93.184.216.0/24",)),))
    assert checkup.firewall(narrow, (443,)).state is State.WARNING
    assert checkup.firewall(Firewall(rules=(rule("443"),), policies=True), (443,)).state is State.NOT_CHECKED
    assert checkup.firewall(Firewall(rules=(rule("443"),)), (443,)).state is State.OK


@pytest.mark.parametrize("code", sorted(FAULTS))
def test_every_fault_of_a_look_is_blamed_on_one_thing_at_least(code: str) -> None:
    fault = named(code)
    found = [checkup.credentials(fault), checkup.api(fault), *checkup.machine(None, fault, "comfyui-gpu")]
    failed = [finding for finding in found if finding.state is State.FAILED]
    assert failed
    assert all(finding.todo for finding in failed)


@pytest.mark.parametrize(
    ("code", "failed"),
    [
        ("credentials-missing", "credentials"),
        ("credentials-refused", "credentials"),
        ("api-disabled", "compute-engine-api"),
        ("network-timeout", "compute-engine-api"),
    ],
)
def test_what_follows_from_one_failure_is_not_called_another(code: str, failed: str) -> None:
    fault = named(code)
    found = [checkup.credentials(fault), checkup.api(fault)]
    assert [finding.check for finding in found if finding.state is State.FAILED] == [failed]


def test_each_permission_is_told_and_a_missing_one_with_the_line_that_grants_it() -> None:
    asked = ("compute.instances.get", "compute.instances.start")
    one, other = checkup.permissions(asked, ["compute.instances.start"], None, "my-project")
    assert (one.state, other.state) == (State.OK, State.FAILED)
    assert "add-iam-policy-binding my-project" in other.todo
    unknown = checkup.permissions(asked, None, named("network"), "my-project")
    assert {finding.state for finding in unknown} == {State.NOT_CHECKED}


MACHINES_ACCOUNT = "comfyui-machine@my-project.iam.gserviceaccount.com"


@pytest.mark.parametrize(
    ("account", "may", "fault", "state", "words"),
    [
        (MACHINES_ACCOUNT, True, None, State.OK, f"granted on {MACHINES_ACCOUNT}"),
        (MACHINES_ACCOUNT, False, None, State.FAILED, "may not use that one"),
        (MACHINES_ACCOUNT, None, "network", State.NOT_CHECKED, "IAM gave no usable answer"),
        (MACHINES_ACCOUNT, None, "api-disabled", State.NOT_CHECKED, "The API of IAM is not enabled"),
        ("", None, None, State.OK, "Not needed"),
    ],
)
def test_to_act_for_the_machines_account_is_needed_where_it_has_one(
    *, account: str, may: bool | None, fault: str | None, state: State, words: str
) -> None:
    found = checkup.act_as(replace(OFF, service_account=account), may=may, fault=named(fault) if fault else None)
    assert found.state is state
    assert words in found.words
    grants = f"add-iam-policy-binding {MACHINES_ACCOUNT} --member=serviceAccount:"
    assert (grants in found.todo) is (state is not State.OK)
    assert ("gcloud services enable iam.googleapis.com" in found.todo) is (fault == "api-disabled")


def test_nothing_is_said_of_the_account_of_a_machine_that_nobody_saw() -> None:
    assert checkup.act_as(None, may=None, fault=None).state is State.NOT_CHECKED


def test_a_machine_that_is_missing_or_lacks_its_parts() -> None:
    states = {finding.check: finding.state for finding in checkup.machine(MachineMissing(at=NOW), None, "m")}
    assert states == {"machine": State.FAILED, "gpu": State.NOT_CHECKED, "data-disk": State.NOT_CHECKED}
    bare = replace(OFF, accelerators=(), disks=())
    states = {finding.check: finding.state for finding in checkup.machine(bare, None, "m")}
    assert states == {"machine": State.OK, "gpu": State.FAILED, "data-disk": State.WARNING}


@pytest.mark.parametrize(
    ("machine", "limit", "usage", "state"),
    [
        (OFF, 1, 0, State.OK),
        (OFF, 0, 0, State.FAILED),
        (OFF, 1, 1, State.WARNING),
        (ON, 1, 1, State.OK),
        (replace(OFF, accelerators=(("nvidia-tesla-t4", 2),)), 1, 0, State.FAILED),
        (replace(OFF, preemptible=True), 1, 0, State.NOT_CHECKED),
        (replace(OFF, accelerators=(("nvidia-l4", 1),)), 1, 0, State.NOT_CHECKED),
    ],
)
def test_the_limit_is_that_of_the_machines_own_gpu(
    machine: MachineSeen, limit: float, usage: float, state: State
) -> None:
    assert checkup.gpu_quota(machine, [Quota(metric=T4, limit=limit, usage=usage)]).state is state


@pytest.mark.parametrize(
    ("kind", "metric"),
    [
        ("nvidia-l4", "NVIDIA_L4_GPUS"),
        ("nvidia-tesla-a100", "NVIDIA_A100_GPUS"),
        ("nvidia-a100-80gb", "NVIDIA_A100_80GB_GPUS"),
        ("nvidia-h100-80gb", "NVIDIA_H100_GPUS"),
    ],
)
def test_each_gpu_has_a_limit_by_its_own_name(kind: str, metric: str) -> None:
    machine = replace(OFF, accelerators=((kind, 1),))
    assert checkup.gpu_quota(machine, [Quota(metric=metric, limit=1, usage=0)]).state is State.OK
    spot = replace(machine, preemptible=True)
    quota = Quota(metric=f"PREEMPTIBLE_{metric}", limit=1, usage=0)
    assert checkup.gpu_quota(spot, [quota]).state is State.OK


def test_who_may_not_look_is_not_ill() -> None:
    unread = checkup.unread("firewall", named("permission"))
    assert unread.state is State.NOT_CHECKED
    assert "roles/compute.viewer" in unread.todo


@pytest.mark.parametrize(
    ("seconds", "state"), [(0, State.OK), (-9, State.OK), (30, State.WARNING), (-3600, State.FAILED)]
)
def test_a_clock_may_be_some_seconds_off(seconds: float, state: State) -> None:
    assert checkup.clock(NOW + timedelta(seconds=seconds), NOW).state is state


@pytest.mark.parametrize(
    ("reserved", "name", "state"), [(True, NAME, State.OK), (False, "", State.OK), (False, NAME, State.WARNING)]
)
def test_only_a_name_needs_an_address_that_stays(name: str, state: State, *, reserved: bool) -> None:
    assert checkup.static_address(ON, reserved=reserved, name=name, instance="m").state is state


@pytest.mark.parametrize(
    ("addresses", "machine", "keeps", "state"),
    [
        (None, ON, False, State.NOT_CHECKED),
        ((), ON, False, State.WARNING),
        ((), OFF, False, State.WARNING),
        (("203.0.113.9",), ON, False, State.OK),
        (("93.184.216.34",), ON, False, State.FAILED),
        (("93.184.216.34",), OFF, False, State.NOT_CHECKED),
        (("93.184.216.34",), replace(OFF, external_ip="203.0.113.9"), True, State.FAILED),
        (("104.16.0.1",), OFF, False, State.OK),
        (("104.16.0.1",), ON, False, State.OK),
        (("93.184.216.34",), None, False, State.NOT_CHECKED),
    ],
)
def test_where_the_name_leads_counts_where_the_machine_is_known(
    addresses: tuple[str, ...] | None, machine: MachineSeen | None, state: State, *, keeps: bool
) -> None:
    seen = NameSeen(name=NAME, addresses=addresses)
    assert checkup_here.name(seen, machine, CLOUDFLARE, origin_certificate=False, keeps=keeps).state is state


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ({}, State.OK),
        ({"trusted": False}, State.FAILED),
        ({"name": "other.example.com"}, State.FAILED),
        ({"until": NOW - timedelta(days=1), "trusted": False}, State.FAILED),
        ({"until": NOW + timedelta(days=3)}, State.WARNING),
    ],
)
def test_a_certificate_is_trusted_for_the_name_and_not_about_to_end(change: dict[str, object], state: State) -> None:
    good = Certificate(mode="Let's Encrypt", trusted=True, name="*.example.com", until=NOW + timedelta(days=60))
    shown = replace(good, **change)  # pyright: ignore[reportArgumentType] - names are checked at run time
    assert checkup_here.certificate(shown, NAME, NOW).state is state


@pytest.mark.parametrize(
    ("trouble", "free", "state"),
    [
        ("", 10**10, State.OK),
        ("", None, State.OK),
        ("", 100 * 2**20, State.WARNING),
        ("", 2**20, State.FAILED),
        ("locked", 10**10, State.FAILED),
    ],
)
def test_the_database_needs_room_and_to_be_written(trouble: str, free: int | None, state: State) -> None:
    assert checkup_here.database(trouble, free).state is state


@pytest.mark.parametrize(
    ("stored", "state"),
    [(None, State.OK), ("0.1.0+a", State.OK), ("0.1.0+b", State.WARNING), ("", State.FAILED)],
)
def test_the_machine_gets_the_host_software_of_this_app(stored: str | None, state: State) -> None:
    assert checkup_here.bundle("0.1.0+a", 1000, 2000, stored).state is state


def test_secrets_that_could_be_kept_better_are_named_by_file_alone() -> None:
    good = checkup_here.secrets(weak_hash=False, signing=1, loose_files=())
    poor = checkup_here.secrets(weak_hash=True, signing=2, loose_files=("/run/secrets/password",))
    assert (good.state, poor.state) == (State.OK, State.WARNING)
    assert "chmod 600 /run/secrets/password" in poor.todo
