"""Every path on the machine, in one place, so that tests can put all of them below a folder of their own."""

from dataclasses import dataclass
from pathlib import Path

DISK = "disk/by-id/google-persistent-comfyui"
MOUNT = "mnt/persist"


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """Where things are. `root` holds what is ours to change, `kernel` holds /proc, /sys and /dev."""

    root: Path = Path("/")
    kernel: Path = Path("/")

    @property
    def disk(self) -> Path:
        """The data disk, by the name that it was attached with."""
        return self.kernel / "dev" / DISK

    @property
    def mount(self) -> Path:
        """Where the data disk is mounted."""
        return self.root / MOUNT

    @property
    def fallback(self) -> Path:
        """The folder on the boot disk that serves when there is no data disk to use."""
        return self.state / "persist"

    @property
    def state(self) -> Path:
        """What must survive a reboot and belongs to this boot disk."""
        return self.root / "var/lib/comfyweb"

    @property
    def acme(self) -> Path:
        """The folder that nginx serves to everybody on port 80, below the path of ACME's questions."""
        return self.state / "acme"

    @property
    def runtime(self) -> Path:
        """What belongs to this boot."""
        return self.root / "run/comfyweb"

    @property
    def gate(self) -> Path:
        """What is the gate's own: its sockets, where nginx finds it, and its memory of this boot."""
        return self.root / "run/comfyweb-gate"

    @property
    def units(self) -> Path:
        """Where an administrator's systemd units lie."""
        return self.root / "etc/systemd/system"

    @property
    def etc(self) -> Path:
        """The system's configuration."""
        return self.root / "etc"

    @property
    def versions(self) -> Path:
        """The folder of our own versions, with the link `current` to the one in force."""
        return self.root / "opt/comfyweb"

    @property
    def good(self) -> Path:
        """The link to the version whose services came up last, beside the one in force; the dead-man switch runs it."""
        return self.versions / "good"

    def program_named(self, name: str) -> Path | None:
        """Return where a program of the system lies, or None; asked of the folders, because that starts no process."""
        places = (self.root / folder / name for folder in ("usr/sbin", "usr/bin", "sbin", "bin", "usr/local/bin"))
        return next((place for place in places if place.exists()), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """The tree that ComfyUI lives in, below `/mnt/persist` or its stand-in on the boot disk."""

    volume: Path

    @property
    def tree(self) -> Path:
        """All that is ours on the volume."""
        return self.volume / "comfyui"

    @property
    def base(self) -> Path:
        """ComfyUI's base directory: models, custom nodes, settings, inputs and outputs."""
        return self.tree / "base"

    @property
    def home(self) -> Path:
        """The home of ComfyUI's user: caches of what nodes download."""
        return self.tree / "home"

    @property
    def releases(self) -> Path:
        """ComfyUI's source, one folder for each version."""
        return self.tree / "releases"

    @property
    def current(self) -> Path:
        """The link to the version that runs."""
        return self.tree / "current"

    @property
    def cache(self) -> Path:
        """Packages that uv has downloaded; on the same file system as the environments, so that they are linked."""
        return self.tree / "uv-cache"

    @property
    def state(self) -> Path:
        """What was installed and what worked; root's alone."""
        return self.tree / "state"

    @property
    def old(self) -> Path:
        """ComfyUI's folder in the layout before comfyweb."""
        return self.volume / "ComfyUI"
