"""`allowed_ip`: what people write into it, and what it then means."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vm_setup.host import allowed, cloudflare
from vm_setup.host.allowed import Network

ADDRESSES = st.ip_addresses().filter(lambda ip: not (ip.is_loopback or ip.is_multicast or ip.is_unspecified))


def networks() -> st.SearchStrategy[Network]:
    def around(ip: object, bits: int) -> Network:
        found = ip_address(str(ip))
        return ip_network(f"{found}/{bits % found.max_prefixlen + 1}", strict=False)

    made = st.builds(around, ADDRESSES, st.integers(0, 200))
    return made.filter(lambda net: not _is_nobodys(net))


def _is_nobodys(net: Network) -> bool:
    plain = _plain(net)
    return plain.is_loopback or plain.is_multicast or net.is_unspecified or str(plain) == "255.255.255.255/32"


def _plain(net: Network) -> Network:
    """Return the IPv4 network that an IPv6 network of mapped addresses means."""
    mapped = ip_network("::ffff:0:0/96")
    if net.version == 4 or net.prefixlen < mapped.prefixlen or net.network_address not in mapped:
        return net
    return ip_network((int(net.network_address) & 0xFFFFFFFF, net.prefixlen - mapped.prefixlen))


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("203.0.113.7", ["203.0.113.7/32"]),
        ("203.0.113.7, 198.51.100.0/24", ["198.51.100.0/24", "203.0.113.7/32"]),
        (" 203.0.113.7;198.51.100.9\n2001:db8::1 ,", ["198.51.100.9/32", "203.0.113.7/32", "2001:db8::1/128"]),
        ("203.0.113.77/24", ["203.0.113.0/24"]),
        ("203.0.113.0/255.255.255.0", ["203.0.113.0/24"]),
        ("::ffff:203.0.113.7", ["203.0.113.7/32"]),
        ("::ffff:203.0.113.0/120", ["203.0.113.0/24"]),
        ("10.0.0.0/9,10.128.0.0/9", ["10.0.0.0/8"]),
        ("0.0.0.0/0 ::/0", ["0.0.0.0/0", "::/0"]),
    ],
)
def test_what_people_write(text: str, meant: list[str]) -> None:
    read = allowed.read(text)
    assert [str(network) for network in read.networks] == meant
    assert read.wrong == ()


@pytest.mark.parametrize(
    "entry",
    [
        *("203.0.113.7/33", "203.0.113", "203.0.113.007", "203.0.113.7-9", "203.0.113.7:443", "2001:db8::/129"),
        *("home.example.com", "*", "any", "203.0.113.7}accept"),
        *("0.0.0.0", "127.0.0.1", "::1", "224.0.0.1", "255.255.255.255", "fe80::1%eth0"),
    ],
)
def test_an_entry_that_can_not_be_meant_lets_nobody_in_and_the_others_still_count(entry: str) -> None:
    read = allowed.read(f"{entry},198.51.100.1")
    assert len(read.wrong) == 1
    assert all(why for _, why in read.wrong)
    assert (read.unusable, read.everybody) == (False, False)
    assert read.admits("198.51.100.1")
    assert not read.admits("203.0.113.8")
    assert allowed.read(entry).unusable


@pytest.mark.parametrize("text", ["", " ", ",", " ; ,\n"])
def test_nothing_asked_for_is_no_restriction(text: str) -> None:
    assert allowed.read(text).everybody
    assert not allowed.read(text).unusable
    assert allowed.read(text).admits("203.0.113.7")


@given(st.lists(networks(), min_size=1, max_size=6), st.data())
def test_each_address_of_each_network_may_come_however_it_is_written(nets: list[Network], data: st.DataObject) -> None:
    read = allowed.read(",".join(map(str, nets)))
    net = data.draw(st.sampled_from(nets))
    inside = net[data.draw(st.integers(0, net.num_addresses - 1))]
    assert read.admits(str(inside))
    assert inside.version == 6 or read.admits(f"::ffff:{inside}")
    outside = data.draw(ADDRESSES.filter(lambda ip: not getattr(ip, "ipv4_mapped", None)))
    assert read.admits(str(outside)) == any(outside in one for one in read.networks)


@given(st.lists(networks(), max_size=6))
def test_what_was_read_reads_the_same_again(nets: list[Network]) -> None:
    read = allowed.read(" ".join(map(str, nets)))
    assert allowed.read(" ".join(map(str, read.networks))) == read


@given(st.text(max_size=200))
def test_nothing_that_is_written_there_is_taken_for_more_than_addresses(text: str) -> None:
    read = allowed.read(text)
    assert read.everybody is not (bool(read.networks) or bool(read.wrong))
    assert all(len(entry) <= 60 for entry, _ in read.wrong)


@given(st.text(max_size=60))
def test_a_visitor_whose_address_can_not_be_read_is_nobody(text: str) -> None:
    try:
        ip_address(text.strip())
    except ValueError:
        assert not allowed.read("0.0.0.0/0,::/0").admits(text)


def test_the_bundle_has_cloudflares_networks() -> None:
    assert len(cloudflare.SHIPPED) == 22
    assert {network.version for network in cloudflare.SHIPPED} == {4, 6}


@pytest.mark.parametrize(
    "published",
    [
        "",
        "104.16.0.0/13",
        "<!DOCTYPE html><title>Just a moment...</title>",
        "104.16.0.0/13\n0.0.0.0/0",
        "104.16.0.0/13\n10.0.0.0/16",
        "104.16.0.0/13\n2000::/3",
        "104.16.0.0/13\n172.64.0.0/13\noops",
        "\n".join(f"104.{a}.{b}.0/25" for a in range(16, 24) for b in range(0, 255, 2)),
    ],
)
def test_a_list_that_can_not_be_cloudflares_is_not_believed(published: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        cloudflare.read(published)
