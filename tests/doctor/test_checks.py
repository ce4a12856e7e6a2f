"""The doctor against the emulated cloud: in health, and with one thing wrong at a time."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comfyweb.cloud.compute import PERMISSIONS
from comfyweb.demo.model import SERVICE_ACCOUNT
from comfyweb.doctor import checks
from comfyweb.doctor.checks import examine
from comfyweb.machine.checkup import Finding, State
from comfyweb.machine.firewall import EVERYWHERE
from tests.cloudbox import CloudBox

SECRET = "f8b1c2d3e4a5968778695a4b3c2d1e0f"
PASSWORD = "a quiet river at dawn"


@pytest.fixture(scope="module")
def cloud() -> Iterator[CloudBox]:
    with CloudBox() as made:
        yield made


@pytest.fixture
def box(cloud: CloudBox) -> CloudBox:
    cloud.anew()
    return cloud


@pytest.fixture
def environ(box: CloudBox, tmp_path: Path) -> dict[str, str]:
    return {
        "AUTH_PASSWORD": PASSWORD,
        "JWT_SECRET": SECRET,
        "GCP_PROJECT": "demo-project",
        "COMPUTE_ENDPOINT": box.url,
        "DATABASE_URL": f"sqlite:///{tmp_path / 'comfyweb.db'}",
    }


async def found(environ: dict[str, str]) -> dict[str, Finding]:
    findings = await examine(environ, None)
    by_check = {finding.check: finding for finding in findings}
    assert len(by_check) == len(findings), "each thing is told once"
    return by_check


def those(findings: dict[str, Finding], state: State) -> set[str]:
    return {check for check, finding in findings.items() if finding.state is state}


async def test_a_healthy_deployment_fails_in_nothing(environ: dict[str, str]) -> None:
    findings = await found(environ)
    assert those(findings, State.FAILED) == set()
    assert those(findings, State.WARNING) == {"framing"}
    assert those(findings, State.NOT_CHECKED) == {"name", "certificate"}
    assert {f"permission {name}" for name in PERMISSIONS} <= findings.keys()


@pytest.mark.parametrize(
    ("verb", "permission"),
    [
        ("start", "compute.instances.start"),
        ("stop", "compute.instances.stop"),
        ("setMetadata", "compute.instances.setMetadata"),
        ("setScheduling", "compute.instances.setScheduling"),
        ("getGuestAttributes", "compute.instances.getGuestAttributes"),
        ("operations.get", "compute.zoneOperations.get"),
    ],
)
async def test_a_missing_permission_is_the_one_thing_that_fails(
    box: CloudBox, environ: dict[str, str], verb: str, permission: str
) -> None:
    box.fault("permission", verb=verb, times=None)
    findings = await found(environ)
    assert those(findings, State.FAILED) == {f"permission {permission}"}
    assert "demo-project" in findings[f"permission {permission}"].todo


async def test_whether_it_may_act_for_the_machines_account_is_asked_there(
    box: CloudBox, environ: dict[str, str]
) -> None:
    act_as = "permission iam.serviceAccounts.actAs"
    assert SERVICE_ACCOUNT in (await found(environ))[act_as].words
    box.fault("act-as", times=None)
    findings = await found(environ)
    assert those(findings, State.FAILED) == {act_as}
    assert f"add-iam-policy-binding {SERVICE_ACCOUNT}" in findings[act_as].todo
    assert box.machine.status == "TERMINATED", "asking starts nothing"


async def test_who_may_not_even_look_hears_of_each_permission_all_the_same(
    box: CloudBox, environ: dict[str, str]
) -> None:
    for verb in ("get", "stop"):
        box.fault("permission", verb=verb, times=None)
    failed = those(await found(environ), State.FAILED)
    assert failed == {"machine", "permission compute.instances.get", "permission compute.instances.stop"}


@pytest.mark.parametrize(
    ("kind", "failed"),
    [
        ("unauthorized", {"credentials"}),
        ("api-disabled", {"compute-engine-api"}),
        ("billing", {"compute-engine-api"}),
        ("unavailable", {"compute-engine-api"}),
        ("bad-gateway", {"compute-engine-api"}),
        ("reset", {"compute-engine-api"}),
        ("half-answer", {"compute-engine-api"}),
    ],
)
async def test_trouble_at_google_is_blamed_on_one_thing(
    box: CloudBox, environ: dict[str, str], kind: str, failed: set[str]
) -> None:
    box.fault(kind, times=None)
    assert those(await found(environ), State.FAILED) == failed


async def test_a_cloud_that_never_answers_is_not_waited_for(
    box: CloudBox, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "CALL_SECONDS", 0.5)
    box.fault("hang", times=None)
    assert those(await found(environ), State.FAILED) == {"compute-engine-api"}


@pytest.mark.slow  # It has to be waited for.
async def test_a_check_that_takes_too_long_is_given_up_and_the_others_are_told(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: object) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(checks, "time_at", never)
    monkeypatch.setattr(checks, "CHECK_SECONDS", 5.0)
    findings = await found(environ)
    assert "longer than 5 s" in findings["clock"].words
    assert findings["machine"].state is State.OK


@pytest.mark.parametrize(
    ("metric", "region", "check"),
    [("NVIDIA_T4_GPUS", "us-central1", "gpu-quota"), ("GPUS_ALL_REGIONS", None, "gpu-quota-all-regions")],
)
async def test_a_limit_of_no_gpu_at_all_fails(
    box: CloudBox, environ: dict[str, str], metric: str, region: str | None, check: str
) -> None:
    box.control("quota", {"metric": metric, "limit": 0} | ({"region": region} if region else {}))
    assert those(await found(environ), State.FAILED) == {check}


async def test_a_machine_that_does_not_exist_fails(environ: dict[str, str]) -> None:
    findings = await found(environ | {"GCE_INSTANCE": "another"})
    assert those(findings, State.FAILED) == {"machine"}
    assert "GCE_INSTANCE" in findings["machine"].todo


async def test_a_machine_without_the_web_in_its_tags_is_behind_a_closed_firewall(
    box: CloudBox, environ: dict[str, str]
) -> None:
    box.machine.tags.remove("http-server")
    findings = await found(environ)
    assert those(findings, State.FAILED) == {"firewall"}
    assert EVERYWHERE in findings["firewall"].todo


async def test_what_running_needs_no_permission_for_is_not_checked_without(
    box: CloudBox, environ: dict[str, str]
) -> None:
    for verb in ("regions.get", "projects.get", "getEffectiveFirewalls"):
        box.fault("permission", verb=verb, times=None)
    findings = await found(environ)
    assert those(findings, State.FAILED) == set()
    assert {"gpu-quota", "gpu-quota-all-regions", "firewall"} <= those(findings, State.NOT_CHECKED)


async def test_somebody_elses_start_up_script_is_a_warning(box: CloudBox, environ: dict[str, str]) -> None:
    box.machine.metadata["startup-script"] = "#!/bin/sh\necho mine\n"
    assert "start-up-script" in those(await found(environ), State.WARNING)


async def test_wrong_settings_are_told_and_nothing_is_asked(box: CloudBox) -> None:
    findings = await examine({"AUTH_PASSWORD": "hunter2"}, None)
    assert [finding.state for finding in findings] == [State.FAILED] * 3 + [State.NOT_CHECKED]
    assert "hunter2" not in str(findings)
    assert not box.examiner.seen


async def test_a_secret_that_others_can_read_is_a_warning_except_in_a_container(
    environ: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text(PASSWORD)
    file.chmod(0o644)
    del environ["AUTH_PASSWORD"]
    environ |= {"AUTH_PASSWORD_FILE": str(file)}
    loose = await found(environ)
    assert loose["secrets"].state is State.WARNING
    assert str(file) in loose["secrets"].todo
    assert (await found(environ | {"container": "docker"}))["secrets"].state is State.OK


async def test_no_secret_is_among_what_is_told(environ: dict[str, str]) -> None:
    told = str(await examine(environ | {"DATABASE_URL": "postgresql://me:marked-password@127.0.0.1:1/x"}, None))
    for secret in (PASSWORD, SECRET, "marked-password"):
        assert secret not in told
