"""The firewall in a real kernel: callers in networks of their own knock at a machine's ports.

One namespace is the machine, one is the internet, in which every caller has an address; nothing leaves this computer.
"""

import contextlib
import ctypes
import http.client
import os
import select
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.machines.commands import attempt, run
from tests.machines.network import in_namespace
from vm_setup.base.places import PORT as KEEPER
from vm_setup.host import allowed, cloudflare
from vm_setup.setup import confined, firewall
from vm_setup.setup.metadata import Wanted

pytestmark = pytest.mark.slow

HERE4, HERE6 = "192.0.2.1", "2001:db8:ffff::1"
HOME, HOME6, ELSEWHERE, ELSEWHERE6 = "203.0.113.7", "2001:db8:1::7", "198.51.100.9", "2001:db8:2::9"
NEIGHBOUR6 = "2001:db8:1::8"  # in the same /64 as HOME6, and so the same household
APP, PROXY, PROXY6, CONSOLE = "198.51.100.77", "104.16.0.9", "2606:4700::9", "35.235.240.5"
CALLERS = (HOME, HOME6, ELSEWHERE, ELSEWHERE6, APP, PROXY, PROXY6, CONSOLE)
SSH, HTTP, HTTPS, COMFYUI = 22, 80, 443, 8188
PORTS = (SSH, HTTP, HTTPS, COMFYUI)
DOMAIN = {"domain_name": "comfy.example.com"}
PAIR = {**DOMAIN, "cf_cert_path": "gs://keys/cert.pem", "cf_key_path": "gs://keys/key.pem"}
EVERYBODY = set(CALLERS)


class Internet:
    """A machine with listeners at its ports, and callers."""

    def __init__(self, name: str) -> None:
        self.machine, self.outside = f"{name}-m", f"{name}-w"
        self._listeners: dict[int, socket.socket] = {}

    def make(self) -> None:
        for namespace in (self.machine, self.outside):
            run("ip", "netns", "add", namespace)
            run("ip", "-n", namespace, "link", "set", "lo", "up")
        cable = ("link", "add", "cable", "type", "veth", "peer", "name", "eth0", "netns", self.machine)
        run("ip", "-n", self.outside, *cable)
        for namespace, device in ((self.outside, "cable"), (self.machine, "eth0")):
            run("ip", "-n", namespace, "link", "set", device, "up")
        for namespace, device, addresses in (
            (self.machine, "eth0", (HERE4, HERE6)),
            (self.outside, "cable", (*CALLERS, NEIGHBOUR6)),
        ):
            for address in addresses:
                bits, extra = ("128", ("nodad",)) if ":" in address else ("32", ())
                run("ip", "-n", namespace, "address", "add", f"{address}/{bits}", "dev", device, *extra)
        for namespace, device in ((self.outside, "cable"), (self.machine, "eth0")):
            for family in ("-4", "-6"):
                run("ip", "-n", namespace, family, "route", "add", "default", "dev", device)
        for port in PORTS:
            self.open(port)

    def remove(self) -> None:
        for port in list(self._listeners):
            self.close(port)
        for namespace in (self.machine, self.outside):
            attempt("ip", "netns", "delete", namespace)

    def open(self, port: int) -> None:
        def listen() -> socket.socket:
            return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=4096)

        self._listeners[port] = in_namespace(Path("/run/netns", self.machine), listen)

    def close(self, port: int) -> None:
        self._listeners.pop(port).close()

    def load(self, text: str) -> None:
        run("ip", "netns", "exec", self.machine, "nft", "--file", "-", said=text)

    def obey(self, **attributes: str) -> None:
        wanted = Wanted.read(attributes)
        judged = firewall.doors(wanted, proxies=cloudflare.SHIPPED, earlier=allowed.Allowed())
        self.load(firewall.rules(judged))

    def comes_in(self, caller: str, port: int) -> bool:
        """Whether a connection from that address is taken. Fails when the caller is left to wait at an open port."""
        target = HERE6 if ":" in caller else HERE4

        def call() -> bool:
            try:
                socket.create_connection((target, port), timeout=0.2, source_address=(caller, 0)).close()
            except ConnectionRefusedError:
                return False
            except TimeoutError:
                assert port == COMFYUI, "who may not come is told so at once"
                return False
            return True

        return in_namespace(Path("/run/netns", self.outside), call)

    @contextlib.contextmanager
    def holding(self, port: int, *callers: str, says: bytes = b"") -> Generator[list[socket.socket]]:
        """Hold as many connections as are taken, in turns from these addresses, up to twice of what anybody may."""

        def call() -> list[socket.socket]:
            held: list[socket.socket] = []
            for number in range(2 * firewall.MOST_CONNECTIONS):
                caller = callers[number % len(callers)]
                place = (HERE6 if ":" in caller else HERE4, port)
                try:
                    made = socket.create_connection(place, timeout=2, source_address=(caller, 0))
                except ConnectionRefusedError:
                    break
                made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # ends with a reset
                held.append(made)
                made.sendall(says)
            return held

        held = in_namespace(Path("/run/netns", self.outside), call)
        try:
            yield held
        finally:
            for one in held:
                one.close()

    def who(self, port: int) -> set[str]:
        return {caller for caller in CALLERS if self.comes_in(caller, port)}

    def ask(self, caller: str, says: str = "") -> str:
        """Ask nginx, as a caller that says who the visitor is; return nginx's judgement."""

        def call() -> str:
            target = HERE6 if ":" in caller else HERE4
            connection = http.client.HTTPConnection(target, HTTP, timeout=5, source_address=(caller, 0))
            with contextlib.closing(connection):
                connection.request("GET", "/", headers={"CF-Connecting-IP": says} if says else {})
                return connection.getresponse().read().decode()

        return in_namespace(Path("/run/netns", self.outside), call)


