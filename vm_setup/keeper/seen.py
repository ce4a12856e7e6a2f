"""What the keeper's threads bring from outside, as values: ComfyUI's answers, the graphics card, the disk."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from vm_setup.host.boot import Boot
from vm_setup.host.messages import Certificate, Current


class Reached(str, Enum):
    """How a look at ComfyUI ended. `REFUSED`: nobody listens, so that what ran there runs no more."""

    ANSWERED = "answered"
    SILENT = "silent"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One look at ComfyUI, which `began` then. `ended` names the newest jobs that are over; None when not asked.

    `why` it didn't answer is for the log.
    """

    began: float
    reached: Reached
    running: int | None = None
    pending: int | None = None
    version: str = ""
    ended: Sequence[str] | None = None
    current: Current | None = None
    why: str = ""

    @property
    def jobs(self) -> int | None:
        """Prompts that run or wait; None when that is unknown."""
        return None if self.running is None or self.pending is None else self.running + self.pending


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
