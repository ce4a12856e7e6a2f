"""Which certificate is in force at which moment, with the real openssl. The authority is a stand-in here.

certbot and Pebble are in test_acme.py.
"""

import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.host.authority import NAME, Pair, issue
from tests.host.machine import Machine
from vm_setup.base import files, tls
from vm_setup.base.paths import Paths
from vm_setup.base.tls import CLOUDFLARE, LETS_ENCRYPT, NONE, SELF_SIGNED
from vm_setup.setup import acme, certificates, firewall, pair, units
from vm_setup.setup.acme import NotHere
from vm_setup.setup.certificates import Errand, Outside
from vm_setup.setup.metadata import Wanted
from vm_setup.setup.system import Done, System, Trouble

CERT, KEY = "gs://keys/cert.pem", "gs://keys/key.pem"
BY_CLOUDFLARE = {"domain_name": NAME, "cf_cert_path": CERT, "cf_key_path": KEY}
BY_LETS_ENCRYPT = {"domain_name": NAME, "ssl_email": "me@example.com"}
ALONE = {"domain_name": NAME}
IS_TRUSTED = pair.is_trusted
DAY = 86400.0


NETWORKS = {
    "https://www.cloudflare.com/ips-v4": b"104.16.0.0/13\n172.64.0.0/13\n",
    "https://www.cloudflare.com/ips-v6": b"2606:4700::/32\n",
}


class Enough(Exception):
    """The test has seen as many attempts as it wants to."""


@dataclass
class World:
    """A machine, and all that it asks others for."""

    machine: Machine
    attributes: dict[str, str] = field(default_factory=dict[str, str])
    stored: dict[str, bytes] = field(default_factory=NETWORKS.copy)
    days: float = 0.0  # that have gone by
    elsewhere: str = ""  # why the name does not lead here
    certbot: Callable[[str], Pair | str] = lambda name: issue(name, until=timedelta(days=90))
    waits: list[float] = field(default_factory=list[float])
    most_waits: int = 0
    asked: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        self.machine.on_command = self._command

    @property
    def system(self) -> System:
        return replace(self.machine.system, wall=self.wall, sleep=self._sleep)

    def wall(self) -> float:
        return datetime.now(UTC).timestamp() + self.days * DAY

    def wanted(self) -> Wanted:
        return Wanted.read(self.attributes)

    def boot(self, **attributes: str) -> tls.Tls:
        """Reconcile with these metadata, and return what is in force then."""
        self.attributes = attributes
        self.machine.calls.clear()
        self.machine.steps.start()
        certificates.ensure(self.system, self.machine.steps, self.wanted())
        return self.now()

    def errand(self, *, waits: int = 0) -> tls.Tls:
        """Run the service until it has nothing left to do, or has waited so often; return what is in force then."""
        self.most_waits = waits
        self.waits.clear()
        outside = Outside(leads_here=self._leads_here, fetch=self._fetch)
        try:
            Errand(system=self.system, steps=self.machine.steps, read=self.wanted, outside=outside).run()
        except Enough:
            assert len(self.waits) > waits
        return self.now()

    def now(self) -> tls.Tls:
        return tls.current(self.machine.paths, wall=self.wall())

    def names(self) -> str:
        return self.machine.system.run(
            *("openssl", "x509", "-in", self.now().chain, "-noout", "-ext", "subjectAltName")
        ).out

    @property
    def started(self) -> bool:
        """Whether the boot has started the service."""
        return f"systemctl --no-block restart {units.CERTIFICATES}" in self.machine.calls

    @property
    def warnings(self) -> list[str]:
        found = files.read_object(self.machine.paths.runtime / "steps.json").get("warnings")
        assert isinstance(found, list)
        return [str(words) for words in found]

    def store(self, pair: Pair) -> None:
        self.stored |= {CERT: pair.chain, KEY: pair.key}

    def _leads_here(self, paths: Paths, name: str) -> None:
        assert paths == self.machine.paths
        if self.elsewhere:
            raise NotHere(f"The name {name} {self.elsewhere}")

    def _fetch(self, url: str) -> bytes:
        self.asked.append(url)
        if url not in self.stored:
            raise Trouble(f"there is nothing at {url}")
        return self.stored[url]

    def _sleep(self, seconds: float) -> None:
        self.machine.sleep(seconds)
        if seconds:
            self.waits.append(seconds)
            if len(self.waits) > self.most_waits:
                raise Enough

    def _command(self, line: str) -> Done | None:
        words = line.split()
        if words[0] != "certbot":
            return None
        self.asked.append(line)
        request = words[words.index("--csr") + 1]
        key = Path(request).with_name("key.pem")
        name = self.machine.system.run("openssl", "req", "-in", request, "-noout", "-text").out
        name = name.partition("DNS:")[2].split()[0]
        found = self.certbot(name)
        if isinstance(found, str):
            return Done(code=1, err=f"Saving debug log to /x\n  Domain: {name}\n  Detail: {found}\nAsk for help")
        Path(words[words.index("--fullchain-path") + 1]).write_bytes(found.chain)
        key.write_bytes(found.key)  # the stand-in has no use for the request's own
        return Done()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A machine that knows the tests' authorities, of which there is another for each certificate."""

    def is_known(*_: object) -> bool:
        return True

    monkeypatch.setattr(pair, "is_trusted", is_known)
    if shutil.which("openssl") is None:
        pytest.skip("openssl must be installed")
    return World(Machine(tmp_path, disk_bytes=0))


