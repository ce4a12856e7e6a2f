"""The data disk: formatted only when it has provably never held anything, checked, and grown before it is mounted."""

import os
import shutil
import struct
import subprocess
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.host.machine import MIB, Machine
from vm_setup.base.paths import Paths
from vm_setup.setup import disk
from vm_setup.setup.disk import Look, State, judge
from vm_setup.setup.system import Commands, Done, System

BLANK = Look(present=True, size=64 * MIB, partitions=False, blkid_code=2, wipefs_silent=True, zero=True)
LOOKS = st.builds(
    Look,
    present=st.booleans(),
    size=st.sampled_from([0, 1, 64 * MIB]),
    read_only=st.booleans(),
    busy=st.sampled_from(["", "mounted at /srv"]),
    partitions=st.booleans(),
    blkid_code=st.sampled_from([-1, 0, 2, 8]),
    kind=st.sampled_from(["", "ext4", "xfs", "dos"]),
    wipefs_silent=st.booleans(),
    zero=st.booleans(),
    marked=st.booleans(),
)


@given(LOOKS)
def test_one_doubt_is_enough_not_to_format(look: Look) -> None:
    if judge(look) is State.BLANK:
        assert replace(look, size=BLANK.size) == BLANK
    if judge(look) is State.UNFINISHED:
        assert look.marked
        assert not look.busy
        assert not look.read_only


def test_a_look_at_nothing_finds_nothing_blank() -> None:
    assert judge(Look()) is State.ABSENT
    assert judge(Look(present=True)) is State.FOREIGN


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def contents(machine: Machine) -> bytes:
    return (machine.root / "dev/sdb").read_bytes()


def mkfs(machine: Machine, kind: str) -> None:
    assert machine.run(f"mkfs.{kind}", "-q", machine.paths.disk).ok
    machine.calls.clear()


def test_a_blank_disk_is_formatted_and_is_the_same_afterwards(machine: Machine) -> None:
    assert disk.prepare(machine.system, machine.steps) is State.USABLE
    name = machine.run("blkid", "-p", "-s", "UUID", machine.paths.disk).out
    assert 'UUID="' in name
    assert not disk.examine(machine.system).marked
    assert disk.prepare(machine.system, machine.steps) is State.USABLE
    assert machine.run("blkid", "-p", "-s", "UUID", machine.paths.disk).out == name
    assert sum("mkfs" in call for call in machine.calls) == 1


@pytest.mark.parametrize("place", [0, 511, MIB - 1, 32 * MIB, 41 * MIB + 4711, 64 * MIB - 1])
def test_a_disk_with_a_single_byte_on_it_is_left_alone(machine: Machine, place: int) -> None:
    with (machine.root / "dev/sdb").open("r+b") as raw:
        raw.seek(place)
        raw.write(b"x")
    before = contents(machine)
    assert disk.prepare(machine.system, machine.steps) is State.FOREIGN
    assert contents(machine) == before
    assert "left untouched" in disk.verdict(machine.system)


def test_the_page_is_told_how_far_the_look_at_a_large_disk_is(tmp_path: Path) -> None:
    machine = Machine(tmp_path, disk_bytes=3 << 30)
    details: list[str] = []
    disk.examine(machine.system, details.append)
    assert details == [f"The data disk seems empty: {n} of 3 GiB are looked at" for n in (1, 2)]


@pytest.mark.parametrize("place", [None, 0, 64 * MIB - 1])
def test_a_disk_that_somebody_takes_while_it_is_looked_at_is_theirs(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, place: int | None
) -> None:
    looked = disk._is_zero
    device = machine.root / "dev/sdb"

    def look(*args: Any, **more: Any) -> bool:
        was_zero = looked(*args, **more)
        if place is None:
            mkfs(machine, "ext4")
        else:
            with device.open("r+b") as raw:
                raw.seek(place)
                raw.write(b"x")
        return was_zero

    monkeypatch.setattr(disk, "_is_zero", look)
    assert disk.prepare(machine.system, machine.steps) is State.FOREIGN
    assert "changed while it was looked at" in disk.verdict(machine.system)
    assert not any("mkfs" in call for call in machine.calls)


