"""Writes what was found: text for people, JSON for programs."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from comfyweb.machine.checkup import Finding, State

_MARKS = {State.OK: "ok      ", State.WARNING: "warning ", State.FAILED: "FAILED  ", State.NOT_CHECKED: "-       "}


def failed(findings: Sequence[Finding]) -> bool:
    """Tell whether anything has to be mended."""
    return any(finding.state is State.FAILED for finding in findings)


def text(findings: Sequence[Finding]) -> str:
    """Return one line for each thing, what to do about it below, and a last line that counts."""
    lines: list[str] = []
    for finding in findings:
        why = f"not checked: {finding.words}" if finding.state is State.NOT_CHECKED else finding.words
        lines.append(f"{_MARKS[finding.state]}{finding.check}: {why}")
        if finding.todo:
            lines.append(f"        → {finding.todo}")
    counted = ", ".join(f"{sum(each.state is state for each in findings)} {state.value}" for state in State)
    return "\n".join([*lines, "", counted]) + "\n"


def as_json(findings: Sequence[Finding]) -> str:
    """Return an object with `ok`, and `findings` in the same order."""
    return json.dumps({"ok": not failed(findings), "findings": [asdict(each) for each in findings]}, indent=1) + "\n"
