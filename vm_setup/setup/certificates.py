"""Which certificate ComfyUI is served with: the best that can be had now, and at last the one that is wanted.

`ensure` is a part of each boot's set-up: it asks nobody, and has a certificate for the right name in force when it
returns, if only one that the machine made for itself. Whatever needs the network is done beside the boot by
`comfyweb-certificates.service` (`main`), as often as it takes.
"""

import tempfile
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from vm_setup.base import files, tls
from vm_setup.base.paths import Data, Paths
from vm_setup.base.tls import CLOUDFLARE, LETS_ENCRYPT, SELF_SIGNED, Held, Tls
from vm_setup.host.messages import rfc3339
from vm_setup.setup import acme, adoption, cloudflare, fetching, firewall, metadata, pair, units, web
from vm_setup.setup.acme import NotHere
from vm_setup.setup.metadata import Wanted
from vm_setup.setup.pair import Unusable
from vm_setup.setup.steps import Steps
from vm_setup.setup.system import LOG, System, Trouble

TOPIC = "Certificate: "
_SELF_SIGNED_DAYS = 397
# Looking whether the name leads here costs nothing. Let's Encrypt takes five failures an hour for a name
# (https://letsencrypt.org/docs/rate-limits/), and the machine may be unable to see itself from outside as others do.
_LOOK_SECONDS = (5.0, 10.0, 20.0, 30.0)
_REFUSED_SECONDS = (60.0, 300.0, 900.0, 1800.0, 3600.0)
_ASK_ANYWAY_SECONDS = 1800.0
_FETCH_AGAIN_SECONDS = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """What is asked of others: whether a name leads here (raises `NotHere`), and files (raises `Trouble`)."""

    leads_here: Callable[[Paths, str], None] = acme.leads_here
    fetch: Callable[[str], bytes] = fetching.fetch


@dataclass(frozen=True, slots=True)
class Aim:
    """The certificate that is wanted in the end, and where it is from."""

    mode: str
    source: str = ""

    @classmethod
    def of(cls, wanted: Wanted) -> "Aim":
        """Judge what the metadata ask for: Cloudflare's where a pair is named, Let's Encrypt's where an address is."""
        if wanted.origin_pair:
            return cls(CLOUDFLARE, " ".join(wanted.origin_pair))
        return cls(LETS_ENCRYPT, wanted.acme_server) if wanted.email else cls(SELF_SIGNED)

    def is_met_by(self, held: Held | None, wanted: Wanted) -> bool:
        """Whether that certificate is the wanted one, whatever its dates."""
        return held is not None and (held.mode, held.source, held.name) == (self.mode, self.source, wanted.domain)


def ensure(system: System, steps: Steps, wanted: Wanted) -> None:
    """Put the best certificate in force that can be had without asking anybody, and have the rest done beside the boot.

    Raises `Trouble`.
    """
    system.paths.acme.mkdir(parents=True, exist_ok=True)
    units.apply(system, [units.CERTIFICATES, units.CERTIFICATES_TIMER], Data(volume=system.paths.mount))
    with _changing(system.paths):
        if not wanted.domain:
            tls.put_none_in_force(system.paths)
        else:
            tls.put_in_force(system.paths, _best(system, wanted))
        tls.forget(system.paths, wall=system.wall())
    if wanted.domain and Aim.of(wanted).mode == SELF_SIGNED:
        steps.warn(
            f"{TOPIC}browsers warn of ComfyUI's, which the machine made for itself. Set SSL_EMAIL to get one of Let's "
            "Encrypt, or CF_CERT_PATH and CF_KEY_PATH."
        )
    if is_due(system, wanted):
        done = system.run("systemctl", "--no-block", "restart", units.CERTIFICATES)
        if not done.ok:
            raise Trouble(f"Nothing was started that gets a certificate: {done.words}")


def is_due(system: System, wanted: Wanted) -> bool:
    """Whether somebody has to be asked for a certificate."""
    aim, held = Aim.of(wanted), tls.in_force(system.paths)
    if not wanted.domain or aim.mode == SELF_SIGNED:
        return False
    if held is None or not aim.is_met_by(held, wanted):
        return True
    if aim.mode == CLOUDFLARE:  # it lasts for years, and may be replaced at any time where it is kept
        return not 0 <= system.wall() - held.fetched < _FETCH_AGAIN_SECONDS
    return held.should_be_renewed(system.wall())


def _best(system: System, wanted: Wanted) -> Held:
    """Choose among what the machine has for that name: what is wanted, else what is in force, else what is good."""
    wall, aim, used = system.wall(), Aim.of(wanted), tls.in_force(system.paths)
    held = [one for one in tls.every(system.paths) if one.name == wanted.domain]
    good = [one for one in held if one.is_good(wall) and not (one.mode == SELF_SIGNED and one.should_be_renewed(wall))]
    if right := [one for one in good if aim.is_met_by(one, wanted)]:
        return next((one for one in right if one == used), right[0])
    if aim.mode != SELF_SIGNED and good:
        return next((one for one in good if one == used), min(good, key=lambda one: one.mode == SELF_SIGNED))
    return _make_self_signed(system, wanted)


def _make_self_signed(system: System, wanted: Wanted) -> Held:
    with _workplace(system.paths) as folder:
        chain, key = acme.self_signed(system, wanted.domain, folder, days=_SELF_SIGNED_DAYS)
        return _keep(system, wanted, Aim(SELF_SIGNED), chain, key)


