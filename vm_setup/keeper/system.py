"""The machine around ComfyUI: the graphics card, the disk, ComfyUI's process, the journal, systemd's watchdog."""

import logging
import os
from pathlib import Path

from vm_setup.base.places import COMFYUI_UNIT
from vm_setup.base.processes import run
from vm_setup.host.reading import number
from vm_setup.keeper.seen import Card, Space

_LOG = logging.getLogger(__name__)
_CARD_FIELDS = ("name", "memory.used", "memory.total", "utilization.gpu")


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


def _whole(text: str) -> int | None:
    try:
        value = number(float(text))
    except ValueError:
        return None
    return int(value) if value is not None and value >= 0 else None
