"""`python -m tests.host.run_keeper ROOT COMFYUI METADATA PORT [deadman]`: the keeper as a process of its own."""

import sys
from pathlib import Path

from vm_setup.base.paths import Paths
from vm_setup.keeper import daemon, deadman
from vm_setup.keeper.world import World


def main(root: str, comfyui: str, metadata: str, port: str, *what: str) -> int:
    """Run it until it is told to end."""
    world = World(
        paths=Paths(root=Path(root)),
        comfyui=comfyui,
        metadata=metadata,
        port=int(port),
        every=0.05,
        look=0.05,
        survey=0.5,
        version="test",
    )
    return int(deadman.look(world)) if what else daemon.run(world)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