@pytest.fixture(scope="module")
def internet() -> Iterator[Internet]:
    if os.geteuid() or shutil.which("nft") is None or shutil.which("ip") is None:
        pytest.skip("networks of their own need root, nftables and iproute2")
    made = Internet(f"cw-doors-{os.getpid() % 10000}")
    with ExitStack() as stack:
        stack.callback(made.remove)
        made.make()
        assert made.who(COMFYUI) == EVERYBODY, "without rules every caller arrives"
        yield made


@pytest.mark.parametrize("attributes", [{}, DOMAIN, PAIR])
def test_without_a_restriction_everybody_reaches_ssh_and_the_web_and_nothing_else(
    internet: Internet, attributes: dict[str, str]
) -> None:
    internet.obey(**attributes)
    assert internet.who(COMFYUI) == set()
    for port in (SSH, HTTP, HTTPS):
        assert internet.who(port) == EVERYBODY


HOMES = {"allowed_ip": f"{HOME}, 2001:db8:1::/48", "comfyweb-app-ip": APP}
PEOPLE = {HOME, HOME6}


@pytest.mark.parametrize(
    ("attributes", "http", "https", "ssh"),
    [
        # Plain HTTP is ComfyUI itself; with a name, port 80 has nothing but the CA's question and the way to 443.
        (HOMES, {*PEOPLE, APP}, {*PEOPLE, APP}, {*PEOPLE, CONSOLE}),
        ({**HOMES, **DOMAIN}, EVERYBODY, {*PEOPLE, APP}, {*PEOPLE, CONSOLE}),
        # Whom Cloudflare brings is judged by nginx.
        ({**HOMES, **PAIR}, EVERYBODY, {*PEOPLE, APP, PROXY, PROXY6}, {*PEOPLE, CONSOLE}),
        ({**DOMAIN, "allowed_ip": HOME6}, EVERYBODY, {HOME6}, {HOME6, CONSOLE}),
        ({**DOMAIN, "allowed_ip": "0.0.0.0/0"}, EVERYBODY, {c for c in CALLERS if ":" not in c}, None),
        # A slip in one entry takes nothing from the others; where all are slips, nobody is locked out of the machine.
        ({**DOMAIN, "allowed_ip": f"{HOME},home"}, EVERYBODY, {HOME}, {HOME, CONSOLE}),
        ({**DOMAIN, "allowed_ip": "home", "comfyweb-app-ip": APP}, EVERYBODY, {APP}, EVERYBODY),
        ({**DOMAIN, "comfyweb-app-ip": APP}, EVERYBODY, EVERYBODY, EVERYBODY),
    ],
)
def test_who_comes_in_where(
    internet: Internet, attributes: dict[str, str], http: set[str], https: set[str], ssh: set[str] | None
) -> None:
    internet.obey(**attributes)
    assert internet.who(HTTP) == http
    assert internet.who(HTTPS) == https
    assert internet.who(SSH) == (https if ssh is None else ssh)


