"""The data disk before it is mounted: looked at, formatted when provably blank, checked and grown.

This runs as `comfyweb-disk.service` in front of the mount, at each boot. Formatting is the only thing here that can
destroy anything, so `judge` lets it happen in two cases alone: every sign says that the disk has never held anything;
or we had found it so, were formatting it, and died (our mark, written to it before, is still there).
"""

import hashlib
import mmap
import os
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from vm_setup.base import files
from vm_setup.host.idle import DISK_HOLD
from vm_setup.setup.holds import held
from vm_setup.setup.steps import DISK, Steps
from vm_setup.setup.system import LOG, System

_MIB = 1 << 20
_CHUNK = 4 * _MIB
_TELL_BYTES = 1 << 30
_PAGE = 4096
_GROUP_BYTES = 128 * _MIB  # ext4 with blocks of 4 KiB
_MARK = b"comfyweb: this disk was blank and is being formatted\n"
_EXT = frozenset({"ext2", "ext3", "ext4"})
# A difference that is worth growing for: less than this may be the rest that ext4 can't use.
_WORTH_BYTES = 16 * _MIB
_SMALLEST_BYTES = 32 * _MIB
_FSCK_REPAIRED = 2  # e2fsck(8): 0 clean, 1 repaired, 2 repaired and wants a reboot; from 4 on it needs a person
_UNSUPPORTED = "unsupported feature"  # what e2fsck and its library say of a feature that is newer than they are
_BLKID_NOTHING = 2  # blkid(8), low-level probing: nothing was identified
_AN_HOUR = 3600.0


class State(str, Enum):
    """What the disk is, and so what is done with it."""

    USABLE = "usable"
    BLANK = "blank"
    UNFINISHED = "unfinished"
    ABSENT = "absent"
    FOREIGN = "foreign"
    IN_USE = "in use"
    READ_ONLY = "read-only"
    DAMAGED = "damaged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What was seen of the disk. Whatever could not be read counts as a sign that it holds something."""

    present: bool = False
    size: int = 0
    read_only: bool = False
    busy: str = ""
    partitions: bool = True
    blkid_code: int = -1
    kind: str = ""
    wipefs_silent: bool = False
    zero: bool = False
    marked: bool = False


def judge(look: Look) -> State:
    """Say what the disk is. Only BLANK and UNFINISHED are ever formatted."""
    if not look.present:
        return State.ABSENT
    if look.busy:
        return State.IN_USE
    if look.read_only:
        return State.READ_ONLY
    if look.partitions:
        return State.FOREIGN
    if look.marked:
        return State.UNFINISHED
    if look.kind in _EXT:
        return State.USABLE
    nothing_known = look.blkid_code == _BLKID_NOTHING and not look.kind and look.wipefs_silent
    return State.BLANK if nothing_known and look.zero and look.size >= _SMALLEST_BYTES else State.FOREIGN


WORDS = {
    State.ABSENT: (
        "The data disk is not attached to the machine under the device name persistent-comfyui. ComfyUI works on the "
        "boot disk for now: what is made there is not on the data disk. Attach the disk, then start the machine again."
    ),
    State.FOREIGN: (
        "The data disk holds something that comfyweb does not know ({kind}), so it was left untouched. ComfyUI works "
        "on the boot disk for now. Attach an empty disk, or mount this one at /mnt/persist yourself."
    ),
    State.IN_USE: (
        "The data disk is in use by something else ({kind}), so it was left untouched. ComfyUI works on the boot disk "
        "for now."
    ),
    State.READ_ONLY: (
        "The data disk is attached read-only, so nothing can be written to it. ComfyUI works on the boot disk for now. "
        "Attach it in read/write mode, then start the machine again."
    ),
    State.DAMAGED: (
        "The data disk's file system has errors that are not safe to repair unattended ({kind}), so it is not "
        "mounted. Take a snapshot of it, then run e2fsck on the machine. ComfyUI works on the boot disk for now."
    ),
}


def prepare(system: System, steps: Steps) -> State:
    """Make the disk ready to be mounted if it can be, and write down how it is."""
    device = system.paths.disk
    steps.begin(DISK, "The data disk is looked at")
    if mounted(system):
        return State.USABLE
    with held(system, DISK_HOLD):
        return _prepare(system, steps, device)


