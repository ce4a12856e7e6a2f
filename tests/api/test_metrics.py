"""What Prometheus gets, and who gets it."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from comfyweb.access.sessions import WrongPassword
from comfyweb.access.throttle import ATTEMPTS, TooManyAttempts
from comfyweb.api import metrics
from comfyweb.control.controller import Controller
from comfyweb.control.measures import Durations
from comfyweb.control.services import Bound, services
from comfyweb.machine.model import Phase
from comfyweb.machine.snapshot import Snapshot
from comfyweb.settings import load
from tests.api.conftest import RUNNING, SETTINGS, World, problem

TOKEN = "3c9f1be07a6d45e2b8c4d1e5f60718293a4b5c6d"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
DASHBOARD = Path(__file__).parent.parent.parent / "deploy/grafana/comfyweb.json"
WHEN = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def watched(world: World) -> Iterator[World]:
    settings = load(SETTINGS | {"METRICS_TOKEN": TOKEN}, None)
    services.bind(Bound(settings=settings, sessions=world.sessions, controller=cast(Controller, world.controller)))
    yield world
    services.tabs = lambda: 0


async def samples(stranger: httpx.AsyncClient) -> Samples:
    answer = await stranger.get("/metrics", headers=BEARER)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == metrics.MEDIA_TYPE
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def of(found: Samples, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


async def test_without_the_setting_there_are_none(world: World, stranger: httpx.AsyncClient) -> None:
    problem(await stranger.get("/metrics", headers=BEARER), 401)
    problem(await stranger.get("/metrics", headers={"Authorization": "Bearer None"}), 401)


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer x"}, {"Cookie": f"auth-token={TOKEN}"}, {"Authorization": f"Basic {TOKEN}"}],
)
async def test_without_the_token_nobody_reads_them(
    watched: World, stranger: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    answer = await stranger.get("/metrics", headers=headers)
    problem(answer, 401)
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_login_is_no_token_and_the_token_no_login(watched: World, caller: httpx.AsyncClient) -> None:
    problem(await caller.get("/metrics"), 401)
    del caller.headers["x-auth-token"]
    problem(await caller.get("/api/auth/check", headers=BEARER), 401)


async def test_they_tell_of_the_machine(watched: World, stranger: httpx.AsyncClient) -> None:
    body = RUNNING.body | {"price_per_hour": "0.54", "fault": {"code": "quota"}}
    watched.controller.publisher.snapshot = Snapshot(phase=Phase.READY, body=body)
    watched.controller.numbers = replace(
        watched.controller.numbers, run_seconds=7200.0, silence_seconds=30.0, looked_at=WHEN
    )
    found = await samples(stranger)
    phases = {phase.value: of(found, "comfyweb_machine_phase", phase=phase.value) for phase in Phase}
    assert {phase for phase, value in phases.items() if value} == {"ready"}
    assert of(found, "comfyweb_machine_run_seconds") == 7200
    assert of(found, "comfyweb_machine_run_cost_dollars") == pytest.approx(1.08)
    assert of(found, "comfyweb_machine_fault", code="quota") == 1
    assert of(found, "comfyweb_host_silence_seconds") == 30
    assert of(found, "comfyweb_machine_last_look_timestamp_seconds") == WHEN.timestamp()


async def test_they_tell_of_the_loop_and_its_calls(watched: World, stranger: httpx.AsyncClient) -> None:
    turns = Durations()
    for seconds in (0.1, 0.2, 400.0):
        turns.add(seconds)
    calls = {("get", "ok"): 5, ("start", "no-capacity"): 1}
    watched.controller.numbers = replace(watched.controller.numbers, turns=turns, failed_turns=2, calls=calls)
    found = await samples(stranger)
    assert of(found, "comfyweb_compute_engine_calls_total", method="get", outcome="ok") == 5
    assert of(found, "comfyweb_compute_engine_calls_total", method="start", outcome="no-capacity") == 1
    assert of(found, "comfyweb_loop_failed_turns_total") == 2
    buckets = {le: of(found, "comfyweb_loop_turn_duration_seconds_bucket", le=le) for le in ("0.05", "0.1", "0.25")}
    assert buckets == {"0.05": 0, "0.1": 1, "0.25": 2}
    assert of(found, "comfyweb_loop_turn_duration_seconds_bucket", le="60.0") == 2
    assert of(found, "comfyweb_loop_turn_duration_seconds_count") == 3
    assert of(found, "comfyweb_loop_turn_duration_seconds_sum") == pytest.approx(400.3)


async def test_they_tell_of_who_is_here_and_who_wants_in(watched: World, stranger: httpx.AsyncClient) -> None:
    await watched.token()
    await watched.ended_token()
    with pytest.raises(WrongPassword):
        await watched.sessions.login("not the password", "192.0.2.1")
    with pytest.raises(TooManyAttempts):  # noqa: PT012 - the last of them
        for _ in range(ATTEMPTS):
            try:
                await watched.sessions.login("not the password", "192.0.2.1")
            except WrongPassword:
                continue
    services.tabs = lambda: 3
    found = await samples(stranger)
    assert of(found, "comfyweb_sessions") == 1
    assert of(found, "comfyweb_tabs") == 3
    assert of(found, "comfyweb_event_streams") == 0
    logins = {outcome: of(found, "comfyweb_logins_total", outcome=outcome) for outcome in ("ok", "unavailable")}
    assert logins == {"ok": 2, "unavailable": 0}
    assert of(found, "comfyweb_logins_total", outcome="wrong-password") == ATTEMPTS
    assert of(found, "comfyweb_logins_total", outcome="too-many-attempts") == 1


async def test_every_metric_is_named_by_the_conventions_and_documented(
    watched: World, stranger: httpx.AsyncClient
) -> None:
    document = (DASHBOARD.parent.parent.parent / "docs/watching.md").read_text()
    text = (await stranger.get("/metrics", headers=BEARER)).text
    for family in text_string_to_metric_families(text):
        assert family.documentation, family.name
        assert family.name.startswith(("comfyweb_", "process_"))
        if family.name.startswith("comfyweb_"):
            assert f"`{family.name}{'_total' if family.type == 'counter' else ''}`" in document


async def test_the_dashboard_asks_for_nothing_that_is_not_there(watched: World, stranger: httpx.AsyncClient) -> None:
    watched.controller.publisher.snapshot = Snapshot(phase=Phase.OFF, body=RUNNING.body | {"fault": {"code": "quota"}})
    watched.controller.numbers = replace(watched.controller.numbers, calls={("get", "ok"): 1})
    found = await samples(stranger)
    there, labels = {name for name, _ in found}, {label for _, pairs in found for label, _ in pairs}
    targets = [target for panel in json.loads(DASHBOARD.read_text())["panels"] for target in panel["targets"]]
    asked = {name for target in targets for name in re.findall(r"\b(?:comfyweb|process)_\w+", target["expr"])}
    assert len(asked) > 12
    assert asked <= there
    used = {name for target in targets for name in re.findall(r"{{(\w+)}}", target["legendFormat"])}
    used |= {
        name.strip()
        for target in targets
        for by in re.findall(r"by \(([^)]*)\)", target["expr"])
        for name in by.split(",")
    }
    assert used <= labels


@pytest.mark.slow  # a whole process
def test_the_app_starts_without_the_library() -> None:
    code = "import sys, comfyweb.api.app; print([name for name in sys.modules if name.startswith('prometheus')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_type_that_is_told_is_the_librarys_own() -> None:
    from prometheus_client import CONTENT_TYPE_LATEST  # noqa: PLC0415 - as above

    assert metrics.MEDIA_TYPE == CONTENT_TYPE_LATEST
