"""Killed at any line, the next run ends where an undisturbed one would have.

Each line of the set-up's own modules, and of the commands' stand-ins, is a place to die: a forked process counts the
lines that it runs, and is gone, without any clean-up, at the chosen one.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import pytest

import tests.host.machine
from tests.host.machine import Host, Machine
from tests.host.test_adoption import CRONTAB, FSTAB, IDLE, SUPERVISOR
from tests.memory import memory
from vm_setup.base import files
from vm_setup.setup import adoption, comfyui, disk, layout, reconcile, units
from vm_setup.setup.metadata import Wanted
from vm_setup.setup.system import Done

WATCHED = {module.__file__ for module in (adoption, comfyui, disk, files, layout, reconcile, units, tests.host.machine)}
# A line is a place to die when it is first run, and when it is run for the so-manieth time.
TIMES = frozenset({1, 2, 5})
DIED = 77


class Quick(Machine):
    """A machine whose commands write files in several steps, as the real ones do, but start no process."""

    def run(
        self,
        *command: str | Path,
        timeout: float = 60,
        env: Mapping[str, str] | None = None,
    ) -> Done:
        """Do what the command would, piece by piece."""
        words = [str(word) for word in command]
        device = self.root / "dev/sdb"
        match words[0]:
            case "blkid":
                head = device.open("rb").read(16)
                return Done(out="TYPE=ext4\n") if head.startswith(b"ext4") else Done(code=2)
            case "wipefs" | "e2fsck" | "dumpe2fs":
                return Done()
            case "mkfs.ext4":
                with device.open("r+b") as raw:
                    raw.write(b"half")
                    raw.flush()
                    raw.seek(0)
                    raw.write(b"ext4")
                return Done()
            case "git" if "init" in words:
                Path(words[-1]).mkdir()
                return Done()
            case "git" if "checkout" in words:
                folder = Path(words[2])
                (folder / "requirements.txt").write_text("aiohttp\n")
                (folder / "main.py").write_text("# half")
                (folder / "main.py").write_text("# v1\n")
                return Done()
            case "git":
                return Done()
            case _:
                return super().run(*command, timeout=timeout, env=env)


def dies_at(number: int, work: Callable[[], object], watched: frozenset[str | None]) -> bool:
    """Run it in a process that ends at its line of that number; say whether it got there."""
    child = os.fork()
    if child == 0:
        seen: set[tuple[str, int]] = set()

        def trace(frame: FrameType, event: str, _: object) -> Any:
            if frame.f_code.co_filename not in watched:
                return None
            if event == "line":
                seen.add((frame.f_code.co_filename, frame.f_lineno))
                if len(seen) == number:
                    os._exit(DIED)
            return trace

        sys.settrace(trace)
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == DIED


def end(host: Host) -> dict[str, object]:
    """What a run leaves, but for times."""
    volatile = {"steps.json", "durations.json", "disk.json"}
    places = ("mnt", "etc", "var", "opt")
    found: dict[str, object] = {}
    for path in sorted(path for place in places for path in (host.machine.root / place).rglob("*")):
        if path.name not in volatile and not path.name.endswith(".new"):
            what = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else "folder"
            found[str(path.relative_to(host.machine.root))] = what
    return found


def fresh(folder: Path) -> Host:
    return Host(folder, machine=Quick, git="https://git.example.com/ComfyUI")


def old(folder: Path) -> Host:
    host = fresh(folder)
    for name, text in {
        "etc/supervisor/conf.d/comfyui.conf": SUPERVISOR,
        "var/spool/cron/crontabs/root": CRONTAB,
        "usr/local/bin/check_idle.sh": IDLE,
        "etc/nginx/sites-enabled/comfyui": "proxy_pass http://127.0.0.1:8188;\n",
        "etc/fstab": FSTAB,
        "etc/systemd/system/comfyui.service": "[Service]\nExecStart=/root/run.sh\n",
        "mnt/persist/ComfyUI/models/big": "weights",
        "mnt/persist/ComfyUI/custom_nodes/ours/__init__.py": "",
    }.items():
        host.machine.put(name, text)
    return host


def upgraded(folder: Path) -> Host:
    host = fresh(folder)
    host.reconcile()
    host.attributes["comfyweb-comfyui"] = "v2"
    return host


def failing(folder: Path) -> Host:
    host = upgraded(folder)
    host.machine.answering = {comfyui.version_of(Wanted.read(host.attributes | {"comfyweb-comfyui": "v1"}))}
    return host


def lines_of(*modules: ModuleType) -> frozenset[str | None]:
    return frozenset(module.__file__ for module in modules)


ALL = lines_of(comfyui, disk, files, layout, reconcile, units, tests.host.machine)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "watched", "at_least"),
    [
        (fresh, ALL, 250),
        (old, lines_of(adoption), 60),
        (upgraded, lines_of(comfyui), 60),
        (failing, lines_of(comfyui), 60),
    ],
)
def test_wherever_it_dies_the_next_run_ends_where_it_should(
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[Path], Host],
    watched: frozenset[str | None],
    at_least: int,
) -> None:
    """After every other death the machine boots before the next run."""
    monkeypatch.setattr(os, "fsync", int)  # a killed process loses nothing that it wrote; this costs time
    with tempfile.TemporaryDirectory(dir=memory()) as parent:
        folder = Path(parent) / "machine"  # always the same: paths are in what is compared
        undisturbed = make(folder)
        undisturbed.reconcile()
        undisturbed.reconcile()
        expected, running = end(undisturbed), undisturbed.machine.started
        number = 0
        while True:
            number += 1
            files.remove(folder)
            host = make(folder)
            if not dies_at(number, host.reconcile, watched):
                break
            if number % 2:
                host.machine.reboot()
            host.reconcile()
            if make is old:
                host.reconcile()  # what people were told of is noted with the next run, undisturbed too
            assert end(host) == expected, f"died at line number {number}"
            assert host.machine.started == running, f"died at line number {number}"
    assert number > at_least, "hardly a line was watched"
