"""The host's program: `python3 comfyweb.pyz COMMAND`, as root on the machine."""

import importlib
import logging
import sys
from collections.abc import Callable, Sequence
from importlib import resources
from typing import cast

# A command's module is imported when it is called: a bundle's modules are compiled anew at each start. Its function is
# told the bundle's version and returns the exit code.
COMMANDS = {
    "reconcile": "vm_setup.setup.reconcile:main",
    "disk": "vm_setup.setup.disk:main",
    "answering": "vm_setup.setup.answering:main",
    "certificates": "vm_setup.setup.certificates:main",
    "visitors": "vm_setup.setup.visitors:main",
    "adopt-undo": "vm_setup.setup.reconcile:hand_back",
    "keeper": "vm_setup.keeper.daemon:main",
    "deadman": "vm_setup.keeper.deadman:main",
    "gate": "vm_setup.gate.daemon:main",
}


def version() -> str:
    """Return the bundle's version; outside of a bundle there is none."""
    packed = resources.files("vm_setup").joinpath("VERSION")
    return packed.read_text("utf-8").strip() if packed.is_file() else "source"


def main(words: Sequence[str]) -> int:
    """Do one command; return the exit code."""
    if list(words) == ["version"]:
        sys.stdout.write(f"{version()}\n")
        return 0
    if len(words) != 1 or words[0] not in COMMANDS:
        sys.stderr.write(f"Say one of: {', '.join([*COMMANDS, 'version'])}\n")
        return 2
    logging.basicConfig(level=logging.INFO, format="comfyweb: %(message)s", stream=sys.stdout)
    module, _, name = COMMANDS[words[0]].partition(":")
    command = cast("Callable[[str], int]", getattr(importlib.import_module(module), name))
    return command(version())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
