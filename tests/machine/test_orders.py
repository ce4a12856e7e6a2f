"""Which orders wait for the host in metadata, and which are not said twice."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from comfyweb.machine import orders
from comfyweb.machine.orders import AT_MOST, KEEP_ALIVE_EVERY, REVOKES_AT_MOST, Order, Waiting

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
VALID = timedelta(minutes=9)
DRAIN = orders.drain(timedelta(minutes=30), stay=False)
ORDER = st.one_of(
    st.just(orders.keep_alive()),
    st.builds(orders.extend, st.sampled_from([1.0, 30.0])),
    st.builds(orders.drain, st.timedeltas(timedelta(seconds=-5), timedelta(hours=1)), stay=st.booleans()),
    st.just(orders.cancel_drain()),
    st.builds(orders.revoke, st.sampled_from([f"session-{number}" for number in range(30)])),
)
# What happens to the list: an order is put, all that wait is taken, or so many seconds pass.
STEP = ORDER | st.just("taken") | st.integers(1, 600)


def put(waiting: tuple[Waiting, ...], order: Order, now: datetime = NOW) -> tuple[Waiting, ...]:
    """Do what `control/orders.py` does, but for signing."""
    waiting = orders.live(waiting, now)
    if orders.is_told(waiting, order, now) or not orders.has_room(waiting, order):
        return waiting
    jti = f"jti-{now.timestamp()}-{len(waiting)}"
    return orders.joined(waiting, Waiting(order=order, jti=jti, token=jti, since=now, until=now + VALID))


def said(waiting: tuple[Waiting, ...]) -> list[str]:
    return [f"{one.order.method} {one.order.about}" for one in waiting if not one.taken]


def all_taken(waiting: tuple[Waiting, ...]) -> tuple[Waiting, ...]:
    return orders.taken(waiting, tuple(one.jti for one in waiting))


def test_a_drain_is_said_once_until_it_is_called_off_and_the_last_word_counts() -> None:
    waiting = put(put((), DRAIN), orders.drain(timedelta(minutes=29), stay=False))
    assert said(waiting) == ["POST drain"]
    waiting = put(waiting, orders.cancel_drain())
    assert said(waiting) == ["DELETE drain"]
    assert said(put(waiting, DRAIN)) == ["POST drain"]


def test_what_the_host_has_taken_is_not_said_again() -> None:
    waiting = all_taken(put(put((), DRAIN), orders.revoke("s")))
    assert said(put(put(waiting, DRAIN), orders.revoke("s"))) == []
    assert said(put(waiting, orders.cancel_drain())) == ["DELETE drain"]


def test_that_a_session_was_revoked_holds_as_long_as_the_host_does() -> None:
    later = NOW + timedelta(hours=3)
    assert said(put(all_taken(put((), orders.revoke("s"))), orders.revoke("s"), later)) == []
    assert said(put(put((), orders.revoke("s")), orders.revoke("s"), later)) == ["POST revoke s"]


def test_what_was_not_taken_in_time_is_said_anew_with_the_time_that_is_left() -> None:
    waiting = put((), DRAIN)
    later = put(waiting, orders.drain(timedelta(minutes=20), stay=False), NOW + VALID)
    assert [one.order.body["deadline_seconds"] for one in later] == [1200]


def test_each_extension_counts_and_keep_alive_seldom() -> None:
    assert said(put(put((), orders.extend(30)), orders.extend(30))) == ["POST extend"] * 2
    once = put((), orders.keep_alive())
    assert said(put(once, orders.keep_alive(), NOW + timedelta(minutes=5))) == ["POST keep-alive"]
    soon, late = NOW + KEEP_ALIVE_EVERY / 2, NOW + KEEP_ALIVE_EVERY
    assert said(put(all_taken(once), orders.keep_alive(), soon)) == []
    assert said(put(all_taken(once), orders.keep_alive(), late)) == ["POST keep-alive"]


def test_many_logouts_leave_room_for_who_wants_something() -> None:
    waiting: tuple[Waiting, ...] = ()
    for number in range(30):
        waiting = put(waiting, orders.revoke(f"session-{number}"))
    assert len(said(waiting)) == REVOKES_AT_MOST
    assert "POST drain" in said(put(waiting, DRAIN))
    assert len(said(put(all_taken(waiting), orders.revoke("session-29")))) == 1


@given(st.lists(STEP, max_size=60))
def test_there_are_never_more_than_the_host_takes_nor_two_that_contradict_each_other(
    steps: list[Order | str | int],
) -> None:
    waiting, now = (), NOW
    for step in steps:
        if isinstance(step, Order):
            waiting = put(waiting, step, now)
        elif isinstance(step, int):
            now += timedelta(seconds=step)
            waiting = orders.live(waiting, now)
        else:
            waiting = all_taken(waiting)
        told = [one.order.about for one in waiting if not one.order.added]
        assert len(said(waiting)) <= AT_MOST
        assert len(told) == len(set(told))
        assert all(now < one.until for one in waiting if not one.taken), "none is sent that the host would refuse"
