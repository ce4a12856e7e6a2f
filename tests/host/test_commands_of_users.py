"""What the set-up runs for ComfyUI's user, such as the installation of a node's packages, which may be any program."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.host.surroundings import until
from vm_setup.setup.system import Commands

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
USER = "daemon"


def test_it_can_not_become_anybody_else_and_gets_no_lock_of_ours() -> None:
    ours, theirs = os.pipe()
    try:
        look = "id -un; id -G; grep -E '^(NoNewPrivs|CapBnd|CapInh|CapEff)' /proc/self/status; ls /proc/self/fd; umask"
        commands = Commands(held=(ours, theirs))
        name, groups, *status = commands("sh", "-c", look, user=USER).out.splitlines()
        of_root = commands("sh", "-c", "ls /proc/self/fd").out.split()
    finally:
        os.close(ours)
        os.close(theirs)
    assert (name, len(groups.split())) == (USER, 1)
    found = dict(line.split(":\t") for line in status[:4])
    assert found.pop("NoNewPrivs") == "1"
    assert {int(value, 16) for value in found.values()} == {0}
    assert status[-1] == "0022"
    assert str(theirs) in of_root
    assert str(theirs) not in status[4:-1]


def test_it_ends_with_us() -> None:
    code = f"from vm_setup.setup.system import Commands; Commands()('sleep', '600', user={USER!r}, timeout=600)"
    us = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    try:
        theirs = until(lambda: _sleeping(Path(f"/proc/{us.pid}/task/{us.pid}/children").read_text().strip()))
    finally:
        us.send_signal(signal.SIGKILL)
        us.wait()
    until(lambda: not _sleeping(theirs))


def _sleeping(process: str) -> str:
    """Return a process that has become `sleep`, and nothing when there is none."""
    try:
        return process if process and Path(f"/proc/{process}/cmdline").read_text().startswith("sleep") else ""
    except FileNotFoundError:
        return ""
