"""Runs the programs of the system that make a machine: one line each, and their words when they fail."""

import fcntl
import subprocess
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class CommandFailed(Exception):
    """A program ended with another code than 0. Says which, and what it printed."""


def run(*command: str | Path, within: float = 60, check: bool = True, said: str = "") -> str:
    """Run a program, `said` on its standard input, and return what it printed, without the last line's end.

    Raises `CommandFailed` when it fails (unless `check` is off) and when it takes longer than `within` seconds.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words, input=said, capture_output=True, text=True, errors="replace", timeout=within, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise CommandFailed(f"{' '.join(words)}: no end within {within:g} s") from error
    if check and done.returncode:
        raise CommandFailed(f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout.rstrip("\n")


def attempt(*command: str | Path) -> None:
    """Run a program whose failure means that there was nothing to do."""
    run(*command, check=False)


@contextmanager
def locked(path: Path) -> Generator[None]:
    """Do something that no other process does meanwhile; `path` is the lock's file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def in_group(folders: Sequence[Path], *command: str | Path) -> list[str]:
    """Return a command that enters these control groups before it becomes `command`."""
    enter = 'while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs"; shift; done; shift; exec "$@"'
    return ["/bin/sh", "-euc", enter, "sh", *map(str, folders), "--", *map(str, command)]