@pytest.mark.parametrize("kind", ["ext2", "ext3", "ext4"])
def test_a_file_system_that_is_there_is_kept(machine: Machine, kind: str) -> None:
    mkfs(machine, kind)
    assert disk.prepare(machine.system, machine.steps) is State.USABLE
    assert not any("mkfs" in call for call in machine.calls)
    assert disk.examine(machine.system).kind == kind


def test_another_file_system_is_left_alone_and_named(machine: Machine) -> None:
    before = b"XFSB" + bytes(508)
    (machine.root / "dev/sdb").write_bytes(before + bytes(64 * MIB))
    assert disk.prepare(machine.system, machine.steps) is State.FOREIGN
    assert contents(machine)[:512] == before


def test_a_partition_table_is_left_alone(machine: Machine) -> None:
    entry = struct.pack("<B3sB3sII", 0, bytes(3), 0x83, bytes(3), 2048, 8192)
    with (machine.root / "dev/sdb").open("r+b") as raw:
        raw.write(bytes(446) + entry + bytes(48) + b"\x55\xaa")
    assert disk.prepare(machine.system, machine.steps) is State.FOREIGN
    assert "dos" in disk.verdict(machine.system)


@pytest.mark.parametrize("tool", ["blkid", "wipefs", "blockdev --getsize64", "blockdev --getro"])
def test_a_disk_that_can_not_be_looked_at_is_not_formatted(machine: Machine, tool: str) -> None:
    machine.on_command = lambda line: Done(code=127) if line.startswith(tool) else None
    assert disk.prepare(machine.system, machine.steps) is not State.USABLE
    assert not any("mkfs" in call for call in machine.calls)


def test_a_disk_that_can_only_be_read_is_not_written(machine: Machine) -> None:
    machine.on_command = lambda line: Done(out="1\n") if line.startswith("blockdev --getro") else None
    assert disk.prepare(machine.system, machine.steps) is State.READ_ONLY
    assert not any(contents(machine))


def test_a_disk_in_use_is_not_touched(machine: Machine) -> None:
    machine.put("proc/self/mountinfo", "22 1 8:16 / /srv/my\\040models rw - xfs /dev/sdb rw\n")
    assert disk.prepare(machine.system, machine.steps) is State.IN_USE
    assert "/srv/my models" in disk.verdict(machine.system)
    machine.put("proc/self/mountinfo", "")
    machine.put("sys/class/block/sdb/holders/dm-0")
    assert disk.prepare(machine.system, machine.steps) is State.IN_USE
    assert not any(contents(machine))


def test_without_the_disk_that_is_said(tmp_path: Path) -> None:
    machine = Machine(tmp_path, disk_bytes=0)
    assert disk.prepare(machine.system, machine.steps) is State.ABSENT
    assert "not attached" in str(machine.steps.row("disk")["detail"])


def test_formatting_that_was_cut_off_is_begun_again(machine: Machine) -> None:
    def cut_off(line: str) -> Done | None:
        if line.startswith("mkfs"):
            with (machine.root / "dev/sdb").open("r+b") as raw:
                raw.seek(4096)
                raw.write(b"half a group descriptor")
            raise KeyboardInterrupt
        return None

    machine.on_command = cut_off
    with pytest.raises(KeyboardInterrupt):
        disk.prepare(machine.system, machine.steps)
    machine.on_command = lambda _: None
    assert judge(disk.examine(machine.system)) is State.UNFINISHED
    assert disk.prepare(machine.system, machine.steps) is State.USABLE


