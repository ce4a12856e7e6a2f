"""The first boot of a machine, once for all tests: what it said on its way, and its disks at the end."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.machines.installed import FIRST_BOOT_SECONDS, Host, equip, keep_disks
from tests.machines.machine import Machine
from tests.machines.systems import System


@dataclass(kw_only=True)
class FirstBoot:
    """A record. `told` are the guest attribute `phase` as the app's client read it again and again.

    `disks` are those of a machine with this system, `warm` or not, and of no other.
    """

    system: System
    warm: bool
    disks: Path
    state: str
    journal: str
    status: dict[str, Any]
    attributes: dict[str, str]
    files: str
    told: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def steps(self) -> dict[str, str]:
        """Return each step's name and how it ended."""
        return {step["name"]: step["state"] for step in self.status["steps"]}


def boot_once(machine: Machine, disks: Path) -> FirstBoot:
    """Boot a machine that has never been on, with a blank disk, until it is ready; switch it off; keep its disks."""
    host = Host(equip(machine))
    machine.start()
    told: list[dict[str, Any]] = []

    def ready() -> bool:
        said = machine.attributes().get("phase")
        if said and (not told or json.loads(said) != told[-1]):
            told.append(json.loads(said))
        time.sleep(0.2)
        return host.phase() == "ready"

    machine.until(ready, "ready", within=FIRST_BOOT_SECONDS)
    record = FirstBoot(
        system=machine.system,
        warm=machine.warm,
        disks=disks,
        state=machine.wait_booted(),
        journal=machine.journal("google-startup-scripts.service"),
        status=host.status(),
        attributes=machine.attributes(),
        files=machine.sh("find /mnt/persist/comfyui -maxdepth 2 -printf '%P %U\\n'"),
        told=told,
    )
    host.submit(0)
    machine.until(lambda: host.jobs() == 0, "a picture")
    machine.sh("echo mine > /mnt/persist/comfyui/base/models/mine.safetensors; systemctl poweroff")
    machine.wait_off()
    keep_disks(machine, disks)
    return record
