"""Programs of ours as processes of their own: what they print, what they start, and that nothing of them is left."""

import contextlib
import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import httpx

from comfyweb.settings import OLD, SECRETS, variables

ROOT = Path(__file__).parent.parent
PATIENCE = 60.0
WORKERS, FIRST_PORT, PORTS_OF_EACH = 8, 10_000, 2500
REQUIRED = {
    "AUTH_PASSWORD": "a quiet river at dawn",
    "JWT_SECRET": "f8b1c2d3e4a5968778695a4b3c2d1e0f",
    "GCP_PROJECT": "demo-project",
}


def surroundings(more: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without anybody's settings, and with these."""
    ours = {*variables(), *OLD, *(f"{name}_FILE" for name in SECRETS)}
    kept = {name: value for name, value in os.environ.items() if name not in ours and not name.startswith("REFLEX_")}
    return {**kept, "COMFYWEB_ENV_FILE": "", "PYTHONPATH": str(ROOT), **more}


def _ports() -> Iterator[int]:
    """Yield this process's own ports, again and again.

    Linux takes what connects from 32768 on, so a port from there can be gone before a program listens on it. Below, a
    worker of pytest-xdist (`gw0`, `gw1`, ...) has a range to itself; where it begins is left to chance, because of
    other runs.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS
    ours = range(FIRST_PORT + worker * PORTS_OF_EACH, FIRST_PORT + (worker + 1) * PORTS_OF_EACH)
    at = random.randrange(PORTS_OF_EACH)  # noqa: S311 - see above
    return itertools.cycle([*ours[at:], *ours[:at]])


_PORTS = _ports()


def free_ports(count: int = 1) -> int:
    """Return the first of so many neighbouring ports on which nobody listens, and which nobody was given lately."""
    while True:
        some = list(itertools.islice(_PORTS, count))
        if some == list(range(some[0], some[0] + count)) and all(map(_is_free, some)):
            return some[0]


def _is_free(port: int) -> bool:
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.bind(("", port))
        return True
    return False


class Program:
    """`python ARGUMENTS`, in a session of its own. `lines` is what it has printed so far.

    `by` is a command that becomes the one behind it, such as `ip netns exec NAME`.
    """

    def __init__(self, *arguments: str, environ: Mapping[str, str], cwd: Path = ROOT, by: Sequence[str] = ()) -> None:
        self.lines: list[str] = []
        self._process = subprocess.Popen(
            [*by, sys.executable, *arguments],
            cwd=cwd,
            env=surroundings(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def says(self, words: str, *, times: int = 1) -> str:
        """Wait until it has printed so many lines with these words; return the last."""
        until = time.monotonic() + PATIENCE
        while len(found := [line for line in list(self.lines) if words in line]) < times:
            assert time.monotonic() < until, f"never said {words!r}:\n" + "\n".join(self.lines)
            assert self._reader.is_alive(), f"ended without saying {words!r}:\n" + "\n".join(self.lines)
            time.sleep(0.05)
        return found[-1]

    def answers(self, url: str) -> None:
        """Wait until something answers there."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                httpx.get(url)
            except httpx.TransportError:
                assert time.monotonic() < until, f"{url} never answered:\n" + "\n".join(self.lines)
                assert self._process.poll() is None, f"ended before {url} answered:\n" + "\n".join(self.lines)
                time.sleep(0.05)
            else:
                return

    def ended(self) -> int:
        """Wait until it has ended and everybody has let go of its output; return the exit code."""
        code = self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        assert not self._reader.is_alive(), "something that it started is still there"
        return code

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, and nobody else."""
        self._process.send_signal(number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._process.poll() is None:
            self.signal(signal.SIGTERM)
            self.ended()
        if self._process.stdout:
            self._process.stdout.close()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            self.lines.append(line.rstrip("\n"))


def children(pid: int, command: str = "") -> list[int]:
    """Return the child processes, those alone whose command line ends like this; zombies have none."""
    found: list[int] = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int(entry.joinpath("stat").read_text().rpartition(")")[2].split()[1])
            words = entry.joinpath("cmdline").read_text().split("\0")
        except OSError:
            continue  # it has just ended
        if parent == pid and " ".join(words).strip().endswith(command):
            found.append(int(entry.name))
    return found


def zombies(pids: Sequence[int]) -> list[int]:
    """Return those of the processes that have ended and weren't reaped."""
    found: list[int] = []
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state == "Z":
            found.append(pid)
    return found
