"""The persistent disk: a machine takes one that is blank or its own, and harms none."""

import contextlib
import hashlib
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.machines.commands import run
from tests.machines.installed import FIRST_BOOT_SECONDS, Host

MIB = 1024 * 1024


def digest(disk: Path) -> str:
    """Name what was ever written to a disk, and where: the rest of its file are holes, which need not be read."""
    whole, end = hashlib.sha256(), disk.stat().st_size
    with disk.open("rb") as file, contextlib.suppress(OSError):  # that there is nothing more
        place = 0
        while place < end:
            begin = os.lseek(file.fileno(), place, os.SEEK_DATA)
            place = os.lseek(file.fileno(), begin, os.SEEK_HOLE)
            whole.update(f"{begin} {place}\n".encode() + os.pread(file.fileno(), place - begin, begin))
    return whole.hexdigest()


def swap(disk: Path) -> None:
    run("mkswap", disk)


def partitions(disk: Path) -> None:
    """An MBR with one Linux partition, as fdisk makes it."""
    entry = bytes.fromhex("00202100 83 fe ff ff 00080000 00f81f00")
    with disk.open("r+b") as file:
        file.seek(446)
        file.write(entry)
        file.seek(510)
        file.write(b"\x55\xaa")


def bytes_in_its_middle(disk: Path) -> None:
    """What something that keeps no signature has written, such as an encrypted volume without a header."""
    with disk.open("r+b") as file:
        file.seek(700 * MIB)
        file.write(random.Random(1).randbytes(16 * MIB))  # noqa: S311 - any bytes will do


def half_a_superblock(disk: Path) -> None:
    run("mkfs.ext4", "-q", disk)
    with disk.open("r+b") as file:
        file.seek(1024)
        file.write(bytes(64))


FOREIGN = (swap, partitions, bytes_in_its_middle, half_a_superblock)


@pytest.mark.parametrize("put", FOREIGN)
def test_a_disk_that_holds_anything_foreign_is_never_written_to(host: Host, put: Callable[[Path], None]) -> None:
    machine = host.machine
    machine.data.make("1G")
    put(machine.data.file)
    before = digest(machine.data.file)
    machine.start()
    machine.until(lambda: host.step("disk").get("state") == "failed", "the disk's step")
    assert any("boot disk" in warning for warning in host.warnings())
    machine.power_cut()
    assert digest(machine.data.file) == before


def test_a_file_system_with_somebodys_files_is_used_and_keeps_them(host: Host, tmp_path: Path) -> None:
    machine = host.machine
    (tmp_path / "notes").write_text("theirs")
    machine.data.make("4G")
    machine.data.format("ext4", "-L", "theirs", "-d", str(tmp_path))
    machine.start()
    host.wait_ready(FIRST_BOOT_SECONDS)
    look = "blkid --output value --match-tag LABEL /dev/sdb; findmnt -no SOURCE /mnt/persist; cat /mnt/persist/notes"
    assert machine.sh(look) == "theirs\n/dev/sdb\ntheirs"


def test_a_disk_that_is_attached_read_only_is_told_and_left_alone(host: Host) -> None:
    host.machine.data.make("1G")
    host.machine.data.format("ext4")
    host.machine.data.read_only = True
    before = digest(host.machine.data.file)
    host.machine.start()
    host.machine.until(lambda: host.step("disk").get("state") == "failed", "the disk's step")
    assert any("read-only" in warning for warning in host.warnings())
    host.machine.power_cut()
    assert digest(host.machine.data.file) == before


def test_without_the_disk_comfyui_works_on_the_boot_disk_and_says_so(host: Host) -> None:
    machine = host.machine
    machine.guest.data_attached = False
    machine.start()
    host.wait_ready(FIRST_BOOT_SECONDS)
    assert any("boot disk" in warning for warning in host.warnings())
    machine.sh("test -d /var/lib/comfyweb/persist/comfyui/base/models")


def test_a_disk_that_grew_is_grown_before_it_is_used(host: Host) -> None:
    host.machine.data.grow("9G")
    host.boot()
    assert int(host.machine.sh("df --output=size -B1 /mnt/persist | tail -1")) > 8_000_000_000
    host.machine.sh("test -s /mnt/persist/comfyui/base/models/mine.safetensors")


def test_a_full_disk_is_told_and_comfyui_is_there_all_the_same(host: Host) -> None:
    host.boot()
    host.machine.sh("fallocate -l $(df --output=avail -B1 /mnt/persist | tail -1) /mnt/persist/big; systemctl poweroff")
    host.machine.wait_off()
    host.boot()
    host.machine.until(lambda: any("nearly full" in warning for warning in host.warnings()), "words about it")
    host.machine.sh("test -s /mnt/persist/comfyui/base/models/mine.safetensors")


def test_a_disk_that_turns_read_only_under_comfyui_is_told_until_it_can_be_written_again(standing: Host) -> None:
    def told() -> bool:
        return any("can only be read" in warning for warning in standing.warnings())

    standing.machine.sh("mount -o remount,ro /mnt/persist")  # as ext4 does by itself after an error
    standing.machine.until(told, "words about it")
    assert standing.answers()
    standing.machine.sh("mount -o remount,rw /mnt/persist")
    standing.machine.until(lambda: not told(), "silence")


def test_what_the_user_mounts_there_himself_serves_from_the_second_boot_on(host: Host) -> None:
    machine = host.machine
    host.boot()
    machine.wait_booted()
    machine.sh("mkdir /srv/mine; echo '/srv/mine /mnt/persist none bind,nofail 0 0' >> /etc/fstab")
    for _ in range(2):
        machine.sh("systemctl poweroff", check=False)
        machine.wait_off()
        machine.start()
        host.wait_ready(FIRST_BOOT_SECONDS)
        machine.wait_booted()
        machine.until(lambda: host.step("disk").get("state") == "done", "the disk's step")
    assert "/srv/mine" in machine.sh("findmnt --noheadings --output SOURCE /mnt/persist")
    machine.sh("test -d /srv/mine/comfyui/base/models; tail -1 /etc/fstab | grep ^/srv/mine")
