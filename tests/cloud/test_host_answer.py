"""What is made of the host's words: the fixtures of both sides, and everything that others may put in their place."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyweb.cloud.host import from_guest_attributes
from comfyweb.cloud.host_answer import host_seen, message
from comfyweb.machine.model import Certificate, HostSeen, Step

FIXTURES = Path(__file__).parent.parent / "fixtures" / "host"
BOOT = "b1946ac9-2492-4d23-8d3f-0b6f0c1a7e55"
AT = datetime(2026, 11, 24, tzinfo=UTC)


def text(name: str) -> str:
    return (FIXTURES / f"{name}.json").read_text()


def status(name: str) -> HostSeen:
    seen = host_seen(message(text(name)) or {}, by_https=True)
    assert seen is not None
    return seen


def attributes(*, phase: dict[str, Any] | None = None, heartbeat: dict[str, Any] | None = None) -> dict[str, str]:
    return {name: json.dumps(said) for name, said in (("phase", phase), ("heartbeat", heartbeat)) if said is not None}


def test_a_ready_host_is_read_whole() -> None:
    seen = status("status_busy")
    assert (seen.at, seen.boot_id, seen.phase, seen.by_https) == (AT, BOOT, "ready", True)
    assert (seen.host_version, seen.comfyui_ready, seen.comfyui_version) == ("0.1.0", True, "0.33.0")
    assert (seen.queue_running, seen.queue_pending, seen.jobs) == (1, 2, 3)
    assert (seen.percent, seen.node) == (42.5, "3")
    assert (seen.last_activity, seen.stops_at, seen.drain_until) == (AT, None, None)
    assert seen.steps[0] == Step(
        name="disk", state="done", seconds=2.0, expected_seconds=2.0, detail="Mounting the persistent disk"
    )


def test_a_host_may_tell_which_certificate_it_has() -> None:
    said = message(text("status_ready")) or {}
    told = {"mode": "letsencrypt", "trusted": True, "name": "comfy.example.com", "until": "2027-02-22T00:00:00Z"}
    seen = host_seen({**said, "tls": told}, by_https=True)
    assert seen is not None
    assert seen.certificate == Certificate(
        mode="letsencrypt", trusted=True, name="comfy.example.com", until=datetime(2027, 2, 22, tzinfo=UTC)
    )


@pytest.mark.parametrize("told", [None, "yes", {}, {"mode": "x"}, {"mode": "", "trusted": True}, {"trusted": "yes"}])
def test_a_host_that_tells_of_no_certificate_is_read_all_the_same(told: object) -> None:
    seen = host_seen({**(message(text("status_ready")) or {}), "tls": told}, by_https=True)
    assert seen is not None
    assert seen.certificate is None


def test_a_warming_host_tells_its_steps() -> None:
    seen = status("status_warming")
    assert not seen.comfyui_ready
    assert [step.state for step in seen.steps].count("running") == 1


def test_an_idle_host_tells_when_it_stops() -> None:
    seen = status("status_ready")
    assert seen.jobs == 0
    assert seen.stops_at is not None
    assert seen.stops_at > AT


def test_a_draining_host_tells_until_when_and_for_how_many() -> None:
    seen = status("status_draining")
    assert (seen.drain_until, seen.drain_remaining) == (AT + timedelta(minutes=20), 3)
    assert seen.warnings == ("The disk is nearly full.",)


def test_a_later_version_s_new_fields_do_no_harm() -> None:
    said = {**json.loads(text("status_ready")), "moon": {"phase": 3}, "phase": "dreaming"}
    seen = host_seen(said, by_https=True)
    assert seen is not None
    assert seen.phase == "dreaming"


@pytest.mark.parametrize("lacking", ["at", "boot_id", "phase"])
def test_without_its_time_boot_or_phase_it_is_not_our_host(lacking: str) -> None:
    said = {key: value for key, value in json.loads(text("status_ready")).items() if key != lacking}
    assert host_seen(said, by_https=True) is None


@pytest.mark.parametrize("at", ["2026-11-24T00:00:00", "yesterday", "", 5, None, "0001-01-01T00:00:00+23:59"])
def test_a_time_without_a_zone_or_sense_is_none(at: object) -> None:
    assert host_seen({"at": at, "boot_id": "b", "phase": "ready"}, by_https=True) is None


@pytest.mark.parametrize("value", [-1, 10**400, True, "3", 2.5, None, [], {}])
def test_a_count_that_makes_no_sense_is_unknown(value: object) -> None:
    said = {"at": AT.isoformat(), "boot_id": "b", "phase": "ready", "comfyui": {"queue_running": value}}
    seen = host_seen(said, by_https=True)
    assert seen is not None
    assert seen.queue_running is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
FIELDS = list(json.loads((FIXTURES / "status_busy.json").read_text()))


@given(st.dictionaries(st.sampled_from(FIELDS), JSON))
def test_any_value_in_any_field_is_survived(said: dict[str, Any]) -> None:
    seen = host_seen({**json.loads(text("status_busy")), **said}, by_https=True)
    if seen is not None:
        for words in (seen.phase, seen.boot_id, seen.node, *seen.warnings, *(step.detail for step in seen.steps)):
            assert words.isprintable()
            assert len(words) <= 200
        assert seen.jobs >= 0
        assert seen.at.tzinfo is UTC


@given(st.text() | st.binary())
def test_any_bytes_are_survived(raw: str | bytes) -> None:
    said = message(raw)
    assert said is None or isinstance(said, dict)


def test_nesting_without_end_and_numbers_without_end_are_survived() -> None:
    assert message("[" * 60_000) is None
    assert message('{"a":' * 10_000) is None
    assert message('{"a": ' + "9" * 60_000 + "}") is None


def test_guest_attributes_tell_a_boot_in_short() -> None:
    seen = from_guest_attributes({"phase": text("phase")}, AT)
    assert seen is not None
    assert (seen.boot_id, seen.phase, seen.by_https, seen.comfyui_ready) == (BOOT, "warming", False, False)
    assert [step.state for step in seen.steps] == ["done", "running", "waiting", "waiting"]
    assert seen.stops_at == AT + timedelta(minutes=44, seconds=30)


def test_a_newer_heartbeat_of_the_same_boot_counts_for_queue_and_stop() -> None:
    beat = {**json.loads(text("heartbeat")), "at": "2026-11-24T00:01:00Z", "stops_at": "2026-11-24T00:20:00Z"}
    seen = from_guest_attributes({"phase": text("phase"), **attributes(heartbeat=beat)}, AT + timedelta(minutes=1))
    assert seen is not None
    assert (seen.at, seen.phase, seen.jobs) == (AT + timedelta(minutes=1), "warming", 3)
    assert seen.stops_at == AT + timedelta(minutes=20)


def test_a_heartbeat_of_an_older_or_another_boot_does_not_mix_in() -> None:
    beat = json.loads(text("heartbeat"))
    older = from_guest_attributes(
        {"phase": text("phase"), **attributes(heartbeat={**beat, "at": "2026-11-23T23:59:00Z"})}, AT
    )
    assert older is not None
    assert (older.at, older.jobs) == (AT, 0)
    another = {**beat, "at": "2026-11-24T00:01:00Z", "boot_id": "another"}
    newer = from_guest_attributes({"phase": text("phase"), **attributes(heartbeat=another)}, AT + timedelta(minutes=1))
    assert newer is not None
    assert (newer.boot_id, newer.phase, newer.steps) == ("another", "", ())


def test_a_heartbeat_alone_is_a_sign_of_life() -> None:
    seen = from_guest_attributes({"heartbeat": text("heartbeat")}, AT)
    assert seen is not None
    assert (seen.boot_id, seen.phase, seen.queue_running, seen.queue_pending) == (BOOT, "", 1, 2)


def test_a_forged_time_in_the_future_is_no_sign_of_life() -> None:
    ahead = {**json.loads(text("phase")), "at": "2036-01-01T00:00:00Z"}
    assert from_guest_attributes(attributes(phase=ahead), AT) is None


def test_a_forged_stop_in_a_far_future_is_dropped() -> None:
    forged = {**json.loads(text("phase")), "activity": {"stops_at": "2036-01-01T00:00:00Z"}}
    seen = from_guest_attributes(attributes(phase=forged), AT)
    assert seen is not None
    assert seen.stops_at is None


@given(st.dictionaries(st.sampled_from(["phase", "heartbeat", "other"]), st.text() | JSON.map(json.dumps)))
def test_anything_in_guest_attributes_is_survived(values: dict[str, str]) -> None:
    seen = from_guest_attributes(values, AT)
    assert seen is None or not seen.by_https


@pytest.mark.parametrize("when", ["9998-01-01T00:00:00Z", "1970-01-01T00:00:00Z"])
def test_a_time_of_another_age_is_dropped_whoever_says_it(when: str) -> None:
    said = json.loads(text("status_ready"))
    said["activity"] = said["activity"] | {"stops_at": when, "at": when}
    seen = host_seen(said, by_https=True)
    assert seen is not None
    assert (seen.stops_at, seen.last_activity) == (None, None)
