"""Guessing is refused per address and only slowed in all."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyweb.access.throttle import ATTEMPTS, DELAY_MAX_SECONDS, FREE_IN_ALL, Throttle, TooManyAttempts, counted_as
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
    assert throttle.begin("203.0.113.7") == 0


def test_the_wait_is_whole_seconds_and_never_zero() -> None:
    assert [TooManyAttempts(seconds).retry_after for seconds in (0.0, 0.2, 1.0, 1.1)] == [1, 1, 1, 2]


def test_one_address_does_not_shut_another_out(clock: Clock) -> None:
    throttle = Throttle(now=clock)
    use_up(throttle, "203.0.113.7")
    assert throttle.begin("203.0.113.8") == 0


def test_a_success_gives_a_clean_sheet(clock: Clock) -> None:
    throttle = Throttle(now=clock)
    use_up(throttle, "203.0.113.7")
    throttle.succeeded("203.0.113.7")
    assert throttle.begin("203.0.113.7") == 0


def test_many_addresses_together_are_delayed_more_and_more_but_never_refused(clock: Clock) -> None:
    throttle = Throttle(now=clock)
    delays = [throttle.begin(str(ipaddress.ip_address("198.51.100.0") + n)) for n in range(1000)]
    assert delays[:FREE_IN_ALL] == [0] * FREE_IN_ALL
    assert delays == sorted(delays)
    assert 0 < delays[FREE_IN_ALL] < DELAY_MAX_SECONDS == delays[-1]
    clock.forward(minutes=10)
    assert throttle.begin("203.0.113.7") == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:203.0.113.7", "203.0.113.7", True),
        ("203.0.113.7", "203.0.113.8", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("unix socket", "", True),
    ],
)
def test_ipv6_counts_by_its_64_and_the_unreadable_as_one(one: str, other: str, same: bool) -> None:  # noqa: FBT001 - a table's column
    assert (counted_as(one) == counted_as(other)) is same


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