MOST = firewall.MOST_CONNECTIONS


@pytest.mark.parametrize("attributes", [{}, DOMAIN, PAIR])
def test_one_source_has_so_many_connections_and_no_more_and_takes_nothing_from_others(
    internet: Internet, attributes: dict[str, str]
) -> None:
    for callers in ((ELSEWHERE,), (HOME6, NEIGHBOUR6)):
        internet.obey(**attributes)
        with internet.holding(HTTPS, *callers) as held:
            assert len(held) == MOST
            assert not internet.comes_in(callers[0], HTTP)
            assert internet.who(HTTPS) == EVERYBODY - {*callers}
            assert internet.comes_in(callers[0], SSH)
            held.pop().close()
            until = time.monotonic() + 10
            while not internet.comes_in(callers[0], HTTPS):
                assert time.monotonic() < until, "what has ended still counts"


def test_cloudflare_s_proxies_bring_as_many_as_there_are(internet: Internet) -> None:
    for attributes, most in ((PAIR, 2 * MOST), (DOMAIN, MOST)):
        internet.obey(**attributes)
        for caller in (PROXY, PROXY6):
            with internet.holding(HTTPS, caller) as held:
                assert len(held) == most


def test_who_is_named_in_allowed_ip_is_not_counted(internet: Internet) -> None:
    internet.obey(**PAIR, **HOMES)
    for caller in (HOME, HOME6, APP, PROXY):
        for port in (HTTP, HTTPS):
            with internet.holding(port, caller) as held:
                assert len(held) == 2 * MOST
    with internet.holding(HTTP, ELSEWHERE) as held:
        assert len(held) == MOST


def test_a_change_leaves_connections_and_the_rules_of_others_alone(internet: Internet) -> None:
    internet.obey(**DOMAIN)
    outside = Path("/run/netns", internet.outside)
    theirs = """
        table inet theirs {
          chain input { type filter hook input priority 10; tcp dport 443 ip saddr 203.0.113.99 drop; }
        }
    """

    def call() -> socket.socket:
        return socket.create_connection((HERE4, HTTPS), timeout=2, source_address=(ELSEWHERE, 0))

    with in_namespace(outside, call) as connection:
        internet.load(theirs)
        internet.obey(**DOMAIN, allowed_ip=HOME)
        connection.settimeout(0.2)
        connection.sendall(b"still here")
        with pytest.raises(TimeoutError):
            connection.recv(1)
        listed = run("ip", "netns", "exec", internet.machine, "nft", "list", "table", "inet", "theirs")
        run("ip", "netns", "exec", internet.machine, "nft", "delete", "table", "inet", "theirs")
    assert "203.0.113.99 drop" in " ".join(listed.split())
    assert internet.who(HTTPS) == {HOME}


