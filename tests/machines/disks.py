"""Disks of a machine: sparse files behind loop devices, and what a power cut does to a file system on them."""

import fcntl
import os
from pathlib import Path

from tests.machines.commands import attempt, run

# ext4 stops at once and writes nothing more, not even what its journal still holds: Linux, fs/ext4/ext4.h.
_EXT4_IOC_SHUTDOWN = 0x8004587D
_NO_LOG_FLUSH = (2).to_bytes(4, "little")


class Disk:
    """A disk that lives in a file and outlasts every boot of its machine. `device` exists while it is attached."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.read_only = False

    def make(self, size: str) -> None:
        """Make it new, all zeros."""
        self.file.unlink(missing_ok=True)
        run("truncate", "-s", size, self.file)

    def format(self, kind: str, *options: str) -> None:
        """Put a file system on it."""
        run(f"mkfs.{kind}", "-q", *options, self.file)

    def grow(self, size: str) -> None:
        """Make it larger, as one does with a persistent disk."""
        run("truncate", "-s", size, self.file)

    def attach(self) -> str:
        """Return its block device.

        It is read and written past this computer's cache: a blank disk, which the host reads from end to end, comes
        several times as fast.
        """
        mode = ["--read-only"] if self.read_only else []
        return self.device() or run("losetup", "--find", "--show", "--direct-io=on", *mode, self.file)

    def device(self) -> str:
        """Return the block device that it has now; empty while it has none."""
        return run("losetup", "--noheadings", "--output", "NAME", "--associated", self.file)

    def detach(self) -> None:
        """Give the block device back, if it has one."""
        if device := self.device():
            attempt("losetup", "--detach", device)


def cut(process: int, device: str) -> None:
    """Let the ext4 on this device, mounted where a process sees it, lose its electricity.

    What it hasn't written by now never will be. Nothing happens unless it is mounted. Whatever else may be found at
    its place, such as a disk of this computer's own, is left alone: the file system is known by its device's numbers.
    """
    number = Path(device).stat().st_rdev
    for point in _mounted(process, number)[:1]:
        try:
            descriptor = os.open(point, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:  # unmounted meanwhile
            continue
        try:
            if os.fstat(descriptor).st_dev == number:
                fcntl.ioctl(descriptor, _EXT4_IOC_SHUTDOWN, _NO_LOG_FLUSH)
        finally:
            os.close(descriptor)


def _mounted(process: int, number: int) -> list[Path]:
    """Return where a process has mounted this block device, as paths that work from outside its namespace."""
    numbers = f"{os.major(number)}:{os.minor(number)}"
    try:
        lines = Path(f"/proc/{process}/mountinfo").read_text("utf-8").splitlines()
    except OSError:  # it has ended
        return []
    points = [fields[4] for fields in map(str.split, lines) if fields[2] == numbers and fields[3] == "/"]
    return [Path(f"/proc/{process}/root", point.lstrip("/")) for point in points]
