"""Ubuntu 22.04 and 24.04: by the same startup script they become ready, come back, and stop when nobody uses them.

The first boot is that of an image as it comes, so that its packages are asked of Ubuntu's archive; where that doesn't
answer, nothing of this is run.
"""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfyweb.demo.model import Status
from tests.conftest import OutOfReach
from tests.machines import roots, systems
from tests.machines.conftest import NewHost
from tests.machines.first_boot import FirstBoot, boot_once
from tests.machines.installed import Host, equip, put_disks
from tests.machines.machine import Machine
from vm_setup.setup import units

PICTURE = "/mnt/persist/comfyui/base/output/ComfyUI_00001_.png"
IDLE_SECONDS = 6.0


@pytest.fixture(scope="module")
def archive(clean_computer: None) -> None:
    if not systems.ubuntu_answers():
        raise OutOfReach("Ubuntu's archive doesn't answer")


@pytest.fixture(scope="module", params=systems.UBUNTUS, ids=str)
def first_boot(request: pytest.FixtureRequest, archive: None, tmp_path_factory: pytest.TempPathFactory) -> FirstBoot:
    with Machine(system=request.param, warm=False, egress=True) as machine:
        return boot_once(machine, tmp_path_factory.mktemp(machine.system.name))


@pytest.fixture(scope="module")
def host(first_boot: FirstBoot) -> Iterator[Host]:
    """Boot it for the second time, for all tests: without a way out."""
    with Machine(system=first_boot.system, warm=False) as machine:
        put_disks(first_boot.disks, equip(machine))
        yield Host(machine).boot()


def test_keys_that_are_not_the_expected_ones_are_not_trusted(
    archive: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systems, "UBUNTU_KEYRING_SHA256", "0" * 64)
    with pytest.raises(ValueError, match="not the package"):
        roots.fetch_ubuntu_keyring(tmp_path / "keyring")
    assert not (tmp_path / "keyring").exists()


def test_its_first_boot_becomes_ready_and_nothing_on_it_has_failed(first_boot: FirstBoot) -> None:
    assert first_boot.state == "running"
    assert "startup-script exit status 0" in first_boot.journal
    assert re.search("Installing .*git, .*nginx, .*python3-venv", first_boot.journal)
    assert first_boot.status["phase"] == "ready"
    assert first_boot.status["comfyui"]["version"] == "0.33.0"


def test_every_step_has_ended(first_boot: FirstBoot) -> None:
    assert {name for name, state in first_boot.steps().items() if state != "done"} == {"driver"}


def test_a_reboot_is_warm_and_what_was_made_is_there(host: Host) -> None:
    machine = host.machine
    assert machine.wait_booted() == "running"
    machine.sh("systemctl reboot")
    machine.until(lambda: machine.guest.boots == 2, "another boot")
    host.wait_ready()
    assert host.step("comfyui")["expected_seconds"] is not None
    assert machine.wait_booted() == "running"
    assert machine.sh(f"cat /mnt/persist/comfyui/base/models/mine.safetensors; ls {PICTURE}") == f"mine\n{PICTURE}"


def test_comfyuis_user_gets_names_from_systemd_resolved_and_nothing_from_the_metadata_server(host: Host) -> None:
    machine = host.machine
    assert machine.sh("readlink --canonicalize /etc/resolv.conf") == "/run/systemd/resolve/stub-resolv.conf"
    ask = "curl --silent --max-time 3 --header 'Metadata-Flavor: Google' http://169.254.169.254/computeMetadata/v1/"
    user = "setpriv --reuid comfyui --regid comfyui --clear-groups"
    assert machine.sh(f"{user} getent hosts storage.googleapis.com").startswith("169.254.169.254")
    assert machine.sh(ask) != ""
    assert machine.sh(f"{user} {ask} || echo refused") == "refused"


def complaints(machine: Machine) -> list[str]:
    """Return what systemd has against our units. (249 also suspects the masked ones.)"""
    said = machine.sh(f"systemd-analyze verify --man=no {' '.join(units.names())} 2>&1", check=False)
    return [line for line in said.splitlines() if any(name in line for name in units.names())]


def test_its_systemd_understands_every_line_of_the_units(host: Host) -> None:
    assert complaints(host.machine) == []
    unit = "/etc/systemd/system/comfyui.service"
    host.machine.sh(f"cp {unit} /run; sed -i 's/^LockPersonality=/LockPersonalities=/' {unit}")
    assert len(complaints(host.machine)) == 1
    host.machine.sh(f"mv /run/comfyui.service {unit}")


def test_idle_it_powers_itself_off(new_host: NewHost) -> None:
    begin = time.monotonic()
    machine = new_host(comfyweb_idle_minutes=str(IDLE_SECONDS / 60)).boot().machine
    machine.wait_off()
    assert time.monotonic() - begin >= IDLE_SECONDS
    assert machine.status is Status.TERMINATED
