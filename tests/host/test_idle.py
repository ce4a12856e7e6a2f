"""When the machine may power off: after the limit without use, and never while a job runs or a hold is live."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vm_setup.host.idle import (
    EXTENSION,
    LONGEST_HOLD_SECONDS,
    LONGEST_SILENCE_SECONDS,
    Idle,
    activity_of,
    limit_seconds,
)

LIMIT = 1800.0


def booted() -> Idle:
    return Idle(limit=LIMIT, used=0)


@pytest.mark.parametrize(("text", "seconds"), [(None, 1800), ("", 1800), ("30", 1800), ("0.5", 30), (" 45 ", 2700)])
def test_the_limit_is_in_minutes_and_may_be_a_fraction(text: str | None, seconds: float) -> None:
    assert limit_seconds(text) == (seconds, "")


@pytest.mark.parametrize("text", ["0", "-5", "nan", "inf", "1e9", "thirty", "30m", 30])
def test_a_limit_that_makes_no_sense_is_the_default_with_a_warning(text: object) -> None:
    seconds, warning = limit_seconds(text)
    assert seconds == 1800
    assert "comfyweb-idle-minutes" in warning


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("POST", "/prompt", "prompt"),
        ("POST", "/api/prompt", "prompt"),
        ("POST", "/upload/image", "upload"),
        ("POST", "/api/upload/mask", "upload"),
        ("POST", "/_host/activity", "input"),
        ("POST", "/_host/keep-alive", "keep-alive"),
        ("GET", "/prompt", None),
        ("GET", "/api/jobs", None),
        ("GET", "/ws", None),
        ("POST", "/api/interrupt", None),
        ("POST", "/api/promptly", None),
    ],
)
def test_only_real_use_counts(method: str, path: str, kind: str | None) -> None:
    assert activity_of(method, path) == kind


def test_a_machine_that_nobody_ever_used_counts_from_its_boot() -> None:
    assert booted().stops_at(10) == LIMIT
    assert not booted().should_power_off(LIMIT - 1)
    assert booted().should_power_off(LIMIT)


def test_use_restarts_the_clock() -> None:
    clock = booted().note("input", now=1700)
    assert (clock.kind, clock.stops_at(1700)) == ("input", 3500)


def test_while_a_job_runs_or_waits_no_stop_is_foreseen() -> None:
    clock = booted().see_queue(2, now=100)
    assert clock.stops_at(100) is None
    assert not clock.should_power_off(1e9)


def test_the_clock_restarts_when_the_last_job_is_over() -> None:
    clock = booted().see_queue(1, now=100).see_queue(0, now=5000)
    assert (clock.kind, clock.stops_at(5000)) == ("job", 5000 + LIMIT)


def test_a_queue_that_stays_empty_is_no_use() -> None:
    assert booted().see_queue(0, now=1000).stops_at(1000) == LIMIT


def test_a_comfyui_that_does_not_answer_keeps_nothing_on() -> None:
    clock = booted().see_queue(1, now=100).see_queue(None, now=5000)
    assert clock.stops_at(5000) == 100 + LIMIT
    assert clock.should_power_off(5000)


def test_jobs_of_a_process_that_lives_but_is_silent_are_taken_to_go_on_for_an_hour() -> None:
    clock, end = booted().see_queue(1, now=100), 100 + LONGEST_SILENCE_SECONDS
    for moment in (102, 2000, end - 1):
        clock = clock.see_queue(None, now=moment, alive=True)
        assert not clock.should_power_off(moment)
    assert clock.see_queue(None, now=end, alive=True).should_power_off(end)


def test_a_silent_process_that_had_no_jobs_keeps_nothing_on() -> None:
    clock = booted().see_queue(0, now=100).see_queue(None, now=1800, alive=True)
    assert clock.should_power_off(1800)


def test_the_clock_restarts_when_a_silent_process_says_that_its_jobs_are_over() -> None:
    clock = booted().see_queue(1, now=100).see_queue(None, now=2000, alive=True).see_queue(0, now=3000)
    assert clock.stops_at(3000) == 3000 + LIMIT


def test_a_silence_goes_on_when_the_process_that_saw_it_restarts() -> None:
    saved = json.loads(json.dumps(booted().see_queue(1, now=100).to_json()))
    clock = Idle.from_json(saved, limit=LIMIT, now=2000).see_queue(None, now=2000, alive=True)
    assert not clock.should_power_off(2000)
    end = 100 + LONGEST_SILENCE_SECONDS
    assert clock.see_queue(None, now=end, alive=True).should_power_off(end)


def test_a_hold_keeps_the_machine_on_until_its_end_and_no_longer() -> None:
    clock = booted().hold("starting", until=2700, now=0)
    assert not clock.should_power_off(2699)
    assert clock.should_power_off(2700)
    assert clock.live_holds(2700) == {}


def test_a_released_hold_holds_nothing() -> None:
    assert booted().hold("starting", until=2700, now=0).release("starting").stops_at(0) == LIMIT


def test_no_hold_is_longer_than_a_day() -> None:
    assert booted().hold("install", until=1e12, now=0).stops_at(0) == LONGEST_HOLD_SECONDS


def test_an_extension_comes_on_top_of_what_was_foreseen() -> None:
    clock = booted().extend(30, now=1000)
    assert clock.stops_at(1000) == LIMIT + 1800
    assert clock.extend(15, now=1000).stops_at(1000) == LIMIT + 2700
    assert list(clock.live_holds(1000)) == [EXTENSION]


def test_an_extension_while_busy_counts_as_if_the_jobs_ended_now() -> None:
    clock = booted().see_queue(1, now=5000).extend(30, now=5000).see_queue(0, now=5001)
    assert clock.stops_at(5001) == 5000 + LIMIT + 1800


def test_use_never_shortens_an_extension() -> None:
    assert booted().extend(60, now=0).note("input", now=10).stops_at(10) == LIMIT + 3600


def test_a_restart_of_the_process_is_no_use_of_the_machine() -> None:
    clock = booted().note("input", now=100).hold("install", until=900, now=100)
    saved = json.loads(json.dumps(clock.to_json()))
    assert Idle.from_json(saved, limit=LIMIT, now=500) == clock
    assert Idle.from_json(saved, limit=LIMIT, now=1000).live_holds(1000) == {}


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["used", "kind", "busy", "seen", "holds"]), inner)
    ),
    max_leaves=8,
)


@given(saved=JSON)
def test_a_spoilt_memory_is_a_boot_and_never_keeps_the_machine_for_ever(saved: object) -> None:
    clock = Idle.from_json(saved, limit=LIMIT, now=500).see_queue(None, now=500)
    assert clock.should_power_off(500 + LONGEST_HOLD_SECONDS + LIMIT)


EVENTS = st.lists(
    st.tuples(
        st.floats(0, 5000),
        st.one_of(
            st.tuples(st.just("queue"), st.none() | st.integers(0, 3)),
            st.tuples(st.just("note"), st.just(0)),
            st.tuples(st.just("extend"), st.integers(1, 600)),
            st.tuples(st.just("hold"), st.integers(0, 9000)),
        ),
    ),
    max_size=30,
)


def after(clock: Idle, event: tuple[str, int | None], now: float) -> Idle:
    match event:
        case "queue", jobs:
            return clock.see_queue(jobs, now=now)
        case "extend", minutes:
            return clock.extend(minutes or 1, now=now)
        case "hold", seconds:
            return clock.hold("h", until=now + (seconds or 0), now=now)
        case _:
            return clock.note("input", now=now)


@given(events=EVENTS, limit=st.floats(1, 7200))
def test_it_never_powers_off_while_a_job_runs_or_a_hold_is_live(
    events: list[tuple[float, tuple[str, int | None]]], limit: float
) -> None:
    clock, now, jobs = Idle(limit=limit, used=0), 0.0, 0
    for passed, event in events:
        now += passed
        clock = after(clock, event, now)
        jobs = (event[1] or 0) if event[0] == "queue" else jobs
        if jobs or clock.live_holds(now) or now < clock.used + limit:
            assert not clock.should_power_off(now)


@given(events=EVENTS, limit=st.floats(1, 7200))
def test_it_always_powers_off_in_the_end_when_nothing_more_happens(
    events: list[tuple[float, tuple[str, int | None]]], limit: float
) -> None:
    clock, now = Idle(limit=limit, used=0), 0.0
    for passed, event in events:
        now += passed
        clock = after(clock, event, now)
    clock = clock.see_queue(0, now=now)
    stops_at = clock.stops_at(now)
    assert stops_at is not None
    assert stops_at <= now + limit + LONGEST_HOLD_SECONDS
    end = max(now, stops_at)
    assert clock.see_queue(0, now=end).should_power_off(end)
