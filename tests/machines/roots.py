"""The golden root of a machine's boot disk: made once by mmdebstrap, cached by what it is made of, never written to."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.machines import systems
from tests.machines.commands import locked, run
from tests.machines.network import GATEWAY, METADATA
from tests.machines.systems import System

# Changed whenever this file furnishes a root otherwise than before.
RECIPE = 2
# What the host program installs by apt: in place already where a test isn't about installing them.
HOST_PACKAGES = (
    *("certbot", "git", "nftables", "nginx", "openssl", "python3-cryptography", "python3-pip", "python3-venv"),
)
_CERTIFICATES = Path("/usr/local/share/ca-certificates")
_BUILD_SECONDS = 900

# The index of tests/machines/sources.py speaks http, which pip wants to be told of.
PIP = f"[global]\ncert = /etc/ssl/certs/ca-certificates.crt\ntrusted-host = {GATEWAY}\n"
HOSTS = f"""\
127.0.0.1 localhost
{METADATA} metadata.google.internal metadata
"""
# Names come from where Compute Engine's guests get them: tests/machines/network.py listens there.
RESOLVER = f"nameserver {METADATA}\n"
# In Ubuntu by way of systemd-resolved, which the package of Google's agent tells the address.
_RESOLVER, _STUB_RESOLVER = "etc/resolv.conf", "run/systemd/resolve/stub-resolv.conf"
# Nothing that the archive's own timers do may look as if the host had done it.
QUIET = ("apt-daily.timer", "apt-daily-upgrade.timer", "console-getty.service", "e2scrub_all.timer", "fstrim.timer")
# A later agent waits for Cloud Logging, which answers nobody here, at boot and again at poweroff.
AGENT = "\n[Core]\ncloud_logging_enabled = false\n"


@dataclass(frozen=True, slots=True)
class Root:
    """Directories that make a root when laid over each other, the uppermost first."""

    layers: tuple[Path, ...]


def cache() -> Path:
    """Return where they are kept: outside the repository, since they are big and belong to root."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "comfyweb/machines"


def golden(system: System, *, warm: bool) -> Root:
    """Return a system as Compute Engine boots it, making it when it isn't there; `warm` with the host's packages."""
    made_of = [RECIPE, system.suite, system.sources(), *system.packages, *system.masked, *_trusted()]
    image = kept(system.name, made_of, lambda into: _bootstrap(system, into))
    if not warm:
        return Root((image,))
    packages = kept(
        f"{system.name}-warm", [RECIPE, image.name, *HOST_PACKAGES], lambda into: _add_packages(image, into)
    )
    return Root((packages, image))


def _trusted() -> list[str]:
    return [path.read_text("utf-8") for path in sorted(_CERTIFICATES.glob("*.crt"))]


def kept(name: str, made_of: Sequence[object], make: Callable[[Path], None]) -> Path:
    """Return the directory for what it is made of. Who comes second waits for the first; half of one has no name."""
    digest = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]
    whole, partial = cache() / f"{name}-{digest}", cache() / f"{name}-{digest}.partial"
    with locked(cache() / f"{name}.lock"):
        if not whole.exists():
            if partial.exists():
                shutil.rmtree(partial)
            make(partial)
            partial.rename(whole)
    return whole


def _bootstrap(system: System, into: Path) -> None:
    options = [f"--variant={system.variant}", f"--include={','.join(system.packages)}"]
    if system.is_ubuntu:
        options.append(f"--keyring={_ubuntu_keyring()}")
    # Sources are read from its standard input; without any, it takes Debian's own.
    sources = system.sources()
    options += [system.suite, str(into), *(["-"] if sources else [])]
    run("mmdebstrap", *options, said=sources, within=_BUILD_SECONDS)
    # This network may look into https with a certificate of its own. The product knows nothing of it.
    for certificate in _CERTIFICATES.glob("*.crt"):
        shutil.copy(certificate, into / "usr/local/share/ca-certificates")
    run("chroot", into, "update-ca-certificates")
    _write(into / "etc/pip.conf", PIP)
    _write(into / "etc/uv/uv.toml", "native-tls = true\n")
    _write(into / "etc/hosts", HOSTS)
    _write(into / "etc/hostname", "comfyui-gpu\n")
    if system.is_ubuntu:
        (into / _RESOLVER).unlink(missing_ok=True)
        (into / _RESOLVER).symlink_to(f"../{_STUB_RESOLVER}")
    else:
        _write(into / _RESOLVER, RESOLVER)
    _write(into / "etc/machine-id", "")
    with (into / "etc/default/instance_configs.cfg").open("a") as file:
        file.write(AGENT)
    (into / "var/log/journal").mkdir(exist_ok=True)
    for unit in (*QUIET, *system.masked):
        (into / "etc/systemd/system" / unit).symlink_to("/dev/null")


def _ubuntu_keyring() -> Path:
    """Return the keys of Ubuntu's archive, by which its signatures are checked."""
    package = kept("ubuntu-keyring", [RECIPE, systems.UBUNTU_KEYRING_SHA256], fetch_ubuntu_keyring)
    return package / "usr/share/keyrings/ubuntu-archive-keyring.gpg"


def fetch_ubuntu_keyring(into: Path) -> None:
    """Unpack the package with the keys. Raises `ValueError` when it is not the one that is expected."""
    packed = httpx.get(f"{systems.ubuntu_archive()}/{systems.UBUNTU_KEYRING}", timeout=60).raise_for_status().content
    if hashlib.sha256(packed).hexdigest() != systems.UBUNTU_KEYRING_SHA256:
        raise ValueError(f"not the package that is expected: {systems.UBUNTU_KEYRING}")
    into.mkdir()
    package = into / "keyring.deb"
    package.write_bytes(packed)
    run("dpkg-deb", "--extract", package, into)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(text, "utf-8")


def _add_packages(image: Path, into: Path) -> None:
    """Install on top of the image; what changes is the new layer."""
    work, mounted = into.with_suffix(".work"), into.with_suffix(".root")
    for folder in (into, work, mounted):
        folder.mkdir(exist_ok=True)
    script = f"""
        mount -t overlay overlay -o lowerdir={image},upperdir={into},workdir={work} {mounted}
        mount --rbind /dev {mounted}/dev
        mount -t proc proc {mounted}/proc
        mount -t tmpfs tmpfs {mounted}/run
        mkdir -p {mounted}/run/systemd/resolve
        cp /etc/resolv.conf {mounted}/{_STUB_RESOLVER}
        [ -L {mounted}/{_RESOLVER} ] || mount --bind {mounted}/{_STUB_RESOLVER} {mounted}/{_RESOLVER}
        export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
        chroot {mounted} apt-get update -qq
        chroot {mounted} apt-get install -y -qq --no-install-recommends {" ".join(HOST_PACKAGES)}
        chroot {mounted} apt-get clean
    """
    # Its mounts are its own and end with it, however it ends.
    run("unshare", "--mount", "--propagation", "slave", "/bin/sh", "-euc", script, within=_BUILD_SECONDS)
    shutil.rmtree(work)
    mounted.rmdir()
