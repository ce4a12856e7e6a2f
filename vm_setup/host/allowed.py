"""Who may reach ComfyUI: `allowed_ip` read in one way, by the machine and by whoever checks it beforehand."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    collapse_addresses,
    ip_address,
    ip_network,
)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
# The metadata keys that name people and the app.
KEYS = PEOPLE, APP = "allowed_ip", "comfyweb-app-ip"
_SHOWN_CHARACTERS = 60
_BROADCAST = IPv4Network("255.255.255.255")  # nginx takes no such network
_MAPPED = IPv6Network("::ffff:0:0/96")


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """Networks whose addresses may come. `wrong` are the entries that mean none, each with the reason."""

    networks: tuple[Network, ...] = ()
    wrong: tuple[tuple[str, str], ...] = ()

    @property
    def everybody(self) -> bool:
        """Whether nothing was asked for, so that there is no restriction."""
        return not self.networks and not self.wrong

    @property
    def unusable(self) -> bool:
        """Whether a restriction was asked for and not one entry of it is good."""
        return not self.networks and bool(self.wrong)

    def admits(self, address: str) -> bool:
        """Whether that address may come. One that can't be read may not, where anything is restricted."""
        if self.everybody:
            return True
        try:
            ip = ip_address(address.strip())
        except ValueError:
            return False
        plain = ip.ipv4_mapped or ip if isinstance(ip, IPv6Address) else ip
        return any(plain in network for network in self.networks)


def read(text: str) -> Allowed:
    """Read addresses and networks separated by commas, semicolons or blanks. Host bits below a mask are dropped."""
    networks: list[Network] = []
    wrong: list[tuple[str, str]] = []
    for entry in re.split(r"[,;\s]+", text):
        if not entry:
            continue
        network = _network(entry)
        if isinstance(network, str):
            wrong.append((entry[:_SHOWN_CHARACTERS], network))
        else:
            networks.append(network)
    return Allowed(networks=collapsed(networks), wrong=tuple(wrong))


def collapsed(networks: Iterable[Network]) -> tuple[Network, ...]:
    """Return the fewest networks that hold the same addresses, IPv4 first."""
    every = list(networks)
    four = collapse_addresses(network for network in every if isinstance(network, IPv4Network))
    six = collapse_addresses(network for network in every if isinstance(network, IPv6Network))
    return (*four, *six)


def _network(entry: str) -> Network | str:
    """Return the network that an entry means, or why it means none."""
    try:
        network = ip_network(entry, strict=False)
    except ValueError:
        return "it is no address and no network, such as 203.0.113.7 or 203.0.113.0/24"
    if isinstance(network, IPv6Network):
        if network.network_address.scope_id:
            return "an address with a zone means something on one computer only"
        if network.subnet_of(_MAPPED):
            low = int(network.network_address) & 0xFFFFFFFF
            network = IPv4Network((low, network.prefixlen - _MAPPED.prefixlen))
    if network.is_multicast or network.is_unspecified or network.is_loopback or network == _BROADCAST:
        return "nobody comes from there"
    return network
