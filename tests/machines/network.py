"""A network for one machine: its own namespace, and beyond the cable what Compute Engine's network has.

Two namespaces per machine: the guest's, and the other end of its cable with the metadata server's address, the names
and, where a test asks for it, the way out. So all machines have the same addresses, and none hears of another.
"""

import ctypes
import ipaddress
import os
import shutil
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tests.machines.commands import attempt, locked, run

GUEST = "10.128.0.2"  # the first address that comfyweb/demo gives a machine
GATEWAY = "10.128.0.1"
METADATA = "169.254.169.254"
# Where the emulator takes its external addresses from; all of them lead to the one machine.
EXTERNAL = ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")
_UPLINKS = ipaddress.ip_network("10.213.0.0/16")
_UPLINKS_LOCK = Path("/run/comfyweb-machines.lock")  # of this computer, as the addresses are
_CLONE_NEWNET = 0x40000000
_NAMESPACES = Path("/run/netns")
RESOLVERS = Path("/etc/netns")  # `ip netns exec` has what is here for a namespace in the place of /etc
_LIBC = ctypes.CDLL(None, use_errno=True)

Result = TypeVar("Result")


class Network:
    """The network of the machine `name`, at most 10 characters, since interfaces are named after it."""

    def __init__(self, name: str) -> None:
        self.guest = f"{name}-g"
        self.outside = f"{name}-o"
        self._uplink = f"{name}-u"

    @property
    def guest_namespace(self) -> Path:
        """Return the guest's namespace, as a path."""
        return _NAMESPACES / self.guest

    def make(self, *, egress: bool) -> None:
        """Lay the cable. With `egress` there is a way out for http, https and names; without it there is none."""
        for namespace in (self.guest, self.outside):
            run("ip", "netns", "add", namespace)
            run("ip", "-n", namespace, "link", "set", "lo", "up")
        run(
            "ip",
            "-n",
            self.outside,
            "link",
            "add",
            "guest",
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            self.guest,
        )
        run("ip", "-n", self.outside, "address", "add", f"{GATEWAY}/24", "dev", "guest")
        run("ip", "-n", self.outside, "address", "add", f"{METADATA}/32", "dev", "guest")
        run("ip", "-n", self.outside, "link", "set", "guest", "up")
        run("ip", "-n", self.guest, "address", "add", f"{GUEST}/24", "dev", "eth0")
        run("ip", "-n", self.guest, "link", "set", "eth0", "up")
        run("ip", "-n", self.guest, "route", "add", "default", "via", GATEWAY)
        names = RESOLVERS / self.outside / "resolv.conf"
        names.parent.mkdir(parents=True, exist_ok=True)
        names.write_text(f"nameserver {METADATA}\n", "utf-8")
        if egress:  # the external addresses are those of documentation, and something may be there
            self._open()
        else:
            self._translate()

    @property
    def enter(self) -> tuple[str, ...]:
        """Return the command that runs the command behind it beyond the cable, where the machine's names are known."""
        return ("ip", "netns", "exec", self.outside)

    def _translate(self) -> None:
        """Let external addresses lead to the machine, from its own side too: Compute Engine's network translates."""
        for block in EXTERNAL:
            run("ip", "-n", self.outside, "route", "add", block, "via", GUEST)
        for setting in ("net.ipv4.ip_forward=1", "net.ipv4.conf.all.send_redirects=0"):
            run(*self.enter, "sysctl", "-qw", setting)
        run(*self.enter, "sysctl", "-qw", "net.ipv4.conf.guest.send_redirects=0")
        external = f"""
            table ip external {{
              chain here {{
                type nat hook output priority -100;
                ip daddr {{ {", ".join(EXTERNAL)} }} dnat to {GUEST}
              }}
              chain there {{
                type nat hook prerouting priority dstnat;
                ip daddr {{ {", ".join(EXTERNAL)} }} dnat to {GUEST}
              }}
              chain back {{
                type nat hook postrouting priority srcnat;
                ip saddr {GUEST} ip daddr {GUEST} masquerade
              }}
            }}
        """
        run(*self.enter, "nft", "-f", "-", said=external)

    def _open(self) -> None:
        with locked(_UPLINKS_LOCK):
            here, there = _free_uplink()
            run("ip", "link", "add", self._uplink, "type", "veth", "peer", "name", "uplink", "netns", self.outside)
            run("ip", "address", "add", f"{here}/30", "dev", self._uplink)
        run("ip", "link", "set", self._uplink, "up")
        run("ip", "-n", self.outside, "address", "add", f"{there}/30", "dev", "uplink")
        run("ip", "-n", self.outside, "link", "set", "uplink", "up")
        run("ip", "-n", self.outside, "route", "add", "default", "via", str(here))
        forward = ("sysctl", "-qw", "net.ipv4.ip_forward=1")
        run(*forward)
        run(*self.enter, *forward)
        outside = """
            table ip way_out {
              chain forward {
                type filter hook forward priority filter; policy drop;
                ct state established,related accept
                tcp dport { 80, 443 } accept
              }
              chain postrouting { type nat hook postrouting priority srcnat; oifname "uplink" masquerade; }
            }
        """
        run(*self.enter, "nft", "-f", "-", said=outside)
        masquerade = f"""
            table ip {self._uplink} {{
              chain postrouting {{ type nat hook postrouting priority srcnat; ip saddr {there} masquerade; }}
            }}
        """
        run("nft", "-f", "-", said=masquerade)

    def resolver(self, log: Path, hosts: Path, *, egress: bool) -> list[str]:
        """Return the command that answers names at the metadata server's address, as Compute Engine does.

        Google's agent asks for storage.googleapis.com and waits long for an answer that doesn't come; here the name
        leads to the metadata server's own address, where nobody speaks https. Names that a test gives out are files in
        `hosts`, in the form of /etc/hosts.
        """
        upstream = [f"--server={server}" for server in _servers()] if egress else []
        return [
            *(*self.enter, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null"),
            *("--user=root", "--pid-file=", "--bind-interfaces", f"--listen-address={METADATA}", "--no-hosts"),
            *(f"--hostsdir={hosts}", "--no-resolv", "--except-interface=lo", "--log-queries", f"--log-facility={log}"),
            *(f"--address=/metadata.google.internal/{METADATA}", f"--address=/googleapis.com/{METADATA}"),
            *upstream,
        ]

    def listen(self, port: int, address: str = METADATA) -> socket.socket:
        """Return a socket that listens beyond the cable, whoever serves it."""

        def bind() -> socket.socket:
            made = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((address, port))
            made.listen()
            made.setblocking(False)  # noqa: FBT003 - the socket module's own signature
            return made

        return in_namespace(_NAMESPACES / self.outside, bind)

    def connect(self, port: int, *, within: float = 2) -> socket.socket:
        """Return a connection to a port of the guest's loopback, made from inside. Raises `OSError`."""
        return in_namespace(self.guest_namespace, lambda: socket.create_connection(("127.0.0.1", port), within))

    def reach(self, port: int, *, address: str = GUEST, within: float = 2) -> socket.socket:
        """Return a connection from outside, as a browser makes one, to the machine or its like. Raises `OSError`."""
        return in_namespace(_NAMESPACES / self.outside, lambda: socket.create_connection((address, port), within))

    def remove(self) -> None:
        """Take it all away, whatever there is of it."""
        for namespace in (self.guest, self.outside):
            if (_NAMESPACES / namespace).exists():
                attempt("ip", "netns", "delete", namespace)
        if Path("/sys/class/net", self._uplink).exists():
            attempt("ip", "link", "delete", self._uplink)
        attempt("nft", "delete", "table", "ip", self._uplink)
        shutil.rmtree(RESOLVERS / self.outside, ignore_errors=True)


def in_namespace(namespace: Path, act: Callable[[], Result]) -> Result:
    """Do something in another network namespace: in a thread of its own, whose namespace ends with it."""
    results: list[Result] = []
    errors: list[BaseException] = []

    def inside() -> None:
        try:
            descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if _LIBC.setns(descriptor, _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), f"setns to {namespace}")
            finally:
                os.close(descriptor)
            results.append(act())
        except BaseException as error:  # noqa: BLE001 - it is the caller's, in the other thread
            errors.append(error)

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _free_uplink() -> tuple[ipaddress.IPv4Address, ipaddress.IPv4Address]:
    taken = run("ip", "-o", "-4", "address")
    free = next(net for net in _UPLINKS.subnets(new_prefix=30) if f" {net[1]}/" not in taken)
    return ipaddress.IPv4Address(free[1]), ipaddress.IPv4Address(free[2])


def _servers() -> list[str]:
    """Return the name servers of this computer that are not its own loopback (systemd-resolved has them elsewhere)."""
    for path in ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"):
        lines = Path(path).read_text("utf-8").splitlines() if Path(path).exists() else []
        found = [line.split()[1] for line in lines if line.startswith("nameserver ")]
        if found := [server for server in found if not ipaddress.ip_address(server).is_loopback]:
            return found
    return []
