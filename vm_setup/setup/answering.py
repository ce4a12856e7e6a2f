"""Whether ComfyUI is there and has work, and noting when it first answers.

`comfyweb-answering.service` runs this beside every start of ComfyUI, so that its step has an end and the next boot an
expected time. It only looks: a ComfyUI that hangs is started again by the keeper (`systemctl restart comfyui`).
"""

from vm_setup.base import files
from vm_setup.base.comfyui import Reached
from vm_setup.base.places import STATE
from vm_setup.setup.steps import COMFYUI, Steps
from vm_setup.setup.system import System

_EVERY_SECONDS = 0.1
LONGEST_SECONDS = 1800.0


def answers(system: System) -> bool:
    """Whether ComfyUI is up."""
    return system.look().reached is Reached.ANSWERED


def busy(system: System) -> bool:
    """Whether prompts run or wait in ComfyUI, or may.

    One that is silent, although it has answered in this boot, may be kept from it by what it computes.
    """
    look = system.look()
    if look.reached is Reached.SILENT:
        return files.read_object(system.paths.runtime / STATE).get("ready_at") is not None
    return bool(look.jobs)


def wait(system: System, steps: Steps) -> int:
    """Note ComfyUI's first answer. Returns the exit code: 1 when there was none in half an hour."""
    until = system.now() + LONGEST_SECONDS
    if steps.row(COMFYUI).get("state") != "running":
        steps.begin(COMFYUI, "ComfyUI starts")
    while system.now() < until:
        if answers(system):
            steps.done(COMFYUI)
            return 0
        system.sleep(_EVERY_SECONDS)
    steps.failed(COMFYUI, "ComfyUI has not answered for half an hour. Its log is in `journalctl -u comfyui`.")
    return 1


def main(_version: str) -> int:
    """`comfyweb.pyz answering`."""
    system = System()
    return wait(system, Steps(paths=system.paths, now=system.now))
