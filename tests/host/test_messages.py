"""What the host tells. The fixtures are the contract: the app's tests read the same files."""

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.host import examples
from vm_setup.host.drain import Drain
from vm_setup.host.messages import (
    ATTRIBUTE_LIMIT,
    Certificate,
    Message,
    Step,
    Work,
    encode,
    heartbeat_is_due,
    phase_is_due,
    rfc3339,
)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("status_warming", examples.warming().status()),
        ("status_ready", examples.report().status()),
        ("status_busy", examples.busy().status()),
        ("status_draining", examples.draining().status()),
        ("phase", examples.warming().short()),
        ("heartbeat", examples.busy().heartbeat(acks=["c1a5e0d2"])),
    ],
)
def test_a_message_is_what_its_fixture_says(name: str, message: Message) -> None:
    assert message == examples.fixture(name)


def test_a_status_has_the_fields_of_the_contract_and_no_others() -> None:
    status = examples.draining().status()
    fields = "host_version boot_id at phase steps comfyui gpu activity drain disk tls warnings"
    assert list(status) == fields.split()


def test_a_queue_that_nobody_knows_is_told_as_unknown_and_never_as_empty() -> None:
    silent = examples.report(work=Work(ready=True))
    told: Any = silent.status()["comfyui"]
    assert (told["queue_running"], told["queue_pending"]) == (None, None)
    assert silent.heartbeat()["queue"] == {"running": None, "pending": None}
    assert examples.report().heartbeat()["queue"] == {"running": 0, "pending": 0}


def test_times_are_told_in_utc() -> None:
    assert datetime.fromisoformat(rfc3339(examples.WALL)).timestamp() == examples.WALL
    assert rfc3339(examples.WALL).endswith("Z")


def test_a_wall_clock_that_is_set_changes_what_is_told_and_not_when_it_stops() -> None:
    before = examples.report()
    after = replace(before, now=replace(before.now, wall=before.now.wall + 3600))
    assert after.idle.stops_at(examples.BOOT) == before.idle.stops_at(examples.BOOT)
    told: Any = after.status()["activity"]
    assert told["stops_at"] == "2026-11-24T01:25:00.000Z"


@pytest.mark.parametrize(
    ("changes", "phase"),
    [
        ({}, "ready"),
        ({"drain": Drain.start(5, now=0)}, "draining"),
        ({"drain": Drain.start(5, now=0), "stopping": True}, "stopping"),
    ],
)
def test_the_phase_says_the_most_final_thing(changes: dict[str, Any], phase: str) -> None:
    assert examples.report(**changes).phase == phase


TEXT = st.text(max_size=3000)
STEPS = st.lists(
    st.builds(Step, name=TEXT, state=st.sampled_from(["waiting", "running", "done"]), detail=TEXT), max_size=40
)


@given(steps=STEPS, warnings=st.lists(TEXT, max_size=6), boot_id=TEXT)
def test_a_guest_attribute_is_never_over_two_kilobytes(steps: list[Step], warnings: list[str], boot_id: str) -> None:
    short = examples.report(steps=steps, warnings=warnings, boot_id=boot_id).short()
    assert len(encode(short).encode()) <= ATTRIBUTE_LIMIT
    assert short["phase"] == "ready"


def test_another_certificate_is_news_and_who_does_not_trust_it_hears_of_it_by_google() -> None:
    report = examples.report()
    other = replace(report, certificate=Certificate(mode="self-signed", name="x" * 253))
    assert other.milestone != report.milestone
    told: Any = other.short()["tls"]
    assert (told["mode"], told["trusted"], len(told["name"])) == ("self-signed", False, 64)


def test_a_heartbeat_with_twenty_acknowledgements_fits() -> None:
    assert len(encode(examples.busy().heartbeat(acks=["x" * 64] * 20))) <= ATTRIBUTE_LIMIT


def test_a_step_that_goes_on_is_no_news_and_one_that_does_something_else_or_ends_is() -> None:
    report = examples.warming()
    longer = replace(report, steps=[replace(step, seconds=99.0) for step in report.steps])
    ended = replace(report, steps=[replace(step, state="done") for step in report.steps])
    elsewhere = replace(report, steps=[replace(step, detail="Waiting") for step in report.steps])
    assert longer.milestone == report.milestone
    assert elsewhere.milestone != report.milestone
    assert ended.milestone != report.milestone


@pytest.mark.parametrize(
    ("changed", "written_at", "now", "due"),
    [(True, None, 0, True), (True, 10, 14, False), (True, 10, 15, True), (False, 10, 9999, False)],
)
def test_phase_is_written_at_every_step_but_at_most_every_five_seconds(
    *, changed: bool, written_at: float | None, now: float, due: bool
) -> None:
    assert phase_is_due(changed=changed, written_at=written_at, now=now) is due


@pytest.mark.parametrize(
    ("new_acks", "written_at", "now", "due"),
    [
        (False, None, 0, True),
        (False, 10, 69, False),
        (False, 10, 70, True),
        (True, 10, 14, False),
        (True, 10, 15, True),
    ],
)
def test_the_heartbeat_is_written_every_minute_and_sooner_to_acknowledge(
    *, new_acks: bool, written_at: float | None, now: float, due: bool
) -> None:
    assert heartbeat_is_due(new_acks=new_acks, written_at=written_at, now=now) is due
