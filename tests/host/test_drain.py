"""The gentle stop: ends with the last job, or at its deadline."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vm_setup.host.drain import Drain, refusal, refuses


def test_with_nothing_running_or_waiting_it_is_over_at_once() -> None:
    assert Drain.start(1800, now=100).should_power_off(0, now=100)


def test_it_waits_for_the_last_job() -> None:
    drain = Drain.start(1800, now=100)
    assert not drain.should_power_off(3, now=1000)
    assert drain.should_power_off(0, now=1001)


def test_its_deadline_ends_it_whatever_still_runs() -> None:
    drain = Drain.start(1800, now=100)
    assert not drain.should_power_off(1, now=1899)
    assert drain.should_power_off(1, now=1900)


def test_it_waits_for_a_comfyui_that_does_not_answer_until_the_deadline() -> None:
    drain = Drain.start(1800, now=100)
    assert not drain.should_power_off(None, now=1899)
    assert drain.should_power_off(None, now=1900)


@pytest.mark.parametrize(
    ("method", "path", "refused"),
    [
        ("POST", "/prompt", True),
        ("POST", "/api/prompt", True),
        ("GET", "/prompt", False),
        ("POST", "/api/interrupt", False),
        ("POST", "/api/queue", False),
    ],
)
def test_only_new_prompts_are_refused(method: str, path: str, *, refused: bool) -> None:
    assert refuses(method, path) is refused


def test_at_the_end_of_a_session_the_machine_stays_until_the_limit_although_nothing_runs() -> None:
    drain = Drain.start(600, now=100, stay=True)
    assert not drain.should_power_off(0, now=699)
    assert drain.should_power_off(0, now=700)
    assert drain.should_power_off(2, now=700)


def test_a_refusal_does_not_offer_what_can_not_be_done() -> None:
    assert "Press Start" in str(refusal())
    assert "Press Start" not in str(refusal(stay=True))


def test_the_refusal_has_words_in_the_shape_of_comfyuis_own_errors() -> None:
    body = refusal()
    assert body["node_errors"] == {}
    assert "about to stop" in str(body["error"])


def test_a_restart_of_the_process_ends_no_drain() -> None:
    drain = Drain.start(600, now=100, stay=True)
    assert Drain.from_json(json.loads(json.dumps(drain.to_json()))) == drain


@pytest.mark.parametrize("saved", [None, [], {}, {"until": "soon"}, {"until": float("nan")}])
def test_a_spoilt_memory_is_no_drain(saved: object) -> None:
    assert Drain.from_json(saved) is None


@given(seconds=st.floats(0, 86400), now=st.floats(0, 1e6), jobs=st.none() | st.integers(0, 9), stay=st.booleans())
def test_every_drain_ends(seconds: float, now: float, jobs: int | None, *, stay: bool) -> None:
    assert Drain.start(seconds, now=now, stay=stay).should_power_off(jobs, now=now + seconds)
