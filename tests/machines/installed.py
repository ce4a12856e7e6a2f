"""A machine with comfyweb's host on it, and what tests ask it."""

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.machines import sources
from tests.machines.machine import PATIENCE, Machine
from vm_setup import bundle
from vm_setup.base.places import PORT as KEEPER

COMFYUI = 8188
FIRST_BOOT_SECONDS = 600.0  # the same, where packages are installed
RECONCILE = "python3 /opt/comfyweb/current/comfyweb.pyz reconcile"
DISKS = ("boot.img", "data.img")


def equip(machine: Machine) -> Machine:
    """Give a machine its startup script, as `make host-bundle` makes it, and the sources that it installs from."""
    sources.serve(machine)
    machine.metadata(startup_script=bundle.script())
    return machine


def keep_disks(machine: Machine, folder: Path) -> None:
    """Copy the disks of a machine that is off."""
    for name in DISKS:
        _copy(machine.folder / name, folder / name)


def put_disks(folder: Path, machine: Machine) -> None:
    """Give a machine that is off the disks that were kept."""
    for name in DISKS:
        _copy(folder / name, machine.folder / name)


def _copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", source, target], check=True)


class Host:
    """What runs on a machine: ComfyUI (the stand-in) and the keeper, asked on the machine's loopback."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def answers(self) -> bool:
        """Whether ComfyUI answers."""
        return self._said(COMFYUI, "/system_stats") is not None

    def version(self) -> str:
        """Return the version of the ComfyUI that answers."""
        return str((self._said(COMFYUI, "/system_stats") or {}).get("system", {}).get("comfyui_version", ""))

    def status(self) -> dict[str, Any]:
        """Return `_host/status`; empty while nobody answers."""
        return self._said(KEEPER, "/_host/status") or {}

    def phase(self) -> str:
        """Return the phase that the keeper tells."""
        return str(self.status().get("phase", ""))

    def wait_ready(self, within: float = PATIENCE) -> None:
        """Wait until ComfyUI answers and the keeper says so."""
        self.machine.until(lambda: self.answers() and self.phase() == "ready", "ready", within=within)

    def boot(self) -> "Host":
        """Start the machine and wait until it is ready."""
        self.machine.start()
        self.wait_ready()
        return self

    def reconcile(self) -> str:
        """Run the startup script as Google's agent runs it at a boot, and return what it printed."""
        return self.machine.sh("google_metadata_script_runner startup 2>&1", within=FIRST_BOOT_SECONDS)

    def step(self, name: str) -> dict[str, Any]:
        """Return a step of the boot as the keeper tells it; empty while there is none of that name."""
        return next((step for step in self.status().get("steps", []) if step["name"] == name), {})

    def process(self, unit: str) -> int:
        """Return the main process of a unit; 0 while there is none."""
        return int(self.machine.sh(f"systemctl show --property=MainPID --value {unit}"))

    def kill(self, unit: str, signal: str = "KILL") -> None:
        """Send a signal to the main process of a unit."""
        self.machine.sh(f"systemctl kill --kill-who=main --signal={signal} {unit}", check=False)

    def submit(self, seconds: float) -> str:
        """Put a job in ComfyUI's queue that takes so long; return its id."""
        prompt = {"1": {"class_type": "Wait", "inputs": {"seconds": seconds}}}
        status, text = self.machine.request(COMFYUI, "POST", "/prompt", {"prompt": prompt})
        assert status == 200, text
        return str(json.loads(text)["prompt_id"])

    def jobs(self) -> int:
        """Return how many jobs run and wait."""
        queue = self._said(COMFYUI, "/queue") or {}
        return len(queue.get("queue_running", [])) + len(queue.get("queue_pending", []))

    def warnings(self) -> list[str]:
        """Return what the keeper warns of."""
        return list(self.status().get("warnings", []))

    def _said(self, port: int, path: str) -> dict[str, Any] | None:
        try:
            status, text = self.machine.get(port, path)
        except OSError:
            return None
        return json.loads(text) if status == 200 else None
