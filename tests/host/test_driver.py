"""The graphics card and its driver: a clear word for each way in which they can be wrong."""

import os
import subprocess
from pathlib import Path
from unittest import mock

import pytest

from tests.host.machine import Machine
from vm_setup.base import files
from vm_setup.setup import driver
from vm_setup.setup.system import NOT_FOUND, TIMED_OUT, Commands, Done


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine with a card and no driver."""
    machine = Machine(tmp_path)
    files.remove(machine.root / "proc/driver")
    machine.put("sys/bus/pci/devices/0000:00:04.0/vendor", "0x10de\n")
    machine.put("sys/bus/pci/devices/0000:00:04.0/class", "0x030200\n")
    return machine


def told(machine: Machine) -> str:
    machine.steps.start()
    driver.check(machine.system, machine.steps)
    row = machine.steps.row("driver")
    return f"{row['state']}: {row['detail']}"


def test_a_card_with_its_driver_is_named_without_running_anything(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    assert told(machine) == "done: Tesla T4"
    assert machine.calls == []


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Done(code=NOT_FOUND), "no NVIDIA driver is installed"),
        (Done(code=TIMED_OUT), "does not answer"),
        (Done(code=9, err="couldn't communicate with the NVIDIA driver"), "couldn't communicate"),
        (Done(code=0, out=""), "does not work"),
        (Done(code=0, out="Tesla T4, 580\n"), "the kernel shows no card"),
    ],
)
def test_what_is_wrong_with_the_driver_is_said(machine: Machine, answer: Done, words: str) -> None:
    machine.on_command = lambda line: answer if line.startswith("nvidia-smi") else None
    assert told(machine).startswith("failed: ")
    assert words in told(machine)


def test_no_card_is_said_and_other_devices_are_not_one(machine: Machine) -> None:
    machine.put("sys/bus/pci/devices/0000:00:04.0/class", "0x020000\n")
    machine.put("sys/bus/pci/devices/0000:00:05.0/vendor", "0x1af4\n")
    machine.put("sys/bus/pci/devices/0000:00:05.0/class", "0x030000\n")
    assert "no NVIDIA graphics card" in told(machine)
    assert not driver.has_card(machine.system)


def test_a_program_that_can_not_be_killed_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `nvidia-smi` is, asleep in a driver that hangs."""
    monkeypatch.setattr(subprocess.Popen, "kill", mock.Mock())
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    assert Commands()("cat", fifo, timeout=0.1).code == TIMED_OUT
    with fifo.open("w"):  # whose reader is there still: this ends it
        pass
