"""Who holds nginx's ports when nginx doesn't: then it can't start, and nobody reaches ComfyUI."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vm_setup.base.places import NGINX_UNIT
from vm_setup.base.processes import run

# One line of `ss -Hltnp`: LISTEN 0 511 0.0.0.0:80 0.0.0.0:* users:(("nginx",pid=12,fd=6),…)
_PORT = re.compile(r"\S+:(\d+)")
_PROCESS = re.compile(r'\("([^"]{1,40})",pid=(\d+),')
_LOCAL_ADDRESS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A process that listens on a port; `unit` is what systemd started it as, empty for none."""

    port: int
    name: str = "another program"
    pid: int = 0
    unit: str = ""


def others(ports: Iterable[int], kernel: Path) -> tuple[Holder, ...]:
    """Return who listens on these ports and is not our nginx, one for each port.

    nginx may be among them even so: of IPv4 and IPv6 it takes what it can get, before it gives up.
    """
    asked = " or ".join(f"sport = :{port}" for port in ports)
    _, out = run(["ss", "-Hltnp", f"( {asked} )"])
    found = _read(out.decode(errors="replace"), kernel)
    return tuple({holder.port: holder for holder in found if holder.unit != NGINX_UNIT}.values())


def words(holder: Holder) -> str:
    """Say what is in the way, and what to do: in few words, for guest attributes hold no more than 160 characters."""
    who, end = f"{holder.name} (process {holder.pid})", f"kill {holder.pid}"
    if holder.unit:
        who, end = f"{holder.name} ({holder.unit})", f"systemctl disable --now {holder.unit}"
    if not holder.pid:
        who, end = holder.name, f"ss -ltnp sport = :{holder.port} may name it"
    return (
        f"Port {holder.port} is held by {who}, so nginx can't start. End it on the machine: {end}. "
        "Then nginx comes by itself."
    )


def _read(text: str, kernel: Path) -> Iterator[Holder]:
    for line in text.splitlines():
        parts = line.split()
        port = _PORT.fullmatch(parts[_LOCAL_ADDRESS]) if len(parts) > _LOCAL_ADDRESS else None
        if port is None:
            continue
        process = _PROCESS.search(line)
        if process is None:
            yield Holder(port=int(port[1]))
        else:
            pid = int(process[2])
            yield Holder(port=int(port[1]), name=process[1], pid=pid, unit=_unit(kernel, pid))


def _unit(kernel: Path, pid: int) -> str:
    """Return the service that a process belongs to."""
    try:
        groups = (kernel / f"proc/{pid}/cgroup").read_text("utf-8")
    except (OSError, ValueError):
        return ""
    return next((name for line in groups.splitlines() if (name := line.rpartition("/")[2]).endswith(".service")), "")