def test_pings_are_answered(internet: Internet) -> None:
    internet.obey(**DOMAIN, allowed_ip=HOME)

    def ping(family: int, protocol: int, request: bytes, address: str) -> Callable[[], int]:
        def send() -> int:
            with socket.socket(family, socket.SOCK_RAW, protocol) as raw:
                raw.settimeout(2)
                raw.sendto(request, (address, 0))
                return len(raw.recv(100))

        return send

    outside = Path("/run/netns", internet.outside)
    echo4 = bytes([8, 0, 0xF7, 0xFE, 0, 1, 0, 0])
    assert in_namespace(outside, ping(socket.AF_INET, socket.IPPROTO_ICMP, echo4, HERE4)) > 0
    echo6 = bytes([128, 0, 0, 0, 0, 1, 0, 0])
    assert in_namespace(outside, ping(socket.AF_INET6, socket.IPPROTO_ICMPV6, echo6, HERE6)) > 0


NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log stderr;
events {{ worker_connections {room}; }}
http {{
  access_log off;
  include {folder}/visitors.conf;
  server {{ listen 80; listen [::]:80; location / {{ return 200 "$remote_addr $comfyweb_visitor"; }} }}
}}
"""


@pytest.fixture
def nginx(internet: Internet, tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Run nginx on the machine with what it includes for these attributes; in the end its own listener is back."""
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed")
    attempt("ip", "netns", "exec", internet.machine, "nft", "delete", "table", "inet", "comfyweb_firewall")
    internet.close(HTTP)
    room = firewall.MOST_CONNECTIONS + 50  # for less than two who take all that they get
    (tmp_path / "nginx.conf").write_text(NGINX.format(folder=tmp_path, room=room))
    with ExitStack() as stack:

        def start(**attributes: str) -> None:
            judged = firewall.doors(Wanted.read(attributes), proxies=cloudflare.SHIPPED, earlier=allowed.Allowed())
            (tmp_path / "visitors.conf").write_text(firewall.visitors(judged))
            command = ("nginx", "-e", "stderr", "-c", tmp_path / "nginx.conf", "-p", tmp_path)
            process = subprocess.Popen(["ip", "netns", "exec", internet.machine, *command])
            stack.callback(process.wait, 10)
            stack.callback(process.terminate)
            until = time.monotonic() + 10
            while not internet.comes_in(ELSEWHERE, HTTP):
                assert time.monotonic() < until, "nginx does not listen"

        yield start
    internet.open(HTTP)


def test_behind_cloudflare_nginx_judges_the_visitor_and_believes_nobody_else(
    internet: Internet, nginx: Callable[..., None]
) -> None:
    nginx(**PAIR, **HOMES)
    assert internet.ask(PROXY, HOME) == f"{HOME} 1"
    assert internet.ask(PROXY6, HOME6) == f"{HOME6} 1"
    assert internet.ask(PROXY, ELSEWHERE) == f"{ELSEWHERE} 0"
    assert internet.ask(PROXY, APP) == f"{APP} 1"
    assert internet.ask(PROXY) == f"{PROXY} 0"
    for forger in (ELSEWHERE, ELSEWHERE6, APP):
        assert internet.ask(forger, HOME).split()[0] == forger
    assert internet.ask(ELSEWHERE, HOME) == f"{ELSEWHERE} 0"
    assert internet.ask(HOME, ELSEWHERE) == f"{HOME} 1"


def test_without_cloudflare_even_its_word_counts_for_nothing(internet: Internet, nginx: Callable[..., None]) -> None:
    nginx(**DOMAIN, **HOMES)
    assert internet.ask(PROXY, HOME) == f"{PROXY} 0"
    assert internet.ask(HOME6) == f"{HOME6} 1"


def test_without_a_restriction_every_visitor_may_come(internet: Internet, nginx: Callable[..., None]) -> None:
    nginx(**PAIR)
    assert internet.ask(PROXY, ELSEWHERE6) == f"{ELSEWHERE6} 1"
    assert internet.ask(ELSEWHERE) == f"{ELSEWHERE} 1"


def test_a_stranger_with_requests_that_never_end_leaves_room_for_everybody_else(
    internet: Internet, nginx: Callable[..., None]
) -> None:
    nginx()
    internet.obey()
    with internet.holding(HTTP, ELSEWHERE, says=b"GET / HTTP/1.1\r\nHost: x\r\nX-And: ") as held:
        assert internet.ask(HOME) == f"{HOME} 1"
        # nginx waits five seconds for a head, and a busy computer may take longer for all of them.
        ended, _, _ = select.select(held, [], [], 0)
        assert len(held) - len(ended) <= MOST <= len(held)
        assert internet.ask(HOME6) == f"{HOME6} 1"


