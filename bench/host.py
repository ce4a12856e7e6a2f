"""How fast a real machine is: systemd-nspawn, powered by the emulator, with the host's own bundle on it."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from bench.rows import Row
from tests.machines import leftovers
from tests.machines.conftest import what_is_missing
from tests.machines.installed import RECONCILE, Host, equip, keep_disks, put_disks
from tests.machines.machine import Machine

BOOTS = 5
WARMING_BAR, ANSWERS_BAR, RECONCILE_BAR, COLD_BAR, IDLE_LATE_BAR = 1.5, 3.0, 0.5, 60.0, 30.0
IDLE_LIMIT = 6.0
_COLD_PATIENCE = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """Seconds measured of one thing, and the bar they are held to."""

    what: str
    seconds: list[float]
    bar: float

    def row(self) -> Row:
        """Return it for the document."""
        middle = median(self.seconds)
        spread = f" (of {len(self.seconds)}: {min(self.seconds):.2f} to {max(self.seconds):.2f})"
        figure = f"{middle:.2f} s" + (spread if len(self.seconds) > 1 else "")
        return Row(what=self.what, figure=figure, bar=f"≤ {self.bar:g} s", held=middle <= self.bar)


async def host() -> list[Row]:
    """Boot machines. Where none can run, one row says why."""
    if missing := what_is_missing():
        return [Row(what="A real machine", figure=f"not measured: {missing}")]
    return [measure.row() for measure in await asyncio.to_thread(_measure)]


def _measure() -> list[Measure]:
    leftovers.sweep_abandoned()
    with TemporaryDirectory(prefix="comfyweb-bench-") as folder:
        cold = _cold(Path(folder))
        with Machine() as machine:
            put_disks(Path(folder), equip(machine))
            return [*_warm(Host(machine)), cold, _idle(Host(machine))]


def _cold(disks: Path) -> Measure:
    """Boot an image without the host's packages, with a blank disk; keep its disks."""
    with Machine(warm=False, egress=True) as machine:
        found = Host(equip(machine))
        begin = machine.start()
        seconds = _since(begin, found, found.answers, _COLD_PATIENCE)
        machine.wait_booted(_COLD_PATIENCE)
        machine.sh("systemctl poweroff")
        machine.wait_off()
        keep_disks(machine, disks)
    what = "Cold boot: power on → the stand-in answers, system packages and uv installed, without ComfyUI's packages"
    return Measure(what=what, seconds=[seconds], bar=COLD_BAR)


def _warm(found: Host) -> list[Measure]:
    warming: list[float] = []
    answers: list[float] = []
    reconciles: list[float] = []
    for _ in range(BOOTS):
        begin = found.machine.start()
        warming.append(_since(begin, found, lambda: _first_byte(found.machine), _COLD_PATIENCE))
        answers.append(_since(begin, found, found.answers, _COLD_PATIENCE))
        found.machine.wait_booted()
        begin = time.monotonic()
        found.machine.sh(f"{RECONCILE} >/dev/null")
        reconciles.append(time.monotonic() - begin)
        found.machine.sh("systemctl poweroff")
        found.machine.wait_off()
    return [
        Measure(what="Warm boot: power on → first byte of the warming page, median", seconds=warming, bar=WARMING_BAR),
        Measure(what="Warm boot: power on → the stand-in answers, median", seconds=answers, bar=ANSWERS_BAR),
        Measure(what="Reconcile with nothing to do, median", seconds=reconciles, bar=RECONCILE_BAR),
    ]


def _idle(found: Host) -> Measure:
    """Measure how late the machine is off, from the moment that the keeper had told."""
    found.machine.metadata(comfyweb_idle_minutes=str(IDLE_LIMIT / 60))
    late: list[float] = []
    for _ in range(BOOTS):
        found.boot()
        ready = time.monotonic()
        found.machine.wait_off()
        late.append(max(0.0, time.monotonic() - ready - IDLE_LIMIT))
    return Measure(what="Idle: off after its time, median", seconds=late, bar=IDLE_LATE_BAR)


def _first_byte(machine: Machine) -> bool:
    """Whether nginx says that the machine starts, to somebody outside."""
    try:
        with machine.network.reach(80, within=0.2) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return connection.recv(12) == b"HTTP/1.1 503"
    except OSError:
        return False


def _since(begin: float, found: Host, holds: Callable[[], object], within: float) -> float:
    found.machine.until(holds, "an answer", within=within, every=0.005)
    return time.monotonic() - begin
