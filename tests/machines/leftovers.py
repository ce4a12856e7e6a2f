"""What a machine leaves on this computer, and how all of it goes: found by the machine's name alone.

The same sweep ends a machine at the end of its test and, at the beginning of the next run, those of a run that was
killed: it needs nothing that only the dead run knew.
"""

import os
import shutil
import tempfile
from pathlib import Path

from tests.machines.commands import locked, run
from tests.machines.disks import Disk
from tests.machines.groups import Group
from tests.machines.network import RESOLVERS, Network

MACHINES = Path(tempfile.gettempdir()) / "comfyweb-machines"
# Held while a folder is made or removed, and while the dead are looked for: none is seen without its owner's name.
_LOCK = MACHINES / "lock"


def new_name() -> str:
    """Return a name that no machine has, neither here nor in another process, and take it."""
    with locked(_LOCK):
        for count in range(10):
            name = f"cw{os.getpid():x}m{count}"
            folder = MACHINES / name
            if not folder.exists():
                folder.mkdir()
                (folder / "owner").write_text(_owner(os.getpid()), "utf-8")
                return name
    raise RuntimeError("this process has ten machines already")


def folder_of(name: str) -> Path:
    """Return where the machine's files are."""
    return MACHINES / name


def groups_of(name: str) -> tuple[Group, Group]:
    """Return the control groups of the machine itself and of what serves it."""
    return Group(f"{name}-machine"), Group(f"{name}-services")


def sweep(name: str) -> None:
    """Take away all that there is of a machine. Twice does no harm."""
    _end(name)
    with locked(_LOCK):
        shutil.rmtree(folder_of(name), ignore_errors=True)


def _end(name: str) -> None:
    for group in groups_of(name):
        group.remove()
    Network(name).remove()
    for image in folder_of(name).glob("*.img"):
        Disk(image).detach()


def sweep_abandoned() -> None:
    """Take away the machines whose process is dead."""
    with locked(_LOCK):
        for folder in MACHINES.glob("cw*"):
            owner = folder / "owner"
            written = owner.read_text("utf-8") if owner.exists() else ""
            if written != _owner(int(written.split()[0]) if written else 0):
                _end(folder.name)
                shutil.rmtree(folder, ignore_errors=True)


def found(name: str = "") -> list[str]:
    """Return all that is left of the machine, of whatever kind; of all that this process made, when none is named."""
    wanted = name or f"cw{os.getpid():x}m"
    namespaces = run("ip", "netns", "list").splitlines()
    links = run("ip", "-o", "link").splitlines()
    loops = run("losetup", "--list", "--noheadings", "--output", "BACK-FILE").splitlines()
    mounts = Path("/proc/self/mounts").read_text("utf-8").splitlines()
    tables = run("nft", "list", "tables").splitlines()
    groups = [str(path) for path in Path("/sys/fs/cgroup").glob("*/cw*")]
    folders = [str(path) for path in (*MACHINES.glob("cw*"), *RESOLVERS.glob("cw*"))]
    everything = [*namespaces, *links, *loops, *mounts, *tables, *groups, *folders]
    return [line for line in everything if wanted in line]


def _owner(process: int) -> str:
    """Return what names a process and no later one of the same number; empty when there is none."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text("utf-8")
    except FileNotFoundError:
        return ""
    return f"{process} {stat.rpartition(')')[2].split()[19]}"
