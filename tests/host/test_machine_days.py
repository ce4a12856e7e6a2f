"""Days of machines that people use: none is stopped under anybody, and none stays on for nothing. `bench` has more."""

import pytest

from tests.host.machine_days import LATE_SECONDS, simulate
from vm_setup.host.hang import Hang
from vm_setup.host.idle import Idle


def test_no_machine_is_stopped_wrongly_and_every_idle_one_in_time() -> None:
    tally = simulate(5, seed=1)
    assert tally.wrong == []
    assert tally.late == []
    assert tally.latest <= LATE_SECONDS
    assert tally.stops - tally.excused > 50


def test_a_clock_that_forgets_jobs_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(self: Idle, jobs: int | None, *, now: float, alive: bool = False) -> Idle:
        return self

    monkeypatch.setattr(Idle, "see_queue", forgetful)
    assert simulate(2, seed=1).wrong


def test_a_keeper_that_takes_silence_for_use_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def believing(self: Hang, *, now: float) -> bool:
        return True

    monkeypatch.setattr(Hang, "seems_at_work", believing)
    assert simulate(5, seed=1).late
