"""What a step of the set-up works with: paths, commands, clocks. Tests pass their own."""

import logging
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from vm_setup.base.comfyui import ADDRESS, Look, Probe
from vm_setup.base.paths import Paths
from vm_setup.base.processes import end_of

USER = "comfyui"
LOG = logging.getLogger("comfyweb")
NOT_FOUND = 127
TIMED_OUT = 124
_TAIL_LINES = 6
_SHOWN_CHARACTERS = 400


class Trouble(Exception):
    """A step that can't be done; the text is for the person at the page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How a command ended: 127 when there is no such program, 124 when it took too long."""

    code: int = 0
    out: str = ""
    err: str = ""

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.code == 0

    @property
    def words(self) -> str:
        """The last lines of what it said, on one line."""
        lines = [line.strip() for line in (self.err or self.out).splitlines() if line.strip()]
        said = " / ".join(lines[-_TAIL_LINES:])[-_SHOWN_CHARACTERS:]
        return said or f"it ended with code {self.code}"


class Run(Protocol):
    """Runs a command to its end. Never raises: what went wrong is in the answer."""

    def __call__(
        self,
        *command: str | Path,
        timeout: float = 60,
        env: Mapping[str, str] | None = None,
    ) -> Done:
        """Run it as root, with `env` added to a clean environment."""
        ...


@dataclass(slots=True)
class Commands:
    """Runs real commands. `held` are open files that they keep open too: a lock outlives us as long as they do."""

    held: Sequence[int] = ()

    def __call__(
        self,
        *command: str | Path,
        timeout: float = 60,
        env: Mapping[str, str] | None = None,
    ) -> Done:
        """Run a command to its end."""
        words = [str(word) for word in command]
        LOG.debug("%s", " ".join(words))
        clean = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
        try:
            process = subprocess.Popen(  # noqa: S603 - the words are ours, and no shell reads them
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd="/",
                env={**clean, **(env or {})},
                pass_fds=tuple(self.held),
            )
        except OSError as error:
            return Done(code=NOT_FOUND, err=f"{words[0]}: {error}")
        said = end_of(process, seconds=timeout)
        if said is None:
            return Done(code=TIMED_OUT, err=f"{words[0]} took longer than {timeout:g} s")
        out, err = (text.decode(errors="replace") for text in said)
        return Done(code=process.returncode, out=out, err=err)


def since_boot() -> float:
    """Return the seconds since the boot, on the clock that never jumps and counts suspended time."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """The machine, as a step sees it. `look` looks at ComfyUI.

    `now` counts seconds from the boot; `wall` from the epoch, for dates alone, because it may be set.
    """

    paths: Paths = field(default_factory=Paths)
    run: Run = field(default_factory=Commands)
    now: Callable[[], float] = since_boot
    wall: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    look: Callable[[], Look] = Probe(ADDRESS, now=since_boot).look
