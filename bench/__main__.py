"""`python -m bench [PART ...]`: measure everything and write docs/performance.md, or measure some parts and print them.

Exit code 1 when a figure that doesn't depend on the machine missed its bar. One part runs at a time.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence

from bench.fan_out import costs, fan_out
from bench.gate import gate
from bench.host import host
from bench.idle import idle
from bench.lighthouse import lighthouse
from bench.page import frame, weight
from bench.rows import DOCUMENT, Row, document
from bench.soak import soak
from bench.start_up import start_up
from bench.status_rate import status_rate
from bench.takeover import takeover

PARTS: dict[str, tuple[str, Callable[[], Awaitable[list[Row]]]]] = {
    "weight": ("The login page", weight),
    "lighthouse": ("Lighthouse", lighthouse),
    "start-up": ("Start", start_up),
    "frame": ("ComfyUI in the page", frame),
    "fan-out": ("A change reaches every tab", fan_out),
    "costs": ("What tabs cost", costs),
    "soak": ("Ten minutes with 1000 tabs", soak),
    "idle": ("When machines stop", idle),
    "status-rate": ("`GET /api/instance/status`, authenticated", status_rate),
    "gate": ("The gate", gate),
    "host": ("A real machine", host),
    "takeover": ("Several processes", takeover),
}


async def measure(names: Sequence[str]) -> list[tuple[str, list[Row]]]:
    """Run these parts, one after the other. A part that breaks is a row of its own, and a miss."""
    sections: list[tuple[str, list[Row]]] = []
    for name in names:
        title, part = PARTS[name]
        print(f"{title} ...", flush=True)
        try:
            rows = await part()
        except Exception as error:  # noqa: BLE001 - whatever it was, the others are still worth measuring
            rows = [Row(what=name, figure=f"broke: {error!r}", held=False, binding=True)]
        for row in rows:
            print(f"  {row.what}: {row.figure} {f'({row.bar})' if row.bar else ''}", flush=True)
        sections.append((title, rows))
    return sections


def main(names: Sequence[str]) -> int:
    """Measure. Returns the exit code: 2 for a part that doesn't exist."""
    if unknown := [name for name in names if name not in PARTS]:
        print(f"There is no {unknown[0]!r}. There are: {', '.join(PARTS)}", file=sys.stderr)
        return 2
    sections = asyncio.run(measure(names or list(PARTS)))
    if not names:
        DOCUMENT.write_text(document(sections), "utf-8")
        print(f"Written to {DOCUMENT}.")
    return int(any(row.failed for _, rows in sections for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
