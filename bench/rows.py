"""What a measurement found, and docs/performance.md made of it."""

import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

DOCUMENT = Path("docs/performance.md")
KB = 1000

INTRODUCTION = """\
# Performance

Written by `make bench`; change nothing here by hand. Everything ran on one machine over loopback, clients and server
sharing its cores, so every figure includes what the clients cost. A figure that is a ratio, a count or a size doesn't
depend on how fast the machine is: where such a one misses its bar, `make bench` fails. Milliseconds and megabytes do;
they are shown beside their bars.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure and the bar it is held to. `held` is None when there is no bar or nothing was measured.

    `binding` says that the figure doesn't depend on the machine, so that a miss is a mistake wherever it shows.
    """

    what: str
    figure: str
    bar: str = ""
    held: bool | None = None
    binding: bool = False

    @property
    def failed(self) -> bool:
        """Whether `make bench` has to fail for it."""
        return self.binding and self.held is False


def quantile(values: list[float], share: float) -> float:
    """Return the value below which `share` of all lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def document(sections: list[tuple[str, list[Row]]]) -> str:
    """Return docs/performance.md."""
    lines = [INTRODUCTION, f"{datetime.now(UTC):%d %b %Y}. {_machine()}", ""]
    for title, rows in sections:
        lines += [f"## {title}", "", "| what | measured | bar | held |", "|---|---|---|---|"]
        lines += [f"| {row.what} | {row.figure} | {row.bar} | {_word(row.held)} |" for row in rows]
        lines.append("")
    return "\n".join(lines)


def _word(held: bool | None) -> str:  # noqa: FBT001 - it is the value
    return "" if held is None else "yes" if held else "**no**"


def _machine() -> str:
    cpu = next(
        (line.partition(":")[2].strip() for line in _read("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    kilobytes = next((int(line.split()[1]) for line in _read("/proc/meminfo") if line.startswith("MemTotal")), 0)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{os.cpu_count()} cores of {cpu or platform.machine()}, {kilobytes / 2**20:.0f} GB, {platform.system()} "
        f"{platform.release()}, Python {platform.python_version()}. Load averages at the end: {load}."
    )


def _read(path: str) -> list[str]:
    try:
        return Path(path).read_text("utf-8").splitlines()
    except OSError:
        return []
