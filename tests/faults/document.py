"""Writes docs/faults.md: `make documents`, or `python -m tests.faults.document`. Tests hold every line of it.

All faults are played for it, which takes a minute.
"""

import asyncio
import logging
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from comfyweb.machine.faults import FAULTS
from comfyweb.machine.model import Fault
from tests.cloudbox import CloudBox
from tests.faults.lines import line
from tests.faults.others import LIBCLOUD, SAME, SKYPILOT
from tests.faults.scenarios import GROUPS, SCENARIOS
from tests.faults.stage import Scenario, play

DOCUMENT = Path(__file__).parents[2] / "docs/faults.md"
INTRODUCTION = """\
# What can go wrong at Google, and what then

Made by `make documents` from tests that play each fault with the real loop and Google's own client against the emulated
Compute Engine (`tests/faults/`); a line that is not so any more fails a test.
"""
PLAYED = """\
## Fault by fault

*When*: Start or Stop now was just pressed, or the machine is in use or off and nobody presses anything. *On the page*:
every trouble that it told of, in this order, in its own words; [below](#all-words) is what it says of what to do.
*Calls*: what the loop asked of Google, in seconds since the click; *as one call* means under one `requestId`, so that
Google does it once. Times are those of the emulator, which starts a machine in 8 s and stops it in 5 s.
"""
WORDS = """\
## All words

*Passes*: it goes away by itself. *Repeated*: when comfyweb makes the call again without being asked, counted from each
failure; while a repetition waits the page counts down to it. A start is given up after 10 minutes, a stop never. The
machine is looked at whatever the trouble is.

| code | title | what happened | what to do | passes | repeated |
|---|---|---|---|---|---|
"""
OTHERS = """\
## Where comfyweb judges otherwise than others

SkyPilot 0.14.1 (skypilot-org/skypilot) looks for any machine anywhere, and so gives up a zone, a region or everything
after an error; comfyweb starts one machine that is there. {same} of the {all} rows of its table mean the same here, and
of the {recorded} errors among the answers that Apache Libcloud 3.9.1 recorded, {alike} do. The others
differ on purpose:

| code | with | theirs | here | because |
|---|---|---|---|---|
"""


def document(lines: Mapping[tuple[str, str], str]) -> str:
    """Return docs/faults.md with these lines, by the fault's name and its moment."""
    parts = [INTRODUCTION, "\n", PLAYED]
    for title, scenarios in GROUPS.items():
        parts += [f"\n### {title}\n\n", "| fault | when | on the page | calls | end |\n|---|---|---|---|---|\n"]
        parts += [lines.get(key(scenario), "") + "\n" for scenario in scenarios]
    parts += ["\n", WORDS, *(f"{_words(fault)}\n" for fault in FAULTS.values()), "\n", *_others()]
    return "".join(parts)


def key(scenario: Scenario) -> tuple[str, str]:
    """Return what a line is found by."""
    return scenario.name, scenario.moment.value


def lines_in(text: str) -> dict[tuple[str, str], str]:
    """Return the lines of played faults in a document."""
    cells = (re.match(r"\| (.+?) \| (.+?) \|", each) for each in text.split("## All words", maxsplit=1)[0].splitlines())
    return {(found[1], found[2]): found.string for found in cells if found and found[1] != "fault"}


def _words(fault: Fault) -> str:
    passes = "yes" if fault.passes else "no"
    return f"| `{fault.code}` | {fault.title} | {fault.what} | {fault.todo} | {passes} | {_repeated(fault.retry)} |"


def _repeated(pauses: tuple[int, ...]) -> str:
    if not pauses:
        return "never"
    return f"after {', '.join(str(pause) for pause in pauses[:-1])} s, then every {pauses[-1]} s"


def _others() -> Iterable[str]:
    same = sum(row.ours in SAME[row.blocks] for row in SKYPILOT)
    alike = sum(not row.why for row in LIBCLOUD.values())
    yield OTHERS.format(same=same, all=len(SKYPILOT), recorded=len(LIBCLOUD), alike=alike)
    for row in SKYPILOT:
        if row.why:
            yield f"| `{row.code}` | {row.message} | SkyPilot gives up {row.blocks} | `{row.ours}` | {row.why} |\n"
    for name, recorded in LIBCLOUD.items():
        if recorded.why:
            yield f"| | `{name}` | Libcloud has an error of its own | `{recorded.ours}` | {recorded.why} |\n"


def main() -> None:
    """Play everything and write the document."""
    logging.disable(logging.ERROR)  # All that goes wrong here is meant to.
    with CloudBox(manual=True) as box, tempfile.TemporaryDirectory() as folder:
        lines: dict[tuple[str, str], str] = {}
        for number, scenario in enumerate(SCENARIOS):
            place = Path(folder, str(number))
            place.mkdir()
            lines[key(scenario)] = line(asyncio.run(play(scenario, place, box)))
    DOCUMENT.write_text(document(lines), "utf-8")


if __name__ == "__main__":
    main()
