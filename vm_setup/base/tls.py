"""The certificates that the machine has, and which is in force: `/var/lib/comfyweb/tls`, root's alone.

Each certificate lies with its key in a folder of its own that never changes; `current` is a link to the one in force,
so that nobody ever sees the half of a pair.
"""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from vm_setup.base import files
from vm_setup.base.paths import Paths
from vm_setup.host.messages import rfc3339
from vm_setup.host.reading import number

NONE, SELF_SIGNED, LETS_ENCRYPT, CLOUDFLARE = "none", "self-signed", "letsencrypt", "cloudflare"
CHAIN, KEY, ABOUT = "chain.pem", "key.pem", "about.json"
_CURRENT = "current"
_LONGEST_BEFORE_SECONDS = 30 * 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """How ComfyUI is reached: `none` is plain HTTP, and then there are no files.

    `trusted`: visitors' browsers take it without asking, as far as the machine can tell. `until` is RFC 3339, or empty.
    """

    mode: str = NONE
    chain: Path = Path()
    key: Path = Path()
    trusted: bool = False
    name: str = ""
    until: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dates:
    """From when until when a certificate is good, in seconds since the epoch."""

    since: float
    until: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A certificate that the machine has: for which name, and `source`, where it is from. Seconds since the epoch.

    `trusted`: visitors come by Cloudflare, which trusts it, or the machine's own list of authorities has its issuer.
    """

    folder: Path
    mode: str
    name: str
    source: str
    since: float
    until: float
    fetched: float
    trusted: bool

    @classmethod
    def read(cls, folder: Path) -> "Held | None":
        """Return what a folder holds, or None when it is no certificate, or half of one."""
        about = files.read_object(folder / ABOUT)
        since, until, fetched = (number(about.get(key)) for key in ("since", "until", "fetched"))
        if since is None or until is None or not all((folder / name).exists() for name in (CHAIN, KEY)):
            return None
        mode, name, source = (str(about.get(key, "")) for key in ("mode", "name", "source"))
        return cls(
            folder=folder,
            mode=mode,
            name=name,
            source=source,
            since=since,
            until=until,
            fetched=fetched or since,
            trusted=about.get("trusted", mode != SELF_SIGNED) is True,  # of one that was kept before this was noted
        )

    def is_good(self, wall: float) -> bool:
        """Whether its dates are in order."""
        return self.since <= wall < self.until

    def should_be_renewed(self, wall: float) -> bool:
        """Whether 30 days are left, or a third of its life if that is less."""
        return wall >= self.until - min(_LONGEST_BEFORE_SECONDS, (self.until - self.since) / 3)


def folder_of(paths: Paths) -> Path:
    """Return where the certificates are."""
    return paths.state / "tls"


def in_force(paths: Paths) -> Held | None:
    """Return the certificate in force, or None where there is none."""
    link = folder_of(paths) / _CURRENT
    return Held.read(link.resolve()) if link.is_symlink() else None


def current(paths: Paths, *, wall: float | None = None) -> Tls:
    """Return what nginx should serve with, and what the page is told."""
    link = folder_of(paths) / _CURRENT
    held = in_force(paths)
    if held is None:
        return Tls(mode=NONE, chain=link / CHAIN, key=link / KEY)
    good = held.is_good(time.time() if wall is None else wall)
    return Tls(
        mode=held.mode,
        chain=link / CHAIN,
        key=link / KEY,
        trusted=good and held.trusted,
        name=held.name,
        until=rfc3339(held.until),
    )


def every(paths: Paths) -> list[Held]:
    """List the certificates that the machine has, in force or not, the longest lasting first."""
    folders = sorted(folder_of(paths).glob("*-*"))
    found = [held for folder in folders if folder.is_dir() and (held := Held.read(folder)) is not None]
    return sorted(found, key=lambda held: held.until, reverse=True)


def keep(
    paths: Paths, *, chain: Path, key: Path, mode: str, name: str, source: str, dates: Dates, trusted: bool, wall: float
) -> Held:
    """Keep a pair that was checked. Raises OSError; then there is nothing new."""
    content, secret = chain.read_text("ascii"), key.read_text("ascii")
    place = folder_of(paths) / f"{mode}-{files.digest(content, name, source)}"
    held = Held(
        folder=place,
        mode=mode,
        name=name,
        source=source,
        since=dates.since,
        until=dates.until,
        fetched=wall,
        trusted=trusted,
    )
    about = json.dumps({key: value for key, value in asdict(held).items() if key != "folder"})
    folder_of(paths).mkdir(mode=0o700, parents=True, exist_ok=True)
    if Held.read(place) is None:
        partial = folder_of(paths) / ".new"
        files.remove(partial)
        files.remove(place)
        partial.mkdir(mode=0o700)
        files.write(partial / CHAIN, content, mode=0o600)
        files.write(partial / KEY, secret, mode=0o600)
        files.write(partial / ABOUT, about, mode=0o600)
        partial.rename(place)
        files.flush_folder(place.parent)
    else:
        files.write(place / ABOUT, about, mode=0o600)
    return held


def put_in_force(paths: Paths, held: Held) -> bool:
    """Let a certificate be the one that is served with; say whether it was another before."""
    return files.link(folder_of(paths) / _CURRENT, held.folder.name)


def put_none_in_force(paths: Paths) -> None:
    """Serve plain HTTP."""
    files.remove(folder_of(paths) / _CURRENT)


def forget(paths: Paths, *, wall: float) -> None:
    """Remove what can't be of use any more: what has expired, and is not in force."""
    used = in_force(paths)
    for held in every(paths):
        if held.until <= wall and (used is None or held.folder != used.folder):
            files.remove(held.folder)
