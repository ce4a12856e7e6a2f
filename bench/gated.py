"""`python -m bench.gated ROOT`: the gate as a process of its own, with its files below a folder."""

import sys
from pathlib import Path

from vm_setup.base.paths import Paths
from vm_setup.gate import daemon
from vm_setup.gate.world import World

if __name__ == "__main__":
    sys.exit(daemon.run(World(paths=Paths(root=Path(sys.argv[1])))))