def test_without_a_name_it_is_plain_http_and_nobody_is_asked(world: World) -> None:
    assert world.boot().mode == NONE
    assert not world.started
    assert world.errand() == world.now()
    assert world.asked == []
    assert world.warnings == []


def test_a_name_has_a_certificate_at_once_and_the_real_one_when_it_is_there(world: World) -> None:
    first = world.boot(**BY_LETS_ENCRYPT)
    assert (first.mode, first.name, first.trusted) == (SELF_SIGNED, NAME, False)
    assert world.names().count(f"DNS:{NAME}") == 1
    assert world.started
    then = world.errand()
    assert (then.mode, then.name, then.trusted) == (LETS_ENCRYPT, NAME, True)
    assert then.until > first.until[:4]
    assert world.warnings == []


def test_the_key_is_for_root_alone_wherever_it_lies(world: World) -> None:
    world.boot(**BY_LETS_ENCRYPT)
    world.errand()
    folder = tls.folder_of(world.machine.paths)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(world.machine.paths.runtime.glob("tls-*")) == []
    text = world.now().key.read_text().splitlines()[1]
    assert text not in "".join(world.machine.calls)


def test_a_warm_boot_asks_nobody_and_runs_nothing(world: World) -> None:
    for attributes in (BY_LETS_ENCRYPT, BY_CLOUDFLARE, ALONE):
        world.store(issue(NAME))
        world.boot(**attributes)
        world.errand()
        world.asked.clear()
        before = world.now()
        assert world.boot(**attributes) == before
        assert world.machine.calls == []
        world.errand()
        assert world.asked == []


def test_without_an_address_for_lets_encrypt_the_page_says_what_to_set(world: World) -> None:
    assert world.boot(**ALONE).mode == SELF_SIGNED
    [words] = world.warnings
    assert "SSL_EMAIL" in words
    assert not world.started
    world.errand()
    assert world.warnings == [words]


def test_while_the_name_leads_elsewhere_it_looks_again_and_the_page_says_so(world: World) -> None:
    world.boot(**BY_LETS_ENCRYPT)
    world.elsewhere = "leads to 203.0.113.5, which is not this machine"
    assert world.errand(waits=5).mode == SELF_SIGNED
    assert world.waits == [5, 10, 20, 30, 30, 30]
    assert world.asked == [], "each failure at the authority counts against the name"
    [words] = world.warnings
    assert f"{NAME} leads to 203.0.113.5" in words
    assert "browsers warn" in words
    world.elsewhere = ""
    assert world.errand().mode == LETS_ENCRYPT
    assert world.warnings == []


