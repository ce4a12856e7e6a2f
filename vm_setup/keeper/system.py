"""The machine around ComfyUI: the graphics card, the disk, ComfyUI's process, the journal, systemd's watchdog."""

import contextlib
import logging
import os
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from vm_setup.host.reading import number
from vm_setup.keeper.seen import Card, Space

_LOG = logging.getLogger(__name__)
COMFYUI_UNIT, VISITORS_UNIT = "comfyui.service", "comfyweb-visitors.service"
_COMMAND_SECONDS = 5.0
_OUTPUT_LIMIT = 1_000_000
_CARD_FIELDS = ("name", "memory.used", "memory.total", "utilization.gpu")


def run(argv: Sequence[str], *, seconds: float = _COMMAND_SECONDS) -> tuple[int, bytes]:
    """Run a command and return its exit code and output; 127 when there is no such, 124 when it takes too long."""
    try:
        process = subprocess.Popen(  # noqa: S603 - the words are ours, and no shell reads them
            list(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except OSError:
        return 127, b""
    said = end_of(process, seconds=seconds)
    return (124, b"") if said is None else (process.returncode, said[0][-_OUTPUT_LIMIT:])


def end_of(process: "subprocess.Popen[bytes]", *, seconds: float) -> tuple[bytes, bytes] | None:
    """Wait for a process and return what it has said; None when it takes too long, and then it is killed.

    One that can't be killed (a driver that hangs) is left behind rather than waited for.
    """
    try:
        return process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
        return None
    finally:
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def card() -> Card:
    """Return the first graphics card; one without a name when the driver doesn't tell of any."""
    code, out = run(["nvidia-smi", f"--query-gpu={','.join(_CARD_FIELDS)}", "--format=csv,noheader,nounits"])
    lines = out.decode(errors="replace").splitlines()
    if code or not lines:
        return Card(name="")
    parts = [part.strip() for part in lines[0][:500].split(",")]
    if len(parts) != len(_CARD_FIELDS):
        return Card(name="")
    used, total, percent = (_whole(part) for part in parts[1:])
    return Card(name=parts[0][:64], used_mib=used, total_mib=total, percent=percent)


def space(folder: Path) -> Space | None:
    """Return how much room the disk of that folder has; None when it doesn't answer."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    return Space(
        free_bytes=found.f_bavail * found.f_frsize,
        total_bytes=found.f_blocks * found.f_frsize,
        read_only=bool(found.f_flag & os.ST_RDONLY),
    )


def process_of(unit: str = COMFYUI_UNIT) -> int | None:
    """Return the id of a unit's main process; None when it doesn't run or systemd doesn't say."""
    code, out = run(["systemctl", "show", unit, "--property=MainPID", "--value"])
    pid = _whole(out.decode(errors="replace").strip())
    return pid if not code and pid else None


def journal(lines: int) -> bytes:
    """Return the newest lines of ComfyUI's journal and ours."""
    units = [f"--unit={unit}" for unit in (COMFYUI_UNIT, "comfyweb-*")]
    _, out = run(["journalctl", *units, f"--lines={lines}", "--no-pager", "--quiet", "--output=short-iso"])
    return out


def boot_id(kernel: Path) -> str:
    """Return the name of this boot, which no other has."""
    try:
        return (kernel / "proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except (OSError, ValueError):
        _LOG.exception("This boot has no name.")
        return "unknown"


def notify(*said: str) -> None:
    """Tell systemd, if it started us (sd_notify(3)). What it doesn't hear is lost, as it is meant to be."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as out:
        out.sendto("\n".join(said).encode(errors="replace"), "\0" + address[1:] if address[0] == "@" else address)


def _whole(text: str) -> int | None:
    try:
        value = number(float(text))
    except ValueError:
        return None
    return int(value) if value is not None and value >= 0 else None
