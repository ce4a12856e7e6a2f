"""Which address a request comes from, whatever it claims, and what an address counts as."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyweb.access.addresses import address_of, counted_as, neighbourhood


def _scope(*headers: tuple[str, str], client: tuple[str, int] | None = ("192.0.2.1", 5)) -> dict[str, Any]:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    return {"type": "http", "headers": raw, "client": client}


@pytest.mark.parametrize(
    ("hops", "forwarded", "address"),
    [
        (0, ["198.51.100.7"], "192.0.2.1"),
        (1, [], "192.0.2.1"),
        (1, ["198.51.100.7"], "198.51.100.7"),
        (1, ["6.6.6.6, 198.51.100.7"], "198.51.100.7"),
        (2, ["6.6.6.6, 198.51.100.7, 10.0.0.1"], "198.51.100.7"),
        (2, ["6.6.6.6", "198.51.100.7,10.0.0.1"], "198.51.100.7"),
        (2, ["198.51.100.7"], "192.0.2.1"),
        (1, ["2001:DB8::1"], "2001:db8::1"),
        (1, ["unknown"], "192.0.2.1"),
        (1, [""], "192.0.2.1"),
        (1, ["198.51.100.7,"], "192.0.2.1"),
        (1, ["198.51.100.7 , ,"], "192.0.2.1"),
        (2, ["6.6.6.6,,10.0.0.1"], "192.0.2.1"),
        (1, ["198.51.100.7:50123"], "198.51.100.7"),
        (1, ["[2001:db8::1]:50123"], "2001:db8::1"),
        (1, ["[2001:db8::1]"], "2001:db8::1"),
        (1, ["fe80::1%eth0"], "fe80::1"),
        (1, ["::ffff:198.51.100.7"], "198.51.100.7"),
        (1, ["198.51.100.7\xff"], "192.0.2.1"),
    ],
)
def test_of_forwarded_addresses_only_the_one_a_trusted_proxy_wrote_counts(
    hops: int, forwarded: list[str], address: str
) -> None:
    assert address_of(_scope(*(("x-forwarded-for", value) for value in forwarded)), hops) == address


def test_without_a_peer_there_is_no_address() -> None:
    assert address_of(_scope(client=None), 0) == ""


@given(claimed=st.lists(st.text(st.characters(codec="latin-1"), max_size=20), max_size=4), hops=st.integers(1, 3))
def test_whatever_a_client_claims_the_trusted_entry_stays(claimed: list[str], hops: int) -> None:
    written = ["198.51.100.7", *("10.0.0.1" for _ in range(hops - 1))]
    assert address_of(_scope(("x-forwarded-for", ",".join([*claimed, *written]))), hops) == "198.51.100.7"


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


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:3::1", True),
        ("2001:db8:1::1", "2001:db8:2::1", False),
        ("203.0.113.7", "203.0.113.8", True),
        ("203.0.113.7", "203.0.114.7", False),
    ],
)
def test_a_neighbourhood_is_what_one_customer_may_have_to_himself(one: str, other: str, same: bool) -> None:  # noqa: FBT001 - a table's column
    assert (neighbourhood(one) == neighbourhood(other)) is same


@given(st.lists(st.binary(max_size=40), max_size=4), st.integers(0, 10))
def test_no_header_is_too_strange(values: list[bytes], hops: int) -> None:
    headers = [(b"x-forwarded-for", value) for value in values]
    counted_as(address_of({"type": "websocket", "headers": headers, "client": ("192.0.2.1", 5)}, hops))
