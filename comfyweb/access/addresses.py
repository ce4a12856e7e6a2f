"""Which address a request comes from, read in one way for REST, the websocket and every limit; what it counts as."""

import ipaddress
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Any

# What one household, and what one provider's customer has to itself. IPv4 has been handed out in smaller pieces.
OWN_IPV6, WIDE_IPV6, WIDE_IPV4 = 64, 48, 24


def address_of(scope: Mapping[str, Any], trusted_hops: int) -> str:
    """Return the address of an ASGI connection's client; empty when the server knows none.

    With N trusted proxies it is the Nth entry of X-Forwarded-For from the right: whatever stands further left was
    written by the client. Several headers are one list (RFC 9110, 5.3). Fewer entries than proxies, or one that is no
    address, count as none: then it is the peer's. Some proxies add a port to the entry.
    """
    peer = scope.get("client")
    here = str(peer[0]) if peer else ""
    if not trusted_hops:
        return here
    lines = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
    entries = b",".join(lines).decode("latin-1").split(",")
    if len(entries) < trusted_hops:
        return here
    found = _read(_without_port(entries[-trusted_hops].strip()))
    return here if found is None else str(found)


def counted_as(address: str) -> str:
    """Return what an address counts as: IPv6 as its /64, which one household has to itself; the unreadable as one."""
    return _network(address, OWN_IPV6, 32)


def neighbourhood(address: str) -> str:
    """Return the wider network, which one who has many addresses has many of: IPv6 as its /48, IPv4 as its /24."""
    return _network(address, WIDE_IPV6, WIDE_IPV4)


def _network(address: str, ipv6: int, ipv4: int) -> str:
    ip = _read(address)
    if ip is None:
        return ""
    bits = ip.max_prefixlen - (ipv6 if isinstance(ip, IPv6Address) else ipv4)
    return str(type(ip)(int(ip) >> bits << bits))


def _read(text: str) -> IPv4Address | IPv6Address | None:
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        return None
    return (ip.ipv4_mapped or IPv6Address(int(ip))) if isinstance(ip, IPv6Address) else ip  # without its %zone


def _without_port(entry: str) -> str:
    if entry.startswith("["):
        return entry[1:].partition("]")[0]
    host, colon, _ = entry.partition(":")
    return host if colon and entry.count(":") == 1 else entry
