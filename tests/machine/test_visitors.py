"""Who would lock himself out of ComfyUI, and what lets him in."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from comfyweb.machine.visitors import locked_out

Networks = list[IPv4Network | IPv6Network]
ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))
NETWORKS: st.SearchStrategy[Networks] = st.lists(
    st.tuples(ADDRESSES, st.integers(0, 32)).map(lambda pair: ip_network(pair, strict=False)), min_size=1
)


def networks(*texts: str) -> Networks:
    return [ip_network(text) for text in texts]


@pytest.mark.parametrize(
    ("address", "allowed", "missing"),
    [
        ("93.184.216.34", [], ""),
        ("93.184.216.34", ["93.184.216.34"], ""),
        ("93.184.216.34", ["93.184.216.0/24"], ""),
        ("::ffff:93.184.216.34", ["93.184.216.0/24"], ""),
        ("93.184.216.34", ["8.8.8.8"], "93.184.216.34"),
        ("::ffff:93.184.216.34", ["8.8.8.8"], "93.184.216.34"),
        ("93.184.216.34", ["2606:2800:21f::/48"], "93.184.216.34"),
    ],
)
def test_an_address_that_is_not_allowed_is_what_is_missing(address: str, allowed: list[str], missing: str) -> None:
    for proxied in (True, False):
        assert locked_out(address, networks(*allowed), proxied=proxied) == missing


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.1.2.3", "192.168.0.7", "100.64.1.1", "::1", "fe80::1%eth0", "", "unix"]
)
def test_of_an_address_that_the_machine_does_not_see_nobody_can_say_it(address: str) -> None:
    assert locked_out(address, networks("8.8.8.8"), proxied=True) == ""


def test_ipv6_counts_only_where_visitors_come_by_it_and_is_missing_as_what_a_household_has() -> None:
    assert locked_out("2606:2800:21f:cb07:1::2", networks("8.8.8.8"), proxied=False) == ""
    assert locked_out("2606:2800:21f:cb07:1::2", networks("8.8.8.8"), proxied=True) == "2606:2800:21f:cb07::/64"


@example(IPv6Address("::ffff:1.0.0.0"), [ip_network("::/0")], False)  # noqa: FBT003 - as above
@given(ADDRESSES, NETWORKS, st.booleans())
def test_what_is_missing_lets_in_and_who_is_let_in_misses_nothing(
    address: IPv4Address | IPv6Address,
    allowed: Networks,
    proxied: bool,  # noqa: FBT001 - hypothesis
) -> None:
    missing = locked_out(str(address), allowed, proxied=proxied)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None  # who comes so, comes by IPv4
    if any((mapped or address) in network for network in allowed):
        assert missing == ""
    if missing:
        assert locked_out(str(address), [*allowed, ip_network(missing)], proxied=proxied) == ""


@given(st.text(), NETWORKS)
def test_what_is_no_address_is_no_alarm(text: str, allowed: Networks) -> None:
    try:
        ip_network(text)
    except ValueError:
        assert locked_out(text, allowed, proxied=True) == ""