@pytest.mark.parametrize("gib", [0.0625, 10, 100, *(pytest.param(gib, marks=pytest.mark.slow) for gib in (1, 2000))])
def test_the_mark_of_formatting_outlives_it_and_lies_where_nothing_is(
    tmp_path: Path, gib: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were it overwritten too early, a power cut would leave a disk that is neither blank nor usable."""
    if gib > 1:  # reading such a disk from end to end takes too long for a test
        monkeypatch.setattr(disk, "_is_zero", mock.Mock(return_value=True))
    machine = Machine(tmp_path, disk_bytes=int(gib * (1 << 30)))
    marked_at_the_end: list[bool] = []

    def look(line: str) -> Done | None:
        if line.startswith("mkfs"):
            machine.on_command = lambda _: None
            done = machine.run(*line.split())
            marked_at_the_end.append(disk.examine(machine.system).marked)
            return done
        return None

    machine.on_command = look
    assert disk.prepare(machine.system, machine.steps) is State.USABLE
    assert marked_at_the_end == [True]
    assert machine.run("e2fsck", "-fn", machine.paths.disk).ok


def test_a_disk_that_has_grown_is_grown_into_once(machine: Machine) -> None:
    disk.prepare(machine.system, machine.steps)
    machine.attach(128 * MIB)
    assert disk.prepare(machine.system, machine.steps) is State.USABLE
    told = machine.run("dumpe2fs", "-h", machine.paths.disk).out
    size = {line.split(":")[0]: line.split(":")[1].strip() for line in told.splitlines() if ":" in line}
    assert int(size["Block count"]) * int(size["Block size"]) == 128 * MIB
    machine.calls.clear()
    disk.prepare(machine.system, machine.steps)
    assert not any("resize2fs" in call or "-fp" in call for call in machine.calls)


def test_growing_that_fails_is_told_and_not_tried_at_every_boot(machine: Machine) -> None:
    disk.prepare(machine.system, machine.steps)
    machine.attach(128 * MIB)
    machine.on_command = lambda line: Done(code=1, err="no room") if line.startswith("resize2fs") else None
    assert disk.prepare(machine.system, machine.steps) is State.USABLE
    assert "no room" in disk.verdict(machine.system)
    machine.calls.clear()
    disk.prepare(machine.system, machine.steps)
    assert not any("resize2fs" in call for call in machine.calls)


def test_errors_that_need_a_person_keep_the_disk_unmounted(machine: Machine) -> None:
    disk.prepare(machine.system, machine.steps)
    machine.on_command = lambda line: Done(code=4, err="UNEXPECTED INCONSISTENCY") if "e2fsck" in line else None
    before = contents(machine)
    assert disk.prepare(machine.system, machine.steps) is State.DAMAGED
    assert contents(machine) == before
    assert "UNEXPECTED INCONSISTENCY" in disk.verdict(machine.system)


def test_a_file_system_that_is_newer_than_the_tools_here_is_not_called_damaged(machine: Machine) -> None:
    assert machine.run("mkfs.ext4", "-q", "-O", "^metadata_csum", machine.paths.disk).ok
    with machine.paths.disk.open("r+b") as device:
        device.seek(1024 + 0x63)  # the last byte of s_feature_incompat, Linux: fs/ext4/ext4.h
        device.write(b"\x80")
    before = contents(machine)
    assert disk.prepare(machine.system, machine.steps) is State.FOREIGN
    assert "made by a newer system" in disk.verdict(machine.system)
    assert contents(machine) == before


@pytest.fixture
def loop(tmp_path: Path) -> Generator[System]:
    """A real block device."""
    if os.geteuid() != 0 or not shutil.which("losetup"):
        pytest.skip("a loop device needs root")
    image = tmp_path / "disk.img"
    image.touch()
    os.truncate(image, 96 * MIB)
    made = subprocess.run(["losetup", "--find", "--show", str(image)], check=False, capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no loop device: {made.stderr}")
    device = made.stdout.strip()

    class RealKernel(Paths):
        """Real /proc and /sys, with this device as the data disk."""

        @property
        def disk(self) -> Path:
            return Path(device)

    yield System(paths=RealKernel(root=tmp_path / "root", kernel=Path("/")), run=Commands())
    subprocess.run(["losetup", "--detach", device], check=True)


@pytest.mark.slow
def test_a_real_device_is_formatted_mounted_filled_and_kept(loop: System) -> None:
    steps = Machine(loop.paths.root).steps
    assert disk.prepare(loop, steps) is State.USABLE
    loop.paths.mount.mkdir(parents=True)
    subprocess.run(["mount", str(loop.paths.disk), str(loop.paths.mount)], check=True)
    try:
        (loop.paths.mount / "model").write_text("precious")
        assert disk.mounted(loop)
        assert judge(disk.examine(loop)) is State.IN_USE
    finally:
        subprocess.run(["umount", str(loop.paths.mount)], check=True)
    assert disk.prepare(loop, steps) is State.USABLE
    subprocess.run(["mount", str(loop.paths.disk), str(loop.paths.mount)], check=True)
    try:
        assert (loop.paths.mount / "model").read_text() == "precious"
    finally:
        subprocess.run(["umount", str(loop.paths.mount)], check=True)
