"""Control groups: whatever a machine is made of runs in its own, so that all of it can be ended and nothing else."""

import contextlib
import os
import signal
import time
from pathlib import Path

_TREE = Path("/sys/fs/cgroup")
_PATIENCE = 20.0


class Group:
    """The control group `name`, in each hierarchy where systemd keeps its own books (version 1, 2 or both)."""

    def __init__(self, name: str) -> None:
        self.name = name

    def join(self) -> list[Path]:
        """Make it, and return the folders that a process has to enter."""
        folders = [parent / self.name for parent in _hierarchies()]
        for folder in folders:
            folder.mkdir(exist_ok=True)
        return folders

    def processes(self) -> set[int]:
        """Return the processes in it, and in the groups that they have made below."""
        found: set[int] = set()
        for folder in self._folders():
            for group, _, _ in os.walk(folder):  # which passes over what ends meanwhile
                with contextlib.suppress(OSError):
                    found |= {int(line) for line in Path(group, "cgroup.procs").read_text("utf-8").split()}
        return found

    def kill(self) -> None:
        """End every process in it. Raises `TimeoutError` when one stays."""
        end = time.monotonic() + _PATIENCE
        while processes := self.processes():
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            if time.monotonic() > end:
                raise TimeoutError(f"still there: {processes}")
            time.sleep(0.005)

    def remove(self) -> None:
        """End every process in it and take it away."""
        self.kill()
        for folder in self._folders():
            for group, _, _ in os.walk(folder, topdown=False):
                with contextlib.suppress(OSError):
                    Path(group).rmdir()

    def _folders(self) -> list[Path]:
        """Return it in all hierarchies: the guest's systemd has made it in more of them than it was started in."""
        return [path for path in (_TREE / self.name, *_TREE.glob(f"*/{self.name}")) if path.is_dir()]


def _hierarchies() -> list[Path]:
    if (_TREE / "cgroup.procs").exists():
        return [_TREE]
    return [folder for folder in (_TREE / "systemd", _TREE / "unified") if folder.is_dir()]
