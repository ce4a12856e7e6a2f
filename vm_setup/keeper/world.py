"""What the keeper and its dead-man switch work with: paths, clocks, addresses. Tests pass their own."""

from collections.abc import Callable
from dataclasses import dataclass, field

from vm_setup.base.clocks import read_clocks, slept
from vm_setup.base.comfyui import ADDRESS
from vm_setup.base.paths import Paths
from vm_setup.base.places import PORT, address
from vm_setup.host.messages import Now


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Where things are and what time it is.

    Seconds between two rounds, two looks at ComfyUI, and two at the machine are `every`, `look` and `survey`.
    """

    paths: Paths = field(default_factory=Paths)
    now: Callable[[], Now] = read_clocks
    slept: Callable[[], float] = slept
    comfyui: str = ADDRESS
    metadata: str = field(default_factory=address)
    port: int = PORT
    every: float = 1.0
    look: float = 2.0
    survey: float = 10.0
    version: str = ""
