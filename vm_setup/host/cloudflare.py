"""The networks that Cloudflare's proxies come from. Whoever comes from there is believed who he says the visitor is.

So a list is taken as a whole or not at all, and never when it could hold more than Cloudflare's networks.
"""

from ipaddress import IPv4Network

from vm_setup.host import allowed
from vm_setup.host.allowed import Network

# When Cloudflare last changed what it publishes at these addresses (https://www.cloudflare.com/ips). A daily copy of
# it (github.com/rezmoss/cloud-provider-ip-addresses) still held the same 22 on 2026-02-11. To renew: docs/host.md.
DATE = "2023-09-28"
ADDRESSES = ("https://www.cloudflare.com/ips-v4", "https://www.cloudflare.com/ips-v6")
_SHIPPED = """
173.245.48.0/20 103.21.244.0/22 103.22.200.0/22 103.31.4.0/22 141.101.64.0/18 108.162.192.0/18 190.93.240.0/20
188.114.96.0/20 197.234.240.0/22 198.41.128.0/17 162.158.0.0/15 104.16.0.0/13 104.24.0.0/14 172.64.0.0/13
131.0.72.0/22 2400:cb00::/32 2606:4700::/32 2803:f800::/32 2405:b500::/32 2405:8100::/32 2a06:98c0::/29
2c0f:f248::/32
"""
_LEAST, _MOST = 2, 200
# Cloudflare's largest are a /13 and a /29: a list with one much larger is a mistake, or not theirs.
_WIDEST_IPV4, _WIDEST_IPV6 = 10, 24


def read(text: str) -> tuple[Network, ...]:
    """Read a published list. Raises ValueError when it can't be Cloudflare's."""
    found = allowed.read(text)
    if found.wrong:
        raise ValueError(f"{found.wrong[0][0]!r} is no network")
    if not _LEAST <= len(found.networks) <= _MOST:
        raise ValueError(f"it holds {len(found.networks)} networks")
    for network in found.networks:
        widest = _WIDEST_IPV4 if isinstance(network, IPv4Network) else _WIDEST_IPV6
        if network.prefixlen < widest or not network.is_global:
            raise ValueError(f"{network} can't be Cloudflare's")
    return found.networks


SHIPPED = read(_SHIPPED)
