"""What the gate works with: paths, clocks, ComfyUI's address. Tests pass their own."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from vm_setup.base.clocks import read_clocks
from vm_setup.base.paths import Paths
from vm_setup.host.gate import FILE
from vm_setup.host.messages import Now


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Where things are and what time it is. `every` is how often, in seconds, the keeper's file is looked at."""

    paths: Paths = field(default_factory=Paths)
    now: Callable[[], Now] = read_clocks
    comfyui: tuple[str, int] = ("127.0.0.1", 8188)
    every: float = 0.2

    @property
    def told(self) -> Path:
        """The keeper's file."""
        return self.paths.runtime / FILE

    @property
    def calls(self) -> Path:
        """The socket at which nginx asks whether somebody may come in."""
        return self.paths.gate / "calls.sock"

    @property
    def tunnels(self) -> Path:
        """The socket to which nginx hands websockets."""
        return self.paths.gate / "tunnels.sock"

    @property
    def memory(self) -> Path:
        """Cookies and spent tickets of this boot, so that a restart throws nobody out and lets no ticket in twice."""
        return self.paths.gate / "memory.json"
