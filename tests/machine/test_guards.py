"""When comfyweb ends a run by itself: how silence is measured, and what is never promised."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from comfyweb.machine.guards import BOOT_GRACE, due, ending, guarded, latest_end, silence
from comfyweb.machine.model import MachineSeen, Observation, Policy, Run

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
POLICY = Policy(
    metadata={},
    running_metadata=frozenset(),
    max_run=timedelta(hours=10, minutes=15),
    session_cap=timedelta(hours=10),
    drain=timedelta(minutes=30),
)
RUN = Run(id=1, started_at=NOW - timedelta(hours=1), asked_at=NOW - timedelta(hours=1))
SEEN = Observation(machine=MachineSeen(at=NOW, status="RUNNING", zone="z"), run=RUN)
SPANS = st.timedeltas(min_value=timedelta(), max_value=timedelta(days=2))


def test_one_word_of_the_host_ends_its_silence() -> None:
    long = timedelta(minutes=14)
    assert silence(long, timedelta(seconds=5), SEEN, BOOT_GRACE, heard=True) == timedelta()
    assert silence(long, timedelta(seconds=5), SEEN, BOOT_GRACE, heard=False) == timedelta(minutes=14, seconds=5)


def test_a_boot_may_take_its_time_before_silence_counts() -> None:
    assert silence(timedelta(), timedelta(seconds=5), SEEN, timedelta(minutes=61), heard=False) == timedelta()


@given(SPANS)
def test_whoever_did_not_listen_heard_nothing(stalled: timedelta) -> None:
    """A process that was stopped for hours must not stop the machine for a silence that was its own."""
    counted = silence(timedelta(), stalled, SEEN, BOOT_GRACE, heard=False)
    assert counted <= timedelta(minutes=1)
    assert due(Observation(machine=SEEN.machine, run=RUN, silence=counted), POLICY, NOW) is None


@given(st.builds(Run, id=st.just(1), started_at=SPANS.map(lambda ago: NOW - ago)), SPANS)
def test_a_run_that_is_not_ours_is_never_ended(run: Run, silent: timedelta) -> None:
    seen = Observation(machine=SEEN.machine, run=run, silence=silent)
    assert not guarded(run)
    assert ending(seen, POLICY, NOW) is None
    assert due(seen, POLICY, NOW) is None
    assert latest_end(seen, POLICY.session_cap) is None


@given(SPANS, SPANS)
def test_nothing_is_ended_that_was_not_announced(age: timedelta, silent: timedelta) -> None:
    run = Run(id=1, started_at=NOW - age, asked_at=NOW - age)
    seen = Observation(machine=SEEN.machine, run=run, silence=silent)
    if due(seen, POLICY, NOW) is not None:
        assert ending(seen, POLICY, NOW) is not None


def test_the_earlier_limit_ends_a_run_in_any_case() -> None:
    google = NOW + timedelta(hours=2)
    limited = MachineSeen(at=NOW, status="RUNNING", zone="z", terminates_at=google)
    assert latest_end(Observation(machine=limited, run=RUN), POLICY.session_cap) == google
    assert latest_end(SEEN, POLICY.session_cap) == RUN.started_at + POLICY.session_cap
