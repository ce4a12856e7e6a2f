"""When ComfyUI is restarted because it hangs: after minutes of silence, and never while it may be at work."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vm_setup.host.hang import AGAIN_SECONDS, SILENT_SECONDS, SILENT_WITH_JOBS_SECONDS, STARTING_SECONDS, Hang


def answering(process: int | None = 7) -> Hang:
    return Hang().see(process, answers=True, card_percent=0, now=0)


def silent(hang: Hang, *, since: float, card_percent: float | None = 0) -> Hang:
    return hang.see(7, answers=False, card_percent=card_percent, now=since)


def restarts(hang: Hang, now: float, *, jobs: bool = False, card_seen: bool = True) -> bool:
    return hang.should_restart(jobs=jobs, card_seen=card_seen, now=now)


def test_three_minutes_of_silence_without_a_job_are_a_hang() -> None:
    hang = silent(answering(), since=100)
    assert not restarts(hang, 100 + SILENT_SECONDS - 1)
    assert restarts(hang, 100 + SILENT_SECONDS)


def test_an_answer_in_between_begins_the_silence_anew() -> None:
    hang = silent(answering(), since=100).see(7, answers=True, card_percent=0, now=200)
    assert not restarts(silent(hang, since=201), 300)


def test_a_process_that_does_not_run_does_not_hang() -> None:
    hang = answering().see(None, answers=False, card_percent=0, now=100)
    assert not restarts(hang, 1e6)


def test_a_new_process_is_given_long_to_start() -> None:
    hang = answering(process=6).see(7, answers=False, card_percent=None, now=100)
    assert not restarts(hang, 100 + STARTING_SECONDS - 1)
    assert restarts(hang, 100 + STARTING_SECONDS)


def test_an_answer_from_before_its_process_was_seen_counts() -> None:
    """systemd is asked for the process every ten seconds, ComfyUI every two."""
    hang = answering(process=None).see(None, answers=False, card_percent=0, now=95)
    hang = silent(hang, since=100)
    assert not restarts(hang, 100 + SILENT_SECONDS - 1)
    assert restarts(hang, 100 + SILENT_SECONDS)


def test_one_that_listens_no_more_and_does_not_end_hangs_too() -> None:
    hang = answering().see(7, answers=False, gone=True, card_percent=0, now=100)
    for moment in range(101, 280):
        hang = hang.see(7, answers=False, gone=True, card_percent=0, now=moment)
    assert restarts(hang, 100 + SILENT_SECONDS)


def test_an_answer_of_one_that_has_ended_does_not() -> None:
    hang = answering(process=None).see(None, answers=False, gone=True, card_percent=0, now=95)
    hang = silent(hang, since=100)
    assert not restarts(hang, 100 + STARTING_SECONDS - 1)


def test_with_jobs_in_its_queue_it_is_given_longer() -> None:
    hang = silent(answering(), since=100)
    assert not restarts(hang, 100 + SILENT_WITH_JOBS_SECONDS - 1, jobs=True)
    assert restarts(hang, 100 + SILENT_WITH_JOBS_SECONDS, jobs=True)


@pytest.mark.parametrize("jobs", [True, False])
def test_while_the_card_works_it_does_not_hang(*, jobs: bool) -> None:
    hang = silent(answering(), since=100)
    for moment in range(100, 20000, 60):
        hang = silent(hang, since=moment, card_percent=90)
        assert not restarts(hang, moment, jobs=jobs)


def test_with_jobs_and_a_card_that_nobody_can_read_it_is_never_restarted() -> None:
    assert not restarts(silent(answering(), since=100, card_percent=None), 1e6, jobs=True, card_seen=False)


def test_it_is_restarted_at_most_every_ten_minutes() -> None:
    hang = silent(answering().restart(now=100), since=101)
    hang = silent(hang.see(7, answers=True, card_percent=0, now=102), since=103)
    assert not restarts(hang, 100 + AGAIN_SECONDS - 1)
    assert restarts(hang, 100 + AGAIN_SECONDS)


def test_a_silent_process_seems_at_work_while_the_card_works_for_an_hour_at_most() -> None:
    hang = silent(answering(), since=100, card_percent=0)
    assert not hang.seems_at_work(now=100)
    hang = silent(hang, since=110, card_percent=60)
    assert hang.seems_at_work(now=169)
    assert not hang.seems_at_work(now=170)
    assert not silent(hang, since=3700, card_percent=60).seems_at_work(now=3700)
    assert not hang.see(7, answers=True, card_percent=60, now=111).seems_at_work(now=111)


def test_work_that_ended_before_the_silence_is_none() -> None:
    hang = answering().see(7, answers=True, card_percent=90, now=99)
    assert not silent(hang, since=100, card_percent=0).seems_at_work(now=101)


LOOKS = st.lists(st.tuples(st.sampled_from([None, 7, 8]), st.booleans(), st.none() | st.floats(0, 100)), max_size=40)


@given(looks=LOOKS, jobs=st.booleans(), card_seen=st.booleans())
def test_what_answered_within_three_minutes_is_never_restarted(
    looks: list[tuple[int | None, bool, float | None]], *, jobs: bool, card_seen: bool
) -> None:
    hang, answered = Hang(), 0.0
    for number, (process, answers, percent) in enumerate(looks):
        now = number * 60.0
        hang = hang.see(process, answers=answers, card_percent=percent, now=now)
        answered = now if answers else answered
        if now - answered < SILENT_SECONDS or process is None:
            assert not hang.should_restart(jobs=jobs, card_seen=card_seen, now=now)