def _prepare(system: System, steps: Steps, device: Path) -> State:
    look = examine(system, lambda words: steps.detail(DISK, words))
    state = judge(look)
    detail = look.busy or look.kind or "no file system"
    # Looking took its time, in which somebody may have come to use the disk.
    if state is State.BLANK and judge(examine(system, ends_only=True)) is not State.BLANK:
        state, detail = State.FOREIGN, "it was changed while it was looked at"
    if state in {State.BLANK, State.UNFINISHED}:
        steps.detail(DISK, "The data disk is empty: it is formatted")
        state, detail = _format(system, device, look.size)
    elif state is State.USABLE:
        state, detail = _check(system, steps, device, look.size)
    words = detail if state is State.USABLE else WORDS[state].format(kind=detail)
    files.write_object(_verdict(system), {"state": state.value, "words": words}, durable=False)
    if state is State.USABLE:
        steps.done(DISK)
    else:
        steps.failed(DISK, words)
    return state


def verdict(system: System) -> str:
    """Return what `prepare` has to tell people in this boot; nothing when all is well."""
    return str(files.read_object(_verdict(system)).get("words", ""))


def _verdict(system: System) -> Path:
    return system.paths.runtime / "disk.json"


def examine(system: System, tell: Callable[[str], None] = lambda _: None, *, ends_only: bool = False) -> Look:
    """Look at the disk without changing it, and tell how far that is; with `ends_only` not between its ends."""
    device = system.paths.disk
    if not device.exists():
        return Look()
    name = device.resolve().name
    in_sys = system.paths.kernel / "sys/class/block" / name
    probe = system.run("blkid", "-p", "-o", "export", device)
    found = dict(line.split("=", 1) for line in probe.out.splitlines() if "=" in line)
    traces = system.run("wipefs", "--no-act", "--noheadings", device)
    size = _number(system.run("blockdev", "--getsize64", device).out)
    ambivalent = "several file systems at once" if probe.code == 8 else ""  # noqa: PLR2004 - blkid(8)
    return Look(
        present=True,
        size=size,
        read_only=system.run("blockdev", "--getro", device).out.strip() != "0",
        busy=_busy(system, in_sys),
        partitions="PTTYPE" in found or any(in_sys.glob(f"{name}*/partition")),
        blkid_code=probe.code,
        kind=ambivalent or found.get("TYPE") or found.get("PTTYPE", ""),
        wipefs_silent=traces.ok and not traces.out.strip(),
        zero=_is_zero(device, size, tell, ends_only=ends_only),
        marked=_read_at(device, _mark_place(size), _PAGE) == _mark(size),
    )


def _busy(system: System, in_sys: Path) -> str:
    """Return who holds the disk: a mount, or another device on top of it; nothing when it is free."""
    holders = sorted(holder.name for holder in in_sys.glob("holders/*"))
    if holders:
        return f"part of {', '.join(holders)}"
    number = files.read(in_sys / "dev").strip()
    return next((f"mounted at {where}" for what, where in mounts(system) if what == number), "") if number else ""


def mounts(system: System) -> list[tuple[str, str]]:
    """List what is mounted: device number and place, as proc(5) has them in `mountinfo`."""
    lines = files.read(system.paths.kernel / "proc/self/mountinfo").splitlines()
    columns = (line.split() for line in lines)
    return [(row[2], row[4].encode().decode("unicode_escape")) for row in columns if len(row) > 4]  # noqa: PLR2004


def mounted(system: System) -> bool:
    """Whether something is mounted where the data disk belongs."""
    return any(where == str(system.paths.mount) for _, where in mounts(system))


