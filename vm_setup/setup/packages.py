"""Programs from the system's archive that the set-up needs. Where all are there, apt is not asked."""

import fcntl
import os
import re
import struct
import sys
from collections.abc import Sequence

from vm_setup.base import files
from vm_setup.setup.steps import PACKAGES, Steps
from vm_setup.setup.system import LOG, Done, System, Trouble

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
_APT = ("apt-get", "-y", "--no-install-recommends")
_ENV = {"DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_MODE": "l"}
_LONGEST_SECONDS = 1200
# What apt and dpkg lock while they work, each for a part of it.
_LOCKS = ("var/lib/dpkg/lock-frontend", "var/lib/dpkg/lock", "var/lib/apt/lists/lock", "var/cache/apt/archives/lock")
# What apt-get and dpkg say when they meet such a lock.
_LOCKED = re.compile(r"Could not get lock|locked by another process")
# unattended-upgrades and cloud-init hold them for minutes after a boot, when there is much to renew
_PATIENCE_SECONDS = 1800.0
_LOOK_SECONDS = 2.0
_FLOCK = "hhqqi4x"  # struct flock of a 64-bit Linux: type, whence, start, length, process


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
    _install(system, steps, absent)
    steps.done(PACKAGES)


def _install(system: System, steps: Steps, absent: Sequence[str]) -> None:
    until = system.now() + _PATIENCE_SECONDS

    def alone(*command: str) -> Done:
        """Run it when nobody else installs, and once more when somebody was quicker."""
        while True:
            _wait_for_others(system, steps, absent, until)
            done = system.run(*command, timeout=_LONGEST_SECONDS, env=_ENV)
            if done.ok or not _LOCKED.search(done.words) or system.now() >= until:
                return done
            system.sleep(_LOOK_SECONDS)

    alone("dpkg", "--configure", "-a")  # a power cut may have cut dpkg off
    updated = alone(*_APT, "update")
    if not updated.ok:
        LOG.warning("apt-get update: %s", updated.words)  # one source that is down need not hold what we want
    done = alone(*_APT, "install", *absent)
    if still := missing(system):
        raise Trouble(f"The system packages {', '.join(still)} could not be installed: {done.words}")


def _wait_for_others(system: System, steps: Steps, absent: Sequence[str], until: float) -> None:
    """Wait while another package installation is under way, and say so. Raises `Trouble` when it doesn't end."""
    told = ""
    while other := _who_installs(system):
        words = f"Another package installation is under way ({other}): this one waits until it is over"
        if words != told:
            steps.detail(PACKAGES, words)
            told = words
        if system.now() >= until:
            raise Trouble(
                f"Another package installation ({other}) has not ended within {_PATIENCE_SECONDS / 60:.0f} minutes, so "
                f"{', '.join(absent)} could not be installed. See to it on the machine, or start the machine again."
            )
        system.sleep(_LOOK_SECONDS)
    if told:
        steps.detail(PACKAGES, f"Installing {', '.join(absent)}")


def _who_installs(system: System) -> str:
    """Return which process holds one of the locks; empty while all of them are free. Takes none itself."""
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    for name in _LOCKS:
        try:
            with (system.paths.root / name).open("rb") as file:
                kind, _, _, _, process = struct.unpack(_FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, asked))
        except OSError:
            continue
        if kind != fcntl.F_UNLCK:
            program = files.read(system.paths.kernel / f"proc/{process}/comm").strip()
            return f"{program}, process {process}" if program else "by a process that can't be seen"
    return ""


def _has_venv(system: System) -> bool:
    """Whether Python can make environments. Debian keeps that in a package of its own."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    folders = (system.paths.root / "usr/lib" / version, system.paths.root / "usr/local/lib" / version)
    by_itself = sys.prefix == sys.base_prefix and not sys.executable.startswith("/usr/bin/")
    return by_itself or any((folder / "ensurepip/__init__.py").exists() for folder in folders)
