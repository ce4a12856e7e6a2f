"""What ComfyUI's user, and so any custom node, must not reach: above all the token that the metadata server gives.

The rules are one table of ours, `inet comfyweb`. Nothing runs as that user before they are in force: neither ComfyUI,
whose unit loads them before each start, nor what installs its packages, which may run code of theirs. The latter runs
in the sandbox of ComfyUI's unit, as a unit of its own, so that it ends with all that it has started.
"""

from collections.abc import Mapping
from pathlib import Path

from vm_setup.base import files
from vm_setup.base.paths import Data
from vm_setup.base.places import COMFYUI_UNIT
from vm_setup.setup import layout, units
from vm_setup.setup.system import TIMED_OUT, Done, System, Trouble

UNIT = "comfyweb-install.service"
_SANDBOX = "# The sandbox."
_STOP_SECONDS = 120.0

# The user of the JupyterLab that Google's Deep Learning VM images start on port 8080 of loopback.
JUPYTER = "jupyter"
_JUPYTER_RULE = '    meta skuid "comfyui" oif "lo" tcp dport 8080 reject with tcp reset\n'


def rules(*, jupyter: bool) -> str:
    """Return the table, which takes the place of the one before in one step."""
    return units.packed("metadata-block.nft").replace("@JUPYTER@", _JUPYTER_RULE if jupyter else "")


def write(system: System) -> None:
    """Have the rules on disk, where the next boot and ComfyUI's unit find them."""
    jupyter = layout.user_ids(system, JUPYTER) is not None
    files.write_changed(system.paths.etc / units.RULES, rules(jupyter=jupyter))


def ensure(system: System) -> None:
    """Have the rules in force, whatever was before. Raises `Trouble`, and then nothing may run as ComfyUI's user."""
    done = system.run("nft", "-f", system.paths.etc / units.RULES)
    if not done.ok:
        raise Trouble(
            "The rules that keep ComfyUI from the metadata server could not be put in force, so nothing is installed "
            f"for it: {done.words}"
        )


def sandbox(data: Data) -> list[str]:
    """Return the lines of ComfyUI's unit that say what it may do."""
    paragraph = units.rendered(COMFYUI_UNIT, data).partition(f"\n{_SANDBOX}")[2].partition("\n\n")[0]
    return [line for line in paragraph.splitlines()[1:] if not line.startswith("#")]


def run(system: System, data: Data, *command: str | Path, timeout: float, env: Mapping[str, str]) -> Done:
    """Run a command as ComfyUI's user, in ComfyUI's sandbox, and end all that it has started when it is over.

    Raises `Trouble` when the rules for that user can't be put in force.
    """
    ensure(system)
    properties = [*sandbox(data), "KillSignal=SIGKILL", f"RuntimeMaxSec={timeout + _STOP_SECONDS:.0f}"]
    done = system.run(
        # Killed when we are, so that it doesn't keep our lock: what it waits for is ended by the next who installs.
        *("setpriv", "--pdeathsig=KILL", "--"),
        *("systemd-run", "--quiet", "--collect", "--wait", "--pipe", f"--unit={UNIT}"),
        *(f"--property={line}" for line in properties),
        *(f"--setenv={name}={value}" for name, value in {"LANG": "C.UTF-8", **env}.items()),
        "--",
        *command,
        timeout=timeout,
    )
    if done.code == TIMED_OUT:
        end(system)
    return done


def end(system: System) -> None:
    """End what a run that was killed has left behind."""
    system.run("systemctl", "stop", UNIT, timeout=_STOP_SECONDS)
