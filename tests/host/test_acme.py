"""Let's Encrypt's part, by the real certbot and Pebble: questions are asked by HTTP, and answered from the webroot."""

import http.server
import shutil
import socket
import ssl
import stat
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from tests.host.machine import Machine
from tests.launching import free_ports
from tests.pebble import NONCES_REFUSED_PERCENT, Pebble
from vm_setup.base import tls
from vm_setup.setup import acme, certificates, pair
from vm_setup.setup.acme import NotHere
from vm_setup.setup.certificates import Errand, Outside
from vm_setup.setup.metadata import Wanted
from vm_setup.setup.system import Commands, Done, System, Trouble

pytestmark = pytest.mark.slow

HERE = "127.0.0.1"
NAME, ELSEWHERE, NOWHERE = "comfy.example.com", "elsewhere.example.com", "comfy.example.org"
NEEDED = ("certbot", "pebble", "dnsmasq", "openssl")


class Trusting(Commands):
    """Real commands, in an environment in which certbot knows the authority."""

    def __init__(self, trusted: Path) -> None:
        super().__init__()
        self.trusted = trusted

    def __call__(
        self,
        *command: str | Path,
        timeout: float = 60,
        env: Mapping[str, str] | None = None,
    ) -> Done:
        more = {"REQUESTS_CA_BUNDLE": str(self.trusted), **(env or {})}
        return super().__call__(*command, timeout=timeout, env=more)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002 - the base class's name


