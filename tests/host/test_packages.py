"""Another package installation is waited for, and told of; its locks are really held, by another process."""

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.host.machine import Machine
from vm_setup.setup import packages
from vm_setup.setup.steps import PACKAGES
from vm_setup.setup.system import Done, Trouble

LOCKS = ("var/lib/dpkg/lock-frontend", "var/lib/dpkg/lock", "var/lib/apt/lists/lock", "var/cache/apt/archives/lock")
# As apt and dpkg take it: by fcntl(2), which belongs to the process.
HOLD = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine that lacks nftables, whose apt-get installs them."""
    made = Machine(tmp_path, disk_bytes=0)
    (made.root / "usr/bin/nft").unlink()
    for name in LOCKS:
        made.put(name)

    def apt(line: str) -> Done | None:
        if line.endswith("install nftables"):
            made.put("usr/sbin/nft")
        return None

    made.on_command = apt
    return made


@contextmanager
def held(machine: Machine, lock: str) -> Generator["subprocess.Popen[str]"]:
    """Let another process, called unattended-upgr, hold a lock for as long as its standard input is open."""
    command = [sys.executable, "-c", HOLD, machine.root / lock]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        machine.put(f"proc/{process.pid}/comm", "unattended-upgr\n")
        yield process


def end(process: "subprocess.Popen[str]") -> None:
    process.communicate()


def told(machine: Machine) -> str:
    return str(machine.steps.row(PACKAGES)["detail"])


@pytest.mark.parametrize("lock", LOCKS)
def test_it_is_told_who_installs_and_it_goes_on_when_that_is_over(
    machine: Machine, lock: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    with held(machine, lock) as other:

        def sleep(seconds: float) -> None:
            machine.time += seconds
            assert machine.calls == [], "neither apt nor dpkg is asked meanwhile"
            said.append(told(machine))
            if len(said) > 3:
                end(other)

        monkeypatch.setattr(machine, "sleep", sleep)
        packages.ensure(machine.system, machine.steps)
    words = f"Another package installation is under way (unattended-upgr, process {other.pid})"
    assert len(said) > 3
    assert all(one.startswith(words) for one in said)
    assert [call.split()[-1] for call in machine.calls] == ["-a", "update", "nftables"]
    assert machine.steps.row(PACKAGES)["state"] == "done"


def test_afterwards_it_is_told_what_is_installed(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    install = machine.on_command

    def look(line: str) -> Done | None:
        said.append(told(machine))
        return install(line)

    machine.on_command = look
    with held(machine, LOCKS[0]) as other:

        def sleep(_seconds: float) -> None:
            end(other)

        monkeypatch.setattr(machine, "sleep", sleep)
        packages.ensure(machine.system, machine.steps)
    assert said == ["Installing nftables"] * 3


@pytest.mark.parametrize(
    "words",
    [
        (
            "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 812 (apt-get)\n"
            "E: Unable to lock directory /var/lib/apt/lists/"
        ),
        "dpkg: error: dpkg frontend lock was locked by another process with pid 812",
    ],
)
def test_who_was_quicker_is_waited_for_too(machine: Machine, words: str) -> None:
    refusals = [Done(code=100, err=words)] * 2
    install = machine.on_command
    machine.on_command = lambda line: refusals.pop() if refusals and "update" in line else install(line)
    packages.ensure(machine.system, machine.steps)
    assert [call.split()[-1] for call in machine.calls] == ["-a", "update", "update", "update", "nftables"]


def test_what_fails_for_another_reason_is_not_done_again(machine: Machine) -> None:
    machine.on_command = lambda line: Done(code=100, err="E: no network") if "apt-get" in line else None
    with pytest.raises(Trouble, match="nftables could not be installed: E: no network"):
        packages.ensure(machine.system, machine.steps)
    assert [call.split()[-1] for call in machine.calls] == ["-a", "update", "nftables"]


def test_one_that_does_not_end_is_told_with_what_to_do(machine: Machine) -> None:
    began = machine.time
    with (
        held(machine, LOCKS[0]),
        pytest.raises(Trouble, match=r"unattended-upgr, process \d+\) has not ended within 30 minutes, so nftables"),
    ):
        packages.ensure(machine.system, machine.steps)
    assert 1800 <= machine.time - began < 1810
    assert machine.calls == []


def test_a_holder_that_can_not_be_seen_is_waited_for_as_well(machine: Machine) -> None:
    with held(machine, LOCKS[0]) as other:
        (machine.root / f"proc/{other.pid}/comm").unlink()
        with pytest.raises(Trouble, match=r"installation \(by a process that can't be seen\) has not ended"):
            packages.ensure(machine.system, machine.steps)
