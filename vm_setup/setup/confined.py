"""What ComfyUI's user, and so any custom node, must not reach: above all the token that the metadata server gives.

The rules are one table of ours, `inet comfyweb`. Nothing runs as that user before they are in force: neither ComfyUI,
whose unit loads them before each start, nor what installs its packages, which may run code of theirs.
"""

from vm_setup.setup import files, layout, units
from vm_setup.setup.system import System, Trouble

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