def test_in_the_end_the_authority_is_asked_though_the_machine_does_not_see_itself(world: World) -> None:
    world.boot(**BY_LETS_ENCRYPT)
    world.elsewhere = "is not seen from inside"
    assert world.errand(waits=100).mode == LETS_ENCRYPT
    assert sum(world.waits) == pytest.approx(1800, abs=60)


def test_a_refusal_is_told_in_the_authoritys_words_and_asked_again_within_its_limits(world: World) -> None:
    world.boot(**BY_LETS_ENCRYPT)
    world.certbot = lambda _: "203.0.113.5: Fetching http://...: Connection refused"
    world.errand(waits=6)
    assert world.waits == [60, 300, 900, 1800, 3600, 3600, 3600]
    [words] = world.warnings
    assert "Let's Encrypt gave no certificate" in words
    assert "Connection refused" in words
    assert "browsers warn" in words


def test_an_account_that_is_lost_is_made_anew(world: World) -> None:
    world.boot(**BY_LETS_ENCRYPT)
    kept = world.machine.put("var/lib/comfyweb/letsencrypt/accounts/x/regr.json", "{")
    world.certbot = lambda _: "Account is not valid, has it been deleted?"
    world.errand(waits=0)
    assert not kept.exists()


def test_it_is_renewed_when_thirty_days_are_left_and_served_with_until_then(world: World) -> None:
    world.boot(**BY_LETS_ENCRYPT)
    first = world.errand()
    world.days = 59
    assert world.boot(**BY_LETS_ENCRYPT) == first
    assert not world.started
    world.days = 61
    assert world.boot(**BY_LETS_ENCRYPT) == first
    assert world.started
    world.certbot = lambda _: "the authority is down"
    assert world.errand() == first
    assert f"good until {first.until[:10]}" in world.warnings[0]
    world.certbot = lambda name: issue(name, until=timedelta(days=150))
    assert world.errand().until > first.until


def test_a_certificate_of_few_days_is_renewed_in_its_last_third(world: World) -> None:
    world.certbot = lambda name: issue(name, since=timedelta(0), until=timedelta(days=6))
    world.boot(**BY_LETS_ENCRYPT)
    world.errand()
    for days, due in ((3.9, False), (4.1, True)):
        world.days = days
        world.boot(**BY_LETS_ENCRYPT)
        assert world.started is due


def test_an_authority_whose_certificates_end_at_once_is_not_asked_without_a_pause(world: World) -> None:
    world.certbot = lambda name: issue(name, since=timedelta(days=-9), until=timedelta(hours=1))
    world.boot(**BY_LETS_ENCRYPT)
    world.errand(waits=2)
    assert world.waits == [60, 60, 60]


def test_one_of_an_authority_that_browsers_do_not_know_is_served_and_not_called_trusted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pair, "is_trusted", IS_TRUSTED)
    world.boot(**BY_LETS_ENCRYPT)
    then = world.errand()
    assert (then.mode, then.name, then.trusted) == (LETS_ENCRYPT, NAME, False)


def test_one_that_has_expired_is_trusted_no_more(world: World) -> None:
    world.boot(**BY_LETS_ENCRYPT)
    world.errand()
    world.days = 91
    assert not world.now().trusted
    world.certbot = lambda _: "the authority is down"
    assert world.boot(**BY_LETS_ENCRYPT).mode == SELF_SIGNED
    assert world.errand().mode == SELF_SIGNED


def test_another_name_has_its_own_certificate_at_once_and_the_first_comes_back_without_asking(world: World) -> None:
    world.boot(**BY_LETS_ENCRYPT)
    first = world.errand()
    moved = {**BY_LETS_ENCRYPT, "domain_name": "gpu.example.com"}
    assert (world.boot(**moved).mode, world.now().name) == (SELF_SIGNED, "gpu.example.com")
    assert "DNS:gpu.example.com" in world.names()
    assert world.errand().mode == LETS_ENCRYPT
    world.asked.clear()
    assert world.boot(**BY_LETS_ENCRYPT) == first
    assert not world.started