@dataclass
class Internet:
    """An authority, names, and the machine's port 80, all on loopback."""

    pebble: Pebble
    system: System
    machine: Machine
    web: http.server.ThreadingHTTPServer
    processes: ExitStack

    def wanted(self, name: str = NAME) -> Wanted:
        return Wanted.read(
            {"domain_name": name, "ssl_email": "me@example.com", "comfyweb-acme-server": self.pebble.url}
        )

    def ask(self, name: str = NAME) -> pair.Dates:
        folder = self.machine.root / "workplace"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        chain, key = acme.ask_authority(self.system, self.wanted(name), folder)
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        return pair.check(chain, key, name)

    def start(self, *command: str, env: Mapping[str, str] | None = None) -> None:
        with (self.machine.root / "services.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=env)
        self.processes.callback(process.wait, 10)
        self.processes.callback(process.terminate)

    def start_authority(self) -> None:
        self.start(*self.pebble.command, env=self.pebble.environment)
        until = time.monotonic() + 20
        while True:
            try:
                with socket.create_connection((self.pebble.address, self.pebble.port), timeout=1):
                    return
            except OSError:
                assert time.monotonic() < until, (self.machine.root / "services.log").read_text()
                time.sleep(0.02)


@pytest.fixture
def internet(tmp_path: Path) -> Iterator[Internet]:
    if absent := [name for name in NEEDED if shutil.which(name) is None]:
        pytest.skip(f"{', '.join(absent)} must be installed")
    machine = Machine(tmp_path / "root", disk_bytes=0)
    webroot = machine.paths.acme
    webroot.mkdir(parents=True)
    web = http.server.ThreadingHTTPServer((HERE, 0), partial(Quiet, directory=str(webroot)))
    names = free_ports()
    pebble = Pebble(
        folder=tmp_path / "pebble",
        name="localhost",
        address="localhost",
        port=free_ports(),
        http=web.server_port,
        dns=f"{HERE}:{names}",
        nonces_refused_percent=NONCES_REFUSED_PERCENT,
    ).furnish()
    with ExitStack() as stack:
        stack.callback(web.server_close)
        stack.callback(web.shutdown)
        threading.Thread(target=web.serve_forever, args=(0.05,), daemon=True).start()
        system = replace(machine.system, run=Trusting(pebble.trusted))
        made = Internet(pebble=pebble, system=system, machine=machine, web=web, processes=stack)
        made.start(
            *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-hosts", "--no-resolv", "--user="),
            *(f"--port={names}", f"--listen-address={HERE}", "--bind-interfaces", "--pid-file="),
            *(f"--address=/{NAME}/{HERE}", f"--address=/{ELSEWHERE}/127.0.0.9"),
        )
        made.start_authority()
        yield made


def test_a_certificate_is_issued_with_nonces_refused_and_again_with_a_new_key(internet: Internet) -> None:
    first = internet.ask()
    assert first.until - first.since == pytest.approx(7776000, abs=5)
    keys = {(internet.machine.root / "workplace/key.pem").read_text()}
    for _ in range(3):
        internet.ask()
        keys.add((internet.machine.root / "workplace/key.pem").read_text())
    assert len(keys) == 4
    assert not (internet.machine.paths.state / "letsencrypt/live").exists(), "certbot keeps nothing but its account"
    assert list(internet.machine.paths.acme.rglob("*.pem")) == []


@pytest.mark.parametrize(("name", "words"), [(ELSEWHERE, "refused"), (NOWHERE, "could not resolve")])
def test_a_refusal_is_in_the_authoritys_own_words(internet: Internet, name: str, words: str) -> None:
    with pytest.raises(Trouble, match=rf"(?i)localhost:\d+ gave no certificate for {name}: .*{words}"):
        internet.ask(name)


def test_an_authority_that_is_down_is_said(internet: Internet) -> None:
    internet.pebble = replace(internet.pebble, port=free_ports())
    with pytest.raises(Trouble, match=r"(?i)connection refused"):
        internet.ask()


def test_an_authority_that_has_lost_the_account_gives_one_the_next_time(internet: Internet) -> None:
    internet.ask()
    lost = replace(internet.pebble, port=free_ports()).furnish()
    accounts = internet.machine.paths.state / "letsencrypt/accounts"
    accounts.joinpath(f"localhost:{internet.pebble.port}").rename(accounts / f"localhost:{lost.port}")
    internet.pebble = lost
    internet.start_authority()
    with pytest.raises(Trouble, match=r"(?i)account|key id"):
        internet.ask()
    internet.ask()


def test_certbot_that_was_killed_in_its_middle_spoils_nothing(internet: Internet) -> None:
    for moment in (0.2, 0.6, 0.9):
        folder = internet.machine.root / "killed"
        folder.mkdir(exist_ok=True)
        impatient = replace(internet.system, run=Impatient(internet.pebble.trusted, moment))
        with pytest.raises(Trouble, match="took longer"):
            acme.ask_authority(impatient, internet.wanted(), folder)
    internet.ask()


class Impatient(Trusting):
    """Kills certbot after so many seconds."""

    def __init__(self, trusted: Path, seconds: float) -> None:
        super().__init__(trusted)
        self.seconds = seconds

    def __call__(
        self,
        *command: str | Path,
        timeout: float = 60,
        env: Mapping[str, str] | None = None,
    ) -> Done:
        seconds = self.seconds if command[0] == "certbot" else timeout
        return super().__call__(*command, timeout=seconds, env=env)


def test_the_machine_knows_by_its_own_question_whether_a_name_leads_here(internet: Internet) -> None:
    paths, port = internet.machine.paths, internet.web.server_port
    acme.leads_here(paths, "localhost", port)
    with pytest.raises(NotHere, match=rf"localhost leads to .*127\.0\.0\.1.*, where nobody answers on port {port + 1}"):
        acme.leads_here(paths, "localhost", port + 1)
    others = http.server.ThreadingHTTPServer((HERE, 0), partial(Quiet, directory=str(paths.root / "etc")))
    with others:
        threading.Thread(target=others.serve_forever, args=(0.05,), daemon=True).start()
        with pytest.raises(NotHere, match="which is not this machine"):
            acme.leads_here(paths, "localhost", others.server_port)
        others.shutdown()
    assert list(paths.acme.rglob("comfyweb-*")) == [], "its questions are gone"


def test_from_a_name_to_its_certificate(internet: Internet) -> None:
    steps = internet.machine.steps
    steps.start()
    quiet = replace(internet.system, run=NoSystemd(internet.pebble.trusted))
    certificates.ensure(quiet, steps, internet.wanted())
    assert tls.current(internet.machine.paths).mode == "self-signed"

    def leads_here(_paths: object, _name: str) -> None: ...

    Errand(system=quiet, steps=steps, read=internet.wanted, outside=Outside(leads_here=leads_here)).run()
    now = tls.current(internet.machine.paths)
    assert (now.mode, now.name) == ("letsencrypt", NAME)
    assert not now.trusted, "browsers don't know Pebble"
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(now.chain, now.key)


class NoSystemd(Trusting):
    """Real commands, without systemd's, and without nginx, whose workers need users that only a machine has."""

    def __call__(
        self,
        *command: str | Path,
        timeout: float = 60,
        env: Mapping[str, str] | None = None,
    ) -> Done:
        if command[0] in {"systemctl", "nginx"}:
            return Done()
        return super().__call__(*command, timeout=timeout, env=env)
