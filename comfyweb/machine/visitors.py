"""Whether who looks at the page could reach ComfyUI too, where `allowed_ip` lets only some in."""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

# A provider gives each of its customers one (RFC 6177), and browsers change their address within it every day.
OWN_IPV6 = 64


def locked_out(address: str, allowed: Sequence[IPv4Network | IPv6Network], *, proxied: bool) -> str:
    """Return what to add to `allowed` so that the visitor at `address` gets in; empty when he does, or nobody can say.

    Nobody can say it of an address that isn't public: seen from the machine it is another one. Nor of an IPv6 address,
    unless ComfyUI is `proxied`: the machine itself is reached by IPv4, with an address that the page doesn't see.
    """
    try:
        ip = ip_address(address)
    except ValueError:
        return ""
    if isinstance(ip, IPv6Address):
        ip = ip.ipv4_mapped or IPv6Address(int(ip))
    if not allowed or any(ip in network for network in allowed):
        return ""
    if not ip.is_global or (ip.version != 4 and not proxied):  # noqa: PLR2004 - the version of IP
        return ""
    return str(ip if ip.version == 4 else ip_network((ip, OWN_IPV6), strict=False))  # noqa: PLR2004 - as above