def test_another_name_while_the_authority_works_is_not_served_with_the_old_ones_certificate(world: World) -> None:
    world.boot(**BY_LETS_ENCRYPT)

    def slow(name: str) -> Pair:
        world.attributes = {**BY_LETS_ENCRYPT, "domain_name": "gpu.example.com"}
        certificates.ensure(world.system, world.machine.steps, world.wanted())
        world.certbot = next_one
        return issue(name, until=timedelta(days=90))

    def next_one(name: str) -> Pair:
        served.append(world.now().name)
        return issue(name, until=timedelta(days=90))

    served: list[str] = []
    world.certbot = slow
    assert world.errand(waits=1).name == "gpu.example.com"
    assert world.now().mode == LETS_ENCRYPT
    assert served == ["gpu.example.com"]


def test_cloudflares_pair_is_fetched_and_taken_only_when_it_is_one(world: World) -> None:
    world.store(issue("*.example.com", "example.com"))
    assert world.boot(**BY_CLOUDFLARE).mode == SELF_SIGNED
    then = world.errand()
    assert (then.mode, then.trusted) == (CLOUDFLARE, True)
    assert world.asked[-2:] == [CERT, KEY]
    assert then.chain.read_bytes() == world.stored[CERT]
    assert world.warnings == []


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        ({CERT: b"<!DOCTYPE html><title>Sign in</title>"}, "is a web page"),
        ({KEY: issue(NAME).key}, "does not belong"),
        ({CERT: issue(NAME).chain[:400]}, "ends in its middle"),
        ({KEY: b""}, "no private key"),
    ],
)
def test_a_bad_new_pair_is_refused_and_the_old_one_stays(world: World, stored: dict[str, bytes], words: str) -> None:
    world.store(issue(NAME))
    world.boot(**BY_CLOUDFLARE)
    old = world.errand()
    world.stored |= stored
    world.days = 1.1
    assert world.boot(**BY_CLOUDFLARE) == old
    assert world.started
    assert world.errand() == old
    [told] = world.warnings
    assert "Refused, because " in told
    assert f": {CERT} and {KEY}. " in told
    assert words in told
    assert "The one in force is good until" in told
    world.store(newer := issue(NAME))
    assert world.errand().chain.read_bytes() == newer.chain
    assert world.warnings == []


@pytest.mark.parametrize("bad", [issue("other.example.com"), issue(NAME, until=timedelta(hours=-1))])
def test_a_pair_for_another_name_or_of_another_day_is_refused(world: World, bad: Pair) -> None:
    world.store(bad)
    world.boot(**BY_CLOUDFLARE)
    assert world.errand().mode == SELF_SIGNED
    assert len(world.warnings) == 1


def test_where_the_pair_is_kept_is_asked_again_after_a_day_and_silence_there_is_no_trouble(world: World) -> None:
    world.store(issue(NAME))
    world.boot(**BY_CLOUDFLARE)
    old = world.errand()
    world.days = 0.9
    world.boot(**BY_CLOUDFLARE)
    assert not world.started
    world.days = 1.1
    world.boot(**BY_CLOUDFLARE)
    world.stored.clear()
    assert world.errand() == old
    assert world.warnings == []
    world.store(issue(NAME))
    assert world.errand() != replace(old, until="")
    world.boot(**BY_CLOUDFLARE)
    assert not world.started


def test_a_pair_that_was_never_there_is_said(world: World) -> None:
    world.boot(**BY_CLOUDFLARE)
    world.errand()
    [words] = world.warnings
    assert f"there is nothing at {CERT}" in words


MODES = [{}, ALONE, BY_LETS_ENCRYPT, BY_CLOUDFLARE]


