"""The dead-man switch: powers off when the keeper is dead and nobody uses the machine, and stops no job."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vm_setup.host.deadman import HARD_CAP_SECONDS, Keeper, Watch, is_stale, latest_hold, should_power_off
from vm_setup.host.idle import LONGEST_HOLD_SECONDS, LONGEST_SILENCE_SECONDS

LIMIT = 1800.0
NEVER_RAN = Keeper()
WATCH = Watch(since=60)


def died(at: float = 5000, **more: Any) -> Keeper:
    return Keeper(**{"at": at, "used": at - 100, "limit": LIMIT, **more})


def off(keeper: Keeper, now: float, **more: Any) -> bool:
    usual: dict[str, Any] = {"jobs": 0, "answering": True, "held_until": None, "watch": WATCH}
    return should_power_off(keeper, now=now, **{**usual, **more})


def test_a_keeper_is_stale_after_five_minutes_without_a_round() -> None:
    assert not is_stale(died(), watch=WATCH, now=5299)
    assert is_stale(died(), watch=WATCH, now=5300)


def test_with_a_short_limit_it_is_stale_sooner_but_not_while_systemd_may_still_restart_it() -> None:
    assert not is_stale(died(limit=6), watch=WATCH, now=5059)
    assert is_stale(died(limit=6), watch=WATCH, now=5060)


def test_one_that_never_ran_is_stale_five_minutes_after_the_first_look() -> None:
    assert not is_stale(NEVER_RAN, watch=WATCH, now=359)
    assert is_stale(NEVER_RAN, watch=WATCH, now=360)


def test_it_waits_for_the_limit_and_ten_minutes_after_the_last_known_use() -> None:
    assert not off(died(), 4900 + LIMIT + 599)
    assert off(died(), 4900 + LIMIT + 600)


def test_without_a_keeper_the_machine_was_last_used_at_its_boot() -> None:
    assert not off(NEVER_RAN, 60 + LIMIT + 599)
    assert off(NEVER_RAN, 60 + LIMIT + 600)


def test_it_stops_no_job_and_waits_again_after_the_last_one() -> None:
    assert not off(died(), 40000, jobs=1)
    seen = Watch(since=60, busy=40000)
    assert not off(died(), 40000 + LIMIT, watch=seen)
    assert off(died(), 40000 + LIMIT + 600, watch=seen)


def test_a_comfyui_that_hangs_with_jobs_is_given_an_hour_and_one_that_is_gone_is_not() -> None:
    keeper, end = died(busy=5000, used=5000), 5000 + LONGEST_SILENCE_SECONDS
    assert not off(keeper, end - 1, jobs=None)
    assert off(keeper, end, jobs=None)
    assert off(keeper, end - 1, jobs=None, answering=False)


def test_a_stuck_job_keeps_it_on_for_a_day_at_most() -> None:
    assert not off(died(), 5000 + HARD_CAP_SECONDS - 1, jobs=1)
    assert off(died(), 5000 + HARD_CAP_SECONDS, jobs=1)


def test_holds_are_kept_the_keepers_own_and_those_of_others() -> None:
    assert not off(died(held_until=20000), 19999)
    assert not off(died(), 19999, held_until=20000)
    assert off(died(held_until=20000), 20000, held_until=20000)


def test_a_hold_of_more_than_a_day_is_none() -> None:
    assert latest_hold({"a": 500, "b": 300, "c": "x", "d": LONGEST_HOLD_SECONDS + 101}, now=100) == 500
    assert latest_hold({}, now=0) is None


def test_it_reads_what_the_keeper_wrote() -> None:
    idle = {"used": 4000, "seen": 3900, "busy": True, "holds": {"extended": 9000}}
    read = Keeper.from_json({"at": 5000, "limit": 60, "idle": idle}, now=5001)
    assert read == Keeper(at=5000, used=4000, busy=3900, limit=60, held_until=9000)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["at", "used", "idle", "seen", "busy", "holds", "limit", "since"]), inner)
    ),
    max_leaves=12,
)


@given(saved=JSON, watched=JSON)
def test_whatever_is_in_the_files_an_unused_machine_is_off_within_eight_days(saved: object, watched: object) -> None:
    keeper, watch = Keeper.from_json(saved, now=1000), Watch.from_json(watched, now=1000)
    end = 1000 + 8 * 86400.0
    assert is_stale(keeper, watch=watch, now=end)
    assert off(keeper, end, watch=watch, jobs=None)


@pytest.mark.parametrize("saved", [None, {"since": 2000}, {"since": "x"}, []])
def test_a_spoilt_memory_is_a_first_look(saved: object) -> None:
    assert Watch.from_json(saved, now=1000) == Watch(since=1000)


def test_its_memory_is_read_as_it_was_written() -> None:
    watch = Watch(since=10, busy=20, powered_off=30)
    assert Watch.from_json(watch.to_json(), now=40) == watch