def _is_zero(device: Path, size: int, tell: Callable[[str], None], *, ends_only: bool) -> bool:
    """Whether the whole disk is zero, read from end to end.

    Nothing less proves that it never held anything. It is done once, for a new disk, and takes some minutes for each
    100 GB; what holds a file system is told from its first block. It is read past the kernel's cache, which would give
    up everything else for it. Meanwhile nobody can mount the disk or format it (O_EXCL of a block device).
    """
    zeros = bytes(_CHUNK)
    try:
        handle = _open_directly(device)
        try:
            if size <= 0 or os.lseek(handle, 0, os.SEEK_END) < size:
                return False
            place = told = 0
            with mmap.mmap(-1, _CHUNK) as block:  # aligned to pages, as O_DIRECT wants it
                while place < size:
                    if place - told >= max(_TELL_BYTES, size // 100):
                        told = place
                        tell(f"The data disk seems empty: {place >> 30} of {size >> 30} GiB are looked at")
                    count = os.preadv(handle, [block], place)
                    if count <= 0 or block[:count] != zeros[:count]:  # comparing is twenty times as fast as counting
                        return False
                    place += count
                    if ends_only:
                        place = max(place, size - _CHUNK)
            return True
        finally:
            os.close(handle)
    except OSError:
        return False


def _open_directly(device: Path) -> int:
    """Open a disk for reading past the cache; through it where that can't be."""
    try:
        return os.open(device, os.O_RDONLY | os.O_CLOEXEC | os.O_EXCL | os.O_DIRECT)
    except OSError:
        return os.open(device, os.O_RDONLY | os.O_CLOEXEC | os.O_EXCL)


def _read_at(device: Path, place: int, length: int) -> bytes:
    try:
        with device.open("rb", buffering=0) as disk:
            disk.seek(place)
            return disk.read(length)
    except OSError:
        return b""


def _mark_place(size: int) -> int:
    """Return where our mark goes: three quarters of the way, in a block group's last part, which mkfs doesn't write."""
    if size < 8 * _GROUP_BYTES:
        return size * 3 // 4 // _PAGE * _PAGE
    return size * 3 // 4 // _GROUP_BYTES * _GROUP_BYTES + _GROUP_BYTES * 3 // 4


def _mark(size: int) -> bytes:
    text = _MARK + f"{size}\n".encode()
    return (text + hashlib.sha256(text).hexdigest().encode()).ljust(_PAGE, b"\0")


def _write_at(device: Path, place: int, raw: bytes) -> None:
    """Write to a disk that nobody else holds. Raises OSError, also when somebody does."""
    handle = os.open(device, os.O_WRONLY | os.O_EXCL | os.O_CLOEXEC)
    try:
        os.pwrite(handle, raw, place)
        os.fsync(handle)
    finally:
        os.close(handle)


def _format(system: System, device: Path, size: int) -> tuple[State, str]:
    """Make the file system. A death in here is noticed by the mark, and the next boot begins again."""
    try:
        _write_at(device, _mark_place(size), _mark(size))
        made = system.run(
            *("mkfs.ext4", "-q", "-F", "-L", "comfyweb", "-U", str(uuid.uuid4()), "-m", "0.1"),
            *("-E", "lazy_itable_init=1,nodiscard", device),
            timeout=_AN_HOUR,
        )
        if not made.ok:
            return State.FOREIGN, f"formatting it failed: {made.words}"
        _write_at(device, _mark_place(size), bytes(_PAGE))
    except OSError as error:
        return State.IN_USE, str(error)
    LOG.info("The data disk was blank and is formatted now.")
    return State.USABLE, ""


def _check(system: System, steps: Steps, device: Path, size: int) -> tuple[State, str]:
    """Repair what is safe to repair, and grow the file system when the disk has grown."""
    held = _held_bytes(system, device)
    tried = system.paths.state / "grown-to"
    grows = 0 < held <= size - _WORTH_BYTES and files.read(tried) != f"{size} {held}"
    steps.detail(DISK, "The data disk has grown: its file system follows" if grows else "The data disk is checked")
    checked = system.run("e2fsck", "-fp" if grows else "-p", device, timeout=12 * _AN_HOUR)
    if _UNSUPPORTED in checked.out + checked.err:
        return State.FOREIGN, f"a file system made by a newer system: {checked.words}"
    if not 0 <= checked.code <= _FSCK_REPAIRED:
        return State.DAMAGED, checked.words
    if grows:
        grown = system.run("resize2fs", device, timeout=12 * _AN_HOUR)
        files.write(tried, f"{size} {_held_bytes(system, device)}")
        if not grown.ok:
            return State.USABLE, f"The data disk has grown, but its file system could not follow: {grown.words}"
    return State.USABLE, ""


def _held_bytes(system: System, device: Path) -> int:
    """Return how large the file system is; 0 when it doesn't say."""
    told = system.run("dumpe2fs", "-h", device).out
    blocks, block = (re.search(rf"^{name}:\s*(\d+)$", told, re.MULTILINE) for name in ("Block count", "Block size"))
    return int(blocks[1]) * int(block[1]) if blocks and block else 0


def _number(text: str) -> int:
    return int(text) if text.strip().isdigit() else 0


def main(_version: str) -> int:
    """`comfyweb.pyz disk`: the exit code says whether the disk may be mounted."""
    system = System()
    return 0 if prepare(system, Steps(paths=system.paths, now=system.now)) is State.USABLE else 1
