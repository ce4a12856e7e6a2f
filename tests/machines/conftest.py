"""Which of these tests can run here, and that nothing is left of their machines afterwards."""

import os
import pickle
import shutil
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from tests.machines import leftovers
from tests.machines.commands import locked
from tests.machines.first_boot import FirstBoot, boot_once
from tests.machines.installed import Host, equip, put_disks
from tests.machines.machine import Machine
from tests.machines.systems import DEBIAN, UBUNTUS, System
from tests.machines.visiting import Visitor

HERE = Path(__file__).parent
# A worker that came to one of them last would be waited for by the others: the longest first.
LONGEST = (
    *("test_idle.py", "test_whole_story.py", "test_ubuntu.py", "test_first_boot.py", "test_power_cuts.py"),
    *("test_disk_of_models.py", "test_comfyui_service.py", "test_certificates.py", "test_rig.py"),
)
FAILED = pytest.StashKey[bool]()
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
    """Leave what boots a machine out of the inner loop, and begin with what takes longest."""
    for item in items:
        if item.path.parent == HERE:
            item.add_marker(pytest.mark.slow)
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


class ByMachine(LoadFileScheduling):
    """Gives a file's tests to one worker, since they share machines; by system, where it has machines of several."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return next((f"{file} {system}" for system in UBUNTUS if nodeid.endswith(f"[{system}]")), file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByMachine | None:
    """Distribute by machine where it is asked for by file."""
    return ByMachine(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember of a test that it failed, for the fixtures that end after it."""
    report = yield
    item.stash[FAILED] = report.failed or item.stash.get(FAILED, False)
    return report


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
    """Boot a machine with a blank disk once, for its record and for its disks afterwards; once for all workers."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    record, disks = folder / "first-boot.pickle", folder / "first-boot"
    with locked(folder / "first-boot.lock"):
        if not record.exists():
            disks.mkdir(exist_ok=True)
            with Machine() as machine:
                made = pickle.dumps(boot_once(machine, disks))
            record.write_bytes(made)
    return pickle.loads(record.read_bytes())  # noqa: S301 - written by this very run


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


class Shared:
    """One machine that is on and ready, for all tests that leave it as they found it."""

    def __init__(self, first_boot: FirstBoot) -> None:
        self._first_boot = first_boot
        self._visitor: Visitor | None = None

    def visitor(self) -> Visitor:
        """Return somebody in front of it, in whom it believes."""
        if self._visitor is None:
            self._visitor = Visitor(Machine())
            try:
                self._boot(self._visitor)
            except BaseException:
                self.close()
                raise
        return self._visitor

    def _boot(self, visitor: Visitor) -> None:
        put_disks(self._first_boot.disks, equip(visitor.machine))
        visitor.introduce()
        Host(visitor.machine).boot()
        visitor.machine.wait_booted()

    def close(self) -> None:
        """Take it away; who asks next gets another."""
        if self._visitor is not None:
            self._visitor.machine.close()
            self._visitor = None


@pytest.fixture(scope="session")
def shared(first_boot: FirstBoot) -> Iterator[Shared]:
    """Keep the machine that is shared."""
    made = Shared(first_boot)
    yield made
    made.close()


@pytest.fixture
def visitor(shared: Shared, request: pytest.FixtureRequest) -> Iterator[Visitor]:
    """Somebody in front of the shared machine. A test that fails takes the machine with it."""
    made = shared.visitor()
    made.machine.until(lambda: made.status() == 401, "a gate that knows that ComfyUI is ready")
    yield made
    if request.node.stash.get(FAILED, True):
        shared.close()


@pytest.fixture
def standing(visitor: Visitor) -> Host:
    """The shared machine: for a test that only looks, or puts back what it changes."""
    return Host(visitor.machine)