def test_the_same_rules_loaded_twice_are_the_same(internet: Internet) -> None:
    internet.obey(**HOMES)
    first = subprocess.check_output(["ip", "netns", "exec", internet.machine, "nft", "list", "ruleset"], text=True)
    internet.obey(**HOMES)
    again = subprocess.check_output(["ip", "netns", "exec", internet.machine, "nft", "list", "ruleset"], text=True)
    assert first == again
    assert first.count("table inet comfyweb_firewall") == 1


METADATA4, METADATA6, LOOPBACK = "169.254.169.254", "fd20:ce::254", "127.0.0.1"
JUPYTER = 8080
ROOT, NODE = 0, 65534  # a program of root's, and one of ComfyUI's user (here: nobody)


class Inside:
    """What programs on the machine may do once the rules for ComfyUI's user are in force."""

    def __init__(self, internet: Internet) -> None:
        self._place = Path("/run/netns", internet.machine)
        for address in (f"{METADATA4}/32", f"{METADATA6}/128"):
            attempt("ip", "-n", internet.machine, "address", "add", address, "dev", "lo")
        self._internet = internet
        self.obey(jupyter=False)

    def obey(self, *, jupyter: bool) -> None:
        self._internet.load(confined.rules(jupyter=jupyter).replace('"comfyui"', str(NODE)))

    def reaches(self, address: str, port: int, *, user: int, listener: int = ROOT) -> bool:
        """Whether a program of one user is answered by another's at that port."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET

        def listen() -> socket.socket:
            ctypes.CDLL(None).setfsuid(listener)  # of this thread alone, which ends with this call
            return socket.create_server((address, port), family=family)

        def call() -> bool:
            ctypes.CDLL(None).setfsuid(user)
            try:
                socket.create_connection((address, port), timeout=0.3).close()
            except OSError:
                return False
            return True

        with in_namespace(self._place, listen):
            return in_namespace(self._place, call)


@pytest.fixture
def inside(internet: Internet) -> Iterator[Inside]:
    yield Inside(internet)
    attempt("ip", "netns", "exec", internet.machine, "nft", "delete", "table", "inet", "comfyweb")


@pytest.mark.parametrize("address", [METADATA4, METADATA6])
def test_comfyui_s_user_has_of_the_metadata_server_its_names_alone(inside: Inside, address: str) -> None:
    for port in (81, 8080):  # what is not 53 is all the same to the rules; 80 has a listener here already
        assert inside.reaches(address, port, user=ROOT)
        assert not inside.reaches(address, port, user=NODE)
    assert inside.reaches(address, 53, user=NODE)


def test_comfyui_s_user_can_neither_call_the_keeper_nor_answer_in_its_place(inside: Inside) -> None:
    assert inside.reaches(LOOPBACK, KEEPER, user=ROOT)
    assert not inside.reaches(LOOPBACK, KEEPER, user=NODE)
    assert not inside.reaches(LOOPBACK, KEEPER, user=ROOT, listener=NODE)
    for listener in (ROOT, NODE):
        assert inside.reaches(LOOPBACK, KEEPER + 1, user=NODE, listener=listener)


def test_comfyui_s_user_does_not_reach_the_jupyter_of_the_image_by_any_address(inside: Inside) -> None:
    for address in (LOOPBACK, "::1", HERE4, HERE6):
        inside.obey(jupyter=False)
        assert inside.reaches(address, JUPYTER, user=NODE)
        inside.obey(jupyter=True)
        assert not inside.reaches(address, JUPYTER, user=NODE)
        assert inside.reaches(address, JUPYTER, user=ROOT)
        assert inside.reaches(address, JUPYTER + 1, user=NODE)