@pytest.mark.parametrize("before", MODES)
@pytest.mark.parametrize("after", MODES)
def test_each_mode_turns_into_each_other(world: World, before: dict[str, str], after: dict[str, str]) -> None:
    modes = {"": NONE, "domain_name": SELF_SIGNED, "ssl_email": LETS_ENCRYPT, "cf_key_path": CLOUDFLARE}
    world.store(issue(NAME))
    for attributes in (before, after, before):
        now = world.boot(**attributes)
        assert (now.mode == NONE) == (not attributes)
        assert now.name == attributes.get("domain_name", "")
        assert world.errand().mode == modes[list(attributes)[-1] if attributes else ""]


def test_a_good_certificate_serves_until_the_one_that_is_wanted_instead_is_there(world: World) -> None:
    world.boot(**BY_LETS_ENCRYPT)
    first = world.errand()
    assert world.boot(**BY_CLOUDFLARE) == first
    assert world.errand() == first, "nothing is stored there"
    world.store(issue(NAME))
    assert world.errand().mode == CLOUDFLARE


@pytest.mark.parametrize("moment", ["chain.pem", "key.pem", "about.json", "current"])
def test_a_power_cut_leaves_the_old_pair_or_the_new_one(
    world: World, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.boot(**BY_LETS_ENCRYPT)
    old = (world.now().chain.read_bytes(), world.now().key.read_bytes())

    class PowerCut(BaseException):
        pass

    real_write, real_link = files.write, files.link

    def write(path: Path, content: str | bytes, **how: bool) -> None:
        if path.name == moment and path.is_relative_to(tls.folder_of(world.machine.paths)):
            raise PowerCut
        real_write(path, content, **how)  # pyright: ignore[reportArgumentType]

    def link(path: Path, target: str) -> bool:
        if path.name == moment:
            raise PowerCut
        return real_link(path, target)

    monkeypatch.setattr(files, "write", write)
    monkeypatch.setattr(files, "link", link)
    with pytest.raises(PowerCut):
        world.errand()
    assert (world.now().chain.read_bytes(), world.now().key.read_bytes()) == old
    monkeypatch.undo()
    world.boot(**BY_LETS_ENCRYPT)
    assert world.errand().mode == LETS_ENCRYPT


def test_old_certificates_are_removed_when_they_have_expired(world: World) -> None:
    world.boot(**BY_LETS_ENCRYPT)
    world.errand()
    world.days = 91
    world.boot(**BY_LETS_ENCRYPT)
    assert [held.mode for held in tls.every(world.machine.paths)] == [SELF_SIGNED]
    assert len(list(tls.folder_of(world.machine.paths).iterdir())) == 2, "and the link"


def test_cloudflares_networks_are_looked_up_beside_the_pair(world: World) -> None:
    world.store(issue(NAME))
    world.boot(**BY_CLOUDFLARE)
    firewall.ensure(world.system, world.machine.steps, world.wanted())
    world.errand()
    said = files.read(world.machine.paths.etc / firewall.VISITORS)
    assert said.count("set_real_ip_from") == 3


def test_a_name_too_long_for_a_common_name_has_a_certificate_too(world: World) -> None:
    name = ".".join(["a" * 60, "b" * 60, "example.com"])
    assert world.boot(domain_name=name).name == name
    assert f"DNS:{name}" in world.names()


def test_openssl_that_is_missing_is_told(world: World) -> None:
    world.machine.on_command = lambda line: Done(code=127, err="no openssl") if line.startswith("openssl") else None
    with pytest.raises(Trouble, match="no openssl"):
        world.boot(**ALONE)
    assert world.now().mode == NONE


def test_the_machine_finds_out_by_its_name_whether_it_is_meant(tmp_path: Path) -> None:
    paths = Paths(root=tmp_path)
    with pytest.raises(NotHere, match="leads nowhere yet"):
        acme.leads_here(paths, "nowhere.invalid")
    assert list(paths.acme.rglob("comfyweb-*")) == []
