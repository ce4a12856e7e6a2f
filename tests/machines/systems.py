"""The systems that a machine can boot: where their packages come from, and what an image at Compute Engine has."""

import re
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import httpx

# Debian has no package of the keys that Ubuntu's archive signs with, so they come from there, held to their sum.
UBUNTU_KEYRING = "pool/main/u/ubuntu-keyring/ubuntu-keyring_2023.11.28.1_all.deb"
UBUNTU_KEYRING_SHA256 = "36de43b15853ccae0028e9a767613770c704833f82586f28eb262f0311adb8a8"
_DEBIAN_SOURCES = Path("/etc/apt/sources.list.d/debian.sources")
_ANSWER_SECONDS = 5

_BOTH = (
    "ca-certificates",
    "cron",
    "curl",
    "dbus",
    "e2fsprogs",
    "google-guest-agent",
    "iproute2",
    "kmod",
    "procps",
    "python3",
    "sudo",
    "systemd",
    "systemd-sysv",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """A release of a distribution.

    `variant` is mmdebstrap's word for the smallest that has apt, `packages` what its image has beyond that, as far as
    a host of ours can tell, and `masked` what of it can't work here, or would do something of its own meanwhile.
    """

    name: str
    suite: str
    variant: str
    packages: tuple[str, ...]
    masked: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the name that a test is shown with."""
        return self.name

    @property
    def is_ubuntu(self) -> bool:
        """Whether it comes from Ubuntu's archive."""
        return self.name.startswith("ubuntu")

    def sources(self) -> str:
        """Return apt's sources: Ubuntu's with its updates, Debian's as this computer has them, empty for apt's own."""
        if self.is_ubuntu:
            suites = (self.suite, f"{self.suite}-updates")  # which has what -security has
            return "".join(f"deb {ubuntu_archive()} {suite} main universe\n" for suite in suites)
        return _DEBIAN_SOURCES.read_text("utf-8") if _DEBIAN_SOURCES.exists() else ""


DEBIAN = System(name="debian-12", suite="bookworm", variant="minbase", packages=_BOTH)
_UBUNTU_PACKAGES = (*_BOTH, "google-compute-engine")
_UBUNTU_MASKED = ("motd-news.timer", "nvmf-autoconnect.service")
UBUNTUS = (
    System(
        name="ubuntu-22.04",
        suite="jammy",
        variant="apt",
        packages=(*_UBUNTU_PACKAGES, "usrmerge"),  # its images have one /usr, which mmdebstrap makes of later ones only
        masked=_UBUNTU_MASKED,
    ),
    System(
        name="ubuntu-24.04",
        suite="noble",
        variant="apt",
        packages=(*_UBUNTU_PACKAGES, "systemd-resolved"),  # in 22.04 it is part of systemd
        masked=_UBUNTU_MASKED,
    ),
)


@cache
def ubuntu_archive() -> str:
    """Return where Ubuntu's packages are: the address that mmdebstrap itself knows."""
    program = shutil.which("mmdebstrap")
    known = re.search(r"'(http://archive\.[^']+/ubuntu)'", Path(program).read_text("utf-8")) if program else None
    assert known is not None, "mmdebstrap knows no archive of Ubuntu's"
    return known[1]


def ubuntu_answers() -> bool:
    """Whether Ubuntu's archive can be reached from here."""
    try:
        return httpx.head(f"{ubuntu_archive()}/{UBUNTU_KEYRING}", timeout=_ANSWER_SECONDS).is_success
    except httpx.HTTPError:
        return False