def _keep(system: System, wanted: Wanted, aim: Aim, chain: Path, key: Path) -> Held:
    """Keep a pair that can serve under the wanted name. Raises `Unusable`."""
    return tls.keep(
        system.paths,
        chain=chain,
        key=key,
        mode=aim.mode,
        name=wanted.domain,
        source=aim.source,
        dates=pair.check(chain, key, wanted.domain),
        trusted=aim.mode == CLOUDFLARE or (aim.mode == LETS_ENCRYPT and pair.is_trusted(chain, key, wanted.domain)),
        wall=system.wall(),
    )


@dataclass(slots=True)
class Errand:
    """Getting the wanted certificate, until it is there. `read` returns what is wanted at that moment."""

    system: System
    steps: Steps
    read: Callable[[], Wanted]
    outside: Outside
    looks: int = 0
    refusals: int = 0
    asked: float = 0.0

    def run(self) -> None:
        """Ask, and ask again, until nothing is left to be got. Raises `Trouble` when nginx won't have it."""
        self._know_cloudflare(self.read())
        while is_due(self.system, wanted := self.read()):
            self.system.sleep(self._try(wanted))
        if Aim.of(wanted).mode != SELF_SIGNED or not wanted.domain:
            self.steps.retract(TOPIC)
        web.apply(self.system)

    def _know_cloudflare(self, wanted: Wanted) -> None:
        """Let a newer list of Cloudflare's networks be in force, where its proxy is in front."""
        if wanted.origin_pair and cloudflare.refresh(
            self.system.paths,
            wall=self.system.wall(),
            fetch=lambda url: self.outside.fetch(url).decode("ascii", "replace"),
        ):
            firewall.ensure(self.system, self.steps, wanted)

    def _try(self, wanted: Wanted) -> float:
        """Try once; return how many seconds to wait before the next time."""
        try:
            self._get(wanted)
        except NotHere as error:
            self.looks += 1
            self._tell(str(error))
            return _LOOK_SECONDS[min(self.looks, len(_LOOK_SECONDS)) - 1]
        except (Trouble, Unusable, OSError) as error:
            self.refusals += 1
            held = tls.in_force(self.system.paths)
            if isinstance(error, Unusable) or not wanted.origin_pair or not Aim.of(wanted).is_met_by(held, wanted):
                self._tell(str(error))
            else:  # it only couldn't be asked whether there is a newer one
                LOG.info("%s.", error)
            return _REFUSED_SECONDS[min(self.refusals, len(_REFUSED_SECONDS)) - 1]
        return _REFUSED_SECONDS[0] if is_due(self.system, wanted) else 0.0  # a certificate of seconds, or a new wish

    def _get(self, wanted: Wanted) -> None:
        """Get the certificate, check it, and put it in force, unless another is wanted meanwhile."""
        aim = Aim.of(wanted)
        with _workplace(self.system.paths) as folder:
            chain, key = self._fetch(wanted, folder) if wanted.origin_pair else self._ask(wanted, folder)
            with _changing(self.system.paths):
                asked = self.read()
                if (asked.domain, Aim.of(asked)) != (wanted.domain, aim):
                    return
                try:
                    held = _keep(self.system, wanted, aim, chain, key)
                except Unusable as error:
                    raise Unusable(f"Refused, because {error}: {aim.source.replace(' ', ' and ')}") from error
                tls.put_in_force(self.system.paths, held)
        LOG.info("The certificate of %s (%s) is good until %s.", wanted.domain, aim.mode, rfc3339(held.until))

    def _fetch(self, wanted: Wanted, folder: Path) -> tuple[Path, Path]:
        chain, key = folder / tls.CHAIN, folder / tls.KEY
        for path, url in zip((chain, key), wanted.origin_pair or (), strict=True):
            files.write(path, self.outside.fetch(url), mode=0o600, durable=False)
        return chain, key

    def _ask(self, wanted: Wanted, folder: Path) -> tuple[Path, Path]:
        """Ask the authority once the name leads here; now and then even so, for it may see more than the machine."""
        try:
            self.outside.leads_here(self.system.paths, wanted.domain)
        except NotHere:
            if not self.looks:
                self.asked = self.system.now()
            if self.system.now() - self.asked < _ASK_ANYWAY_SECONDS:
                raise
        self.asked = self.system.now()
        return acme.ask_authority(self.system, wanted, folder)

    def _tell(self, words: str) -> None:
        """Say what is wrong, and what is served meanwhile."""
        now = tls.current(self.system.paths, wall=self.system.wall())
        self.steps.retract(TOPIC)
        self.steps.warn(f"{TOPIC}{words}. {_meanwhile(now)} It is tried again.")


def _meanwhile(now: Tls) -> str:
    if now.trusted:
        return f"The one in force is good until {now.until[:10]}."
    if now.mode == SELF_SIGNED:
        return "Until then browsers warn, because the machine made its certificate for itself."
    return "The one in force has expired, so browsers warn."


@contextmanager
def _workplace(paths: Paths) -> Generator[Path]:
    """Give a folder for keys that are not yet checked: in memory, root's alone, gone in the end."""
    paths.runtime.mkdir(mode=0o755, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tls-", dir=paths.runtime) as name:
        yield Path(name)


def _changing(paths: Paths) -> AbstractContextManager[None]:
    """Let nobody else change what is in force meanwhile: reconcile and the service do."""
    return files.locked(paths.runtime / "tls.lock")


def main(_version: str) -> int:
    """`comfyweb.pyz certificates`."""
    system = System()
    if adoption.Manifest(system).undone.exists():
        return 0

    def read() -> Wanted:
        return Wanted.read(metadata.last_good(system.paths) or {})

    steps = Steps(paths=system.paths, now=system.now)
    try:
        Errand(system=system, steps=steps, read=read, outside=Outside()).run()
    except Trouble as trouble:
        steps.warn(f"{TOPIC}{trouble}")
        return 1
    return 0
