"""Electricity that goes at any moment: the next boot goes on from there and ends where it would have ended."""

import random
import time

import pytest

from tests.machines import sources
from tests.machines.conftest import NewHost, NewMachine
from tests.machines.installed import FIRST_BOOT_SECONDS, RECONCILE, Host, equip
from tests.machines.machine import Machine


def check_disk(machine: Machine) -> None:
    machine.sh("systemctl poweroff")
    machine.wait_off()
    machine.start()
    machine.wait_booted()
    machine.sh("test -d /mnt/persist/comfyui/base/models -a -L /mnt/persist/comfyui/current")


@pytest.mark.parametrize("seed", [1])
def test_a_first_boot_that_is_cut_again_and_again_ends_well(new_machine: NewMachine, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - moments that can be repeated
    host = Host(equip(new_machine()))
    for _ in range(4):
        host.machine.start()
        time.sleep(chance.uniform(0.5, 8))
        host.machine.power_cut()
    host.machine.start()
    host.wait_ready(FIRST_BOOT_SECONDS)
    assert host.version() == "0.33.0"
    check_disk(host.machine)


@pytest.mark.parametrize("seed", [3])
def test_an_upgrade_that_is_cut_again_and_again_ends_well_and_loses_nothing(new_host: NewHost, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - moments that can be repeated
    host = new_host(comfyweb_comfyui=sources.SECOND)
    for _ in range(4):
        host.machine.start()
        time.sleep(chance.uniform(0.5, 6))
        host.machine.power_cut()
    host.machine.start()
    host.machine.until(lambda: host.version() == "0.33.1", "the new release", within=FIRST_BOOT_SECONDS)
    host.machine.sh("test -s /mnt/persist/comfyui/base/models/mine.safetensors")
    host.machine.sh("test -s /mnt/persist/comfyui/base/output/ComfyUI_00001_.png")


@pytest.mark.parametrize("seed", [4])
def test_a_reconcile_that_is_killed_again_and_again_ends_well(host: Host, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - moments that can be repeated
    machine = host.boot().machine
    machine.wait_booted()
    machine.metadata(comfyweb_comfyui=sources.SECOND)
    for _ in range(6):
        machine.sh(f"timeout --signal=KILL {chance.uniform(0.1, 3):.2f} {RECONCILE} || true")
    machine.sh(RECONCILE, within=FIRST_BOOT_SECONDS)
    machine.until(lambda: host.version() == "0.33.1", "the new release")
    assert host.phase() == "ready"
