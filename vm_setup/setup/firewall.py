"""Who may reach this machine: nftables rules for the ports, and nginx's `visitors.conf` for who comes by a proxy.

The rules are one table of ours, `inet comfyweb_firewall`, which systemd loads from disk before the network is up.
Rules of others are left as they are: nftables lets a packet in only when every table does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_network

from vm_setup.base import files
from vm_setup.base.paths import Data
from vm_setup.host import allowed
from vm_setup.host.allowed import Allowed, Network
from vm_setup.setup import cloudflare, units
from vm_setup.setup.metadata import Wanted
from vm_setup.setup.steps import Steps
from vm_setup.setup.system import System, Trouble

RULES = "comfyweb/firewall.nft"
VISITORS = "comfyweb/nginx/visitors.conf"
# How the words begin that this module warns with.
TOPICS = ("No entry of allowed_ip can be meant", "The firewall")
LAST_GOOD = "allowed-ip-last-good"
# Google's TCP forwarding by Identity-Aware Proxy (https://cloud.google.com/iap/docs/using-tcp-forwarding), by which
# `gcloud compute ssh` and the console's SSH button come.
IAP = ip_network("35.235.240.0/20")
_SSH, _HTTP, _HTTPS = 22, 80, 443
# Open at one time to 80 and 443, from one address, of IPv6 from one /64, which one household has to itself. A browser
# opens a few, and one for each tab's websocket; a worker of nginx has room for 4096, and who fills it shuts others out.
MOST_CONNECTIONS = 128
_OF_IPV6 = "ffff:ffff:ffff:ffff::"
_MOST_SOURCES = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """Who may come: None stands for everybody.

    `visitors` are people and the app, `web` who may connect to ComfyUI's ports, `ssh` to that of ssh. Port 80 is for
    everybody where there is a certificate to be had (`https`): it has nothing but the CA's question and the way to 443.
    """

    visitors: tuple[Network, ...] | None
    web: tuple[Network, ...] | None
    ssh: tuple[Network, ...] | None
    https: bool
    proxies: tuple[Network, ...] = ()


def doors(wanted: Wanted, *, proxies: Sequence[Network], earlier: Allowed) -> Doors:
    """Judge who may come. `earlier` are the visitors of the last `allowed_ip` that held one that can be meant."""
    people = earlier if wanted.allowed.unusable else wanted.allowed
    lost = wanted.allowed.unusable and not earlier.networks
    in_front = tuple(proxies) if wanted.origin_pair and wanted.domain else ()
    visitors = None
    if not wanted.allowed.everybody:
        visitors = allowed.collapsed([*people.networks, *wanted.app.networks])
    return Doors(
        visitors=visitors,
        web=None if visitors is None else allowed.collapsed([*visitors, *in_front]),
        ssh=None if visitors is None or lost else allowed.collapsed([*people.networks, IAP]),
        https=bool(wanted.domain),
        proxies=in_front,
    )


def rules(doors_: Doors) -> str:
    """Return the table, which takes the place of the one before in one step."""
    filtered = {_HTTPS: doors_.web, **({} if doors_.https else {_HTTP: doors_.web}), _SSH: doors_.ssh}
    lines = [
        "# comfyweb: who may reach this machine. Written by its start-up script; see docs/host.md, Firewall.",
        "table inet comfyweb_firewall",
        "delete table inet comfyweb_firewall",
        "table inet comfyweb_firewall {",
        *_sets("web", doors_.web),
        *_sets("ssh", doors_.ssh),
        *_sets("proxies", doors_.proxies),
        *_held(),
        "  chain input {",
        "    type filter hook input priority filter; policy drop;",
        '    iif "lo" accept',
        "    ct state established,related accept",
        "    ct state invalid drop",
        "    meta l4proto { 1, 58 } accept",  # ICMP and ICMPv6, by number: not every image has /etc/protocols
        "    udp sport 67 udp dport 68 accept",
        "    ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept",
        *_not_too_many("proxies" if doors_.web is None else "web"),
        *([f"    tcp dport {_HTTP} accept"] if doors_.https else []),
    ]
    for port, who in filtered.items():
        name = "ssh" if port == _SSH else "web"
        if who is None:
            lines.append(f"    tcp dport {port} accept")
        else:
            lines += [f"    tcp dport {port} {family} saddr @{name}{family} accept" for family in ("ip", "ip6")]
            # Whoever may not is told so at once, rather than left to wait.
            lines.append(f"    tcp dport {port} reject with tcp reset")
    return "\n".join([*lines, "  }", "}", ""])


def visitors(doors_: Doors) -> str:
    """Return what nginx includes: whose word for the visitor's address is taken, and who may come."""
    lines = ["# comfyweb: who may come, and which proxies are believed. Written by the start-up script."]
    if doors_.proxies:
        lines += [f"set_real_ip_from {network};" for network in doors_.proxies]
        lines.append("real_ip_header CF-Connecting-IP;")
    lines += ["geo $comfyweb_visitor {", f"  default {int(doors_.visitors is None)};", "  127.0.0.0/8 1;", "  ::1 1;"]
    lines += [f"  {network} 1;" for network in doors_.visitors or ()]
    return "\n".join([*lines, "}", ""])


