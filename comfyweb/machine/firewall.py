"""What Compute Engine's own firewall lets in, judged from the rules that it says apply to a machine.

Rules count in the order of their priority, the smallest number first, and of two with the same one that denies goes
first; what no rule names is turned away (Google's page "VPC firewall rules").
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_network

EVERYWHERE = "0.0.0.0/0"
_TCP = frozenset({"tcp", "6", "all"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """A protocol by name or number, or `all`, with its ports and ranges of ports; all ports when there are none."""

    protocol: str
    ports: tuple[str, ...] = ()

    def covers(self, port: int) -> bool:
        """Tell whether a TCP port is among it."""
        return self.protocol in _TCP and (not self.ports or any(_within(port, text) for text in self.ports))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule for what comes in. `sources` are networks; a rule for what comes from other machines has none."""

    name: str
    priority: int
    allows: bool
    traffic: tuple[Traffic, ...]
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Firewall:
    """The rules that apply to a machine. `policies`: an organisation's policies apply too, which aren't read here."""

    rules: tuple[Rule, ...]
    policies: bool = False


class Open(StrEnum):
    """For whom a port is open."""

    EVERYBODY = "everybody"
    SOME = "some"
    NOBODY = "nobody"


def opened(rules: Sequence[Rule], port: int) -> tuple[Open, tuple[str, ...]]:
    """Return for whom a TCP port is open over IPv4, and from which networks if not from everywhere.

    Private networks don't count: nobody comes from there but the project's own machines.
    """
    some: list[str] = []
    for rule in sorted(rules, key=lambda each: (each.priority, each.allows)):
        if not rule.sources or not any(each.covers(port) for each in rule.traffic):
            continue
        if EVERYWHERE in rule.sources:
            if rule.allows:
                return Open.EVERYBODY, ()
            break
        if rule.allows:
            some += [source for source in rule.sources if not _inner(source)]
    return (Open.SOME, tuple(some)) if some else (Open.NOBODY, ())


def _inner(source: str) -> bool:
    try:
        return ip_network(source, strict=False).is_private
    except ValueError:
        return True


def _within(port: int, text: str) -> bool:
    first, _, last = text.partition("-")
    return first.isdigit() and (last or first).isdigit() and int(first) <= port <= int(last or first)
