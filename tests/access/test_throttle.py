"""Guessing is refused per address and only slowed in all."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyweb.access.throttle import (
    ATTEMPTS,
    DELAY_MAX_SECONDS,
    FREE_IN_ALL,
    KNOWN_ADDRESSES,
    Throttle,
    TooManyAttempts,
)
from tests.access.conftest import Clock


def use_up(throttle: Throttle, address: str) -> None:
    for _ in range(ATTEMPTS):
        throttle.begin(address)


def test_an_address_is_refused_after_ten_attempts_until_the_first_is_ten_minutes_old(clock: Clock) -> None:
    throttle = Throttle(now=clock)
    throttle.begin("203.0.113.7")
    clock.forward(minutes=4)
    for _ in range(ATTEMPTS - 1):
        throttle.begin("203.0.113.7")
    with pytest.raises(TooManyAttempts) as caught:
        throttle.begin("203.0.113.7")
    assert caught.value.retry_after == 6 * 60
    clock.forward(minutes=6)
    throttle.begin("203.0.113.7")
    with pytest.raises(TooManyAttempts):
        throttle.begin("203.0.113.7")


def test_being_refused_does_not_prolong_the_refusal(clock: Clock) -> None:
    throttle = Throttle(now=clock)
    use_up(throttle, "203.0.113.7")
    for _ in range(9):
        clock.forward(minutes=1)
        with pytest.raises(TooManyAttempts):
            throttle.begin("203.0.113.7")
    clock.forward(minutes=1)
    assert throttle.begin("203.0.113.7").delay == 0


def test_the_wait_is_whole_seconds_and_never_zero() -> None:
    assert [TooManyAttempts(seconds).retry_after for seconds in (0.0, 0.2, 1.0, 1.1)] == [1, 1, 1, 2]


def test_one_address_does_not_shut_another_out(clock: Clock) -> None:
    throttle = Throttle(now=clock)
    use_up(throttle, "203.0.113.7")
    assert throttle.begin("203.0.113.8").delay == 0


def test_a_success_gives_a_clean_sheet(clock: Clock) -> None:
    throttle = Throttle(now=clock)
    use_up(throttle, "203.0.113.7")
    throttle.succeeded("203.0.113.7")
    assert throttle.begin("203.0.113.7").delay == 0


def test_many_addresses_together_are_delayed_more_and_more_but_never_refused(clock: Clock) -> None:
    throttle = Throttle(now=clock)
    delays = [throttle.begin(str(ipaddress.ip_address("198.51.100.0") + n)).delay for n in range(1000)]
    assert delays[:FREE_IN_ALL] == [0] * FREE_IN_ALL
    assert delays == sorted(delays)
    assert 0 < delays[FREE_IN_ALL] < DELAY_MAX_SECONDS == delays[-1]
    clock.forward(minutes=10)
    assert throttle.begin("203.0.113.7").delay == 0


@given(st.lists(st.ip_addresses().map(str) | st.text(), max_size=60))
def test_it_remembers_no_more_addresses_than_it_is_told(addresses: list[str]) -> None:
    throttle = Throttle(now=Clock(), addresses=5)
    for address in addresses:
        try:
            throttle.begin(address)
        except TooManyAttempts:
            continue
    assert len(throttle._by_address) <= 5


def test_the_address_unheard_of_for_longest_is_forgotten_first(clock: Clock) -> None:
    throttle = Throttle(now=clock, addresses=2)
    use_up(throttle, "203.0.113.1")
    throttle.begin("203.0.113.2")
    with pytest.raises(TooManyAttempts):
        throttle.begin("203.0.113.1")
    throttle.begin("203.0.113.3")
    with pytest.raises(TooManyAttempts):
        throttle.begin("203.0.113.1")


def test_a_hundred_wrong_passwords_from_one_address_are_ten_guesses_in_ten_minutes(clock: Clock) -> None:
    """The system before comfyweb looked at a hundred in 0.2 s."""
    throttle = Throttle(now=clock)
    looked_at: list[int] = []
    for second in range(1200):
        for _ in range(100):
            try:
                throttle.begin("203.0.113.7")
            except TooManyAttempts:
                continue
            looked_at.append(second)
        clock.forward(seconds=1)
    assert looked_at == [0] * ATTEMPTS + [600] * ATTEMPTS


def test_who_comes_from_where_nobody_tried_goes_before_a_flood(clock: Clock) -> None:
    throttle = Throttle(now=clock)
    flood = [throttle.begin(f"198.51.100.{n}").rank for n in range(5)]
    flood += [throttle.begin(f"2001:db8:7:{n}::1").rank for n in range(5)]
    assert flood == [0, 1, 2, 3, 4] * 2
    assert throttle.begin("203.0.113.7").rank == 0


def test_who_has_known_the_password_goes_first_and_at_once(clock: Clock) -> None:
    throttle = Throttle(now=clock)
    throttle.begin("203.0.113.7")
    throttle.succeeded("203.0.113.7")
    flood = [throttle.begin(f"198.{n}.100.{m}") for n in range(16) for m in range(9)]
    assert flood[-1].delay == DELAY_MAX_SECONDS
    turn = throttle.begin("203.0.113.7")
    assert turn.delay == 0
    assert turn.rank < min(each.rank for each in flood)


def test_of_those_who_have_known_it_the_newest_thousand_are_remembered(clock: Clock) -> None:
    throttle = Throttle(now=clock)
    for n in range(KNOWN_ADDRESSES + 5):
        throttle.succeeded(f"198.51.{n // 250}.{n % 250}")
    assert len(throttle._known) == KNOWN_ADDRESSES
    assert "198.51.0.4" not in throttle._known


def test_a_clock_that_is_set_back_does_not_prolong_a_refusal(clock: Clock) -> None:
    throttle = Throttle(now=clock)
    clock.forward(minutes=24 * 60)
    use_up(throttle, "203.0.113.7")
    clock.forward(minutes=-24 * 60)
    assert throttle.begin("203.0.113.7").delay == 0
