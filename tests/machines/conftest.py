"""Which of these tests can run here, and that nothing is left of their machines afterwards."""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from tests.machines import leftovers
from tests.machines.first_boot import FirstBoot, boot_once
from tests.machines.installed import Host, equip, put_disks
from tests.machines.machine import Machine
from tests.machines.systems import DEBIAN, System

HERE = Path(__file__).parent
# A program, and the Debian package that has it.
NEEDED = {
    "certutil": "libnss3-tools",
    "curl": "curl",
    "dnsmasq": "dnsmasq-base",
    "git": "git",
    "ip": "iproute2",
    "mkfs.ext4": "e2fsprogs",
    "mmdebstrap": "mmdebstrap",
    "nft": "nftables",
    "nginx": "nginx-light",
    "pebble": "pebble",
    "systemd-nspawn": "systemd-container",
}


def what_is_missing() -> str:
    """Return why no machine can run here; empty when they can."""
    if os.geteuid():
        return "real machines need root"
    packages = sorted({package for program, package in NEEDED.items() if shutil.which(program) is None})
    return f"real machines need: apt-get install {' '.join(packages)}" if packages else ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave what boots a machine out of the inner loop."""
    for item in items:
        if item.path.parent == HERE:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def clean_computer() -> Iterator[None]:
    """Begin without what a killed run has left, and find nothing of this run's at its end."""
    if missing := what_is_missing():
        pytest.skip(missing)
    leftovers.sweep_abandoned()
    yield
    assert leftovers.found() == []


class NewMachine(Protocol):
    """Makes a machine, as `Machine` does."""

    def __call__(self, *, system: System = DEBIAN, warm: bool = True, egress: bool = False) -> Machine: ...


@pytest.fixture
def new_machine(clean_computer: None) -> Iterator[NewMachine]:
    """Make machines that live as long as the test. What a machine has to say is shown when the test fails."""
    with ExitStack() as machines:

        def made(*, system: System = DEBIAN, warm: bool = True, egress: bool = False) -> Machine:
            return machines.enter_context(Machine(system=system, warm=warm, egress=egress))

        yield made


@pytest.fixture
def machine(new_machine: NewMachine) -> Machine:
    """Make a machine with the host's packages, and without a way out."""
    return new_machine()


@pytest.fixture(scope="session")
def first_boot(clean_computer: None, tmp_path_factory: pytest.TempPathFactory) -> FirstBoot:
    """Boot a machine with a blank disk once, for its record and for its disks afterwards."""
    with Machine() as machine:
        return boot_once(machine, tmp_path_factory.mktemp("disks"))


class NewHost(Protocol):
    """Makes a machine on which everything is installed, off, with these metadata."""

    def __call__(self, **metadata: str) -> Host: ...


@pytest.fixture
def new_host(new_machine: NewMachine, first_boot: FirstBoot) -> NewHost:
    """Make machines whose disks are those of the first boot, so that a test begins with a warm boot."""

    def made(**metadata: str) -> Host:
        machine = equip(new_machine(system=first_boot.system, warm=first_boot.warm))
        put_disks(first_boot.disks, machine)
        machine.metadata(**metadata)
        return Host(machine)

    return made


@pytest.fixture
def host(new_host: NewHost) -> Host:
    """Make one with the usual metadata."""
    return new_host()
