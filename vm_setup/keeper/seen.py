"""What the keeper's threads bring from outside, as values: ComfyUI's answers, the graphics card, the disk."""

from dataclasses import dataclass, field

from vm_setup.base.comfyui import Look
from vm_setup.host.boot import Boot
from vm_setup.host.messages import Certificate


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """The graphics card; `percent` is how busy it is. Without a name there is none that answers."""

    name: str
    used_mib: int | None = None
    total_mib: int | None = None
    percent: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """The disk on which ComfyUI's files are."""

    free_bytes: int
    total_bytes: int
    read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """All of it at one moment. None: it couldn't be read lately. `process` is ComfyUI's process id.

    Until everything was `looked_at` once, what is missing proves nothing.
    """

    look: Look | None = None
    process: int | None = None
    card: Card | None = None
    space: Space | None = None
    looked_at: bool = True
    boot: Boot = field(default_factory=Boot)
    holds: dict[str, float] = field(default_factory=dict[str, float])
    expected_start_seconds: float | None = None
    certificate: Certificate = field(default_factory=Certificate)
