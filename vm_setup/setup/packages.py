"""Programs from the system's archive that the set-up needs. Where all are there, apt is not asked."""

import sys

from vm_setup.setup.steps import PACKAGES, Steps
from vm_setup.setup.system import LOG, System, Trouble

# A program that shows that the package is there, and the package's name in Debian and Ubuntu.
NEEDED = {
    "git": "git",
    "nft": "nftables",
    "mkfs.ext4": "e2fsprogs",
    "nginx": "nginx",
    "certbot": "certbot",
    "openssl": "openssl",
}
_VENV = "python3-venv"
_CRYPTOGRAPHY = "python3-cryptography"  # checks Ed25519 signatures; openssl's command would do, much slower
# unattended-upgrades holds dpkg's lock for minutes after a boot
_APT = ("apt-get", "-o", "DPkg::Lock::Timeout=600", "-y", "--no-install-recommends")
_ENV = {"DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_MODE": "l"}
_LONGEST_SECONDS = 1200


def missing(system: System) -> list[str]:
    """List the packages that are not there."""
    found = [package for program, package in NEEDED.items() if system.paths.program_named(program) is None]
    if not (system.paths.root / "usr/lib/python3/dist-packages/cryptography").is_dir():
        found.append(_CRYPTOGRAPHY)
    return found if _has_venv(system) else [*found, _VENV]


def ensure(system: System, steps: Steps) -> None:
    """Install what is missing. Raises `Trouble`."""
    absent = missing(system)
    if not absent:
        steps.done(PACKAGES)
        return
    steps.begin(PACKAGES, f"Installing {', '.join(absent)}")
    system.run("dpkg", "--configure", "-a", timeout=_LONGEST_SECONDS, env=_ENV)  # a power cut may have cut dpkg off
    updated = system.run(*_APT, "update", timeout=_LONGEST_SECONDS, env=_ENV)
    if not updated.ok:
        LOG.warning("apt-get update: %s", updated.words)  # one source that is down need not hold what we want
    done = system.run(*_APT, "install", *absent, timeout=_LONGEST_SECONDS, env=_ENV)
    if still := missing(system):
        raise Trouble(f"The system packages {', '.join(still)} could not be installed: {done.words}")
    steps.done(PACKAGES)


def _has_venv(system: System) -> bool:
    """Whether Python can make environments. Debian keeps that in a package of its own."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    folders = (system.paths.root / "usr/lib" / version, system.paths.root / "usr/local/lib" / version)
    by_itself = sys.prefix == sys.base_prefix and not sys.executable.startswith("/usr/bin/")
    return by_itself or any((folder / "ensurepip/__init__.py").exists() for folder in folders)