def ensure(system: System, steps: Steps, wanted: Wanted) -> None:
    """Put the rules in force and write nginx's part. Raises `Trouble`; then what was in force stays so."""
    with files.locked(system.paths.runtime / "firewall.lock"):
        _ensure(system, steps, wanted)


def _ensure(system: System, steps: Steps, wanted: Wanted) -> None:
    kept = system.paths.state / LAST_GOOD
    judged = doors(wanted, proxies=cloudflare.networks(system.paths), earlier=allowed.read(files.read(kept)))
    if wanted.allowed.unusable:
        steps.warn(_lost(judged))
    _load(system, rules(judged))
    files.write_changed(system.paths.etc / VISITORS, visitors(judged))
    if wanted.allowed.networks:
        files.write_changed(kept, " ".join(map(str, wanted.allowed.networks)))
    elif not wanted.allowed.unusable:
        files.remove(kept)


def _load(system: System, text: str) -> None:
    """Have the rules in force and on disk, where the next boot finds them; what nft refuses gets to neither."""
    path, noted = system.paths.etc / RULES, system.paths.state / "firewall-loaded"
    if files.read(path) != text:
        tried = system.paths.runtime / "firewall.nft"
        files.write(tried, text, durable=False)
        done = system.run("nft", "--check", "--file", tried)
        files.remove(tried)
        if not done.ok:
            raise Trouble(f"The firewall's rules were refused, so the former ones stay: {done.words}")
        files.write(path, text)
    units.apply(system, [units.FIREWALL], Data(volume=system.paths.mount))
    now = files.digest(text, files.read(system.paths.units / units.FIREWALL))
    if files.read(noted) == now:
        return
    done = system.run("systemctl", "reload-or-restart", units.FIREWALL)
    if not done.ok:
        raise Trouble(f"The firewall could not be put in force: {done.words}")
    files.write(noted, now)


def _lost(doors_: Doors) -> str:
    """Say what is in force when nothing in `allowed_ip` can be meant."""
    if doors_.ssh is not None:
        return "No entry of allowed_ip can be meant, so those that it held before stay in force. Correct ALLOWED_IP."
    return (
        "No entry of allowed_ip can be meant, so nobody but the app reaches ComfyUI until ALLOWED_IP is corrected and "
        "the machine is started again. ssh stays open."
    )


def _held() -> list[str]:
    """Return the sets in which the kernel counts each source's connections; it forgets those that have none."""
    kinds = (("ip", "ipv4_addr"), ("ip6", "ipv6_addr"))
    return [f"  set held{name} {{ type {kind}; size {_MOST_SOURCES}; flags dynamic; }}" for name, kind in kinds]


def _not_too_many(known: str) -> list[str]:
    """Return the rules that refuse a source's new connections when it has enough; those in the sets `known` may go on.

    A proxy's connections are many people's. Of those that `allowed_ip` names, nobody else can take the place, not even
    by sending packets in their name.
    """
    lines: list[str] = []
    for family, source in (("ip", "ip saddr"), ("ip6", f"ip6 saddr & {_OF_IPV6}")):
        count = f"add @held{family} {{ {source} ct count over {MOST_CONNECTIONS} }}"
        strangers = f"{family} saddr != @{known}{family}"
        lines.append(f"    tcp dport {{ {_HTTP}, {_HTTPS} }} ct state new {strangers} {count} reject with tcp reset")
    return lines


def _sets(name: str, networks: Sequence[Network] | None) -> list[str]:
    """Return the two sets of addresses that stand for these networks; none for everybody."""
    if networks is None:
        return []
    lines: list[str] = []
    for family, kind in (("ip", "ipv4_addr"), ("ip6", "ipv6_addr")):
        found = [str(one) for one in networks if isinstance(one, IPv4Network) == (family == "ip")]
        elements = f" elements = {{ {', '.join(found)} }};" if found else ""
        lines.append(f"  set {name}{family} {{ type {kind}; flags interval;{elements} }}")
    return lines
