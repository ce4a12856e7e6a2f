"""The steps of a boot, as they come from the set-up program's file, with ComfyUI's own step set right.

The file is written by another program that may be killed at any line, so whatever makes no sense in it is left out.
Services start by themselves, without waiting for that program: ComfyUI may answer before the file tells of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from vm_setup.host.messages import Step
from vm_setup.host.reading import items, mapping, number

# Steps that others than the set-up program know of.
COMFYUI, DRIVER = "comfyui", "driver"
_STATES = frozenset({"waiting", "running", "done", "failed"})
_MOST_STEPS = 24
_MOST_WARNINGS = 8
_TEXT_LIMIT = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """What the set-up program says of the boot."""

    steps: Sequence[Step] = ()
    warnings: Sequence[str] = ()

    @classmethod
    def from_json(cls, said: object, *, now: float) -> "Boot":
        """Read `steps.json`. A running step's seconds go on from when it began, on the clock that never jumps."""
        parts = mapping(said) or {}
        steps = [_step(item, now) for item in (items(parts.get("steps")) or [])[:_MOST_STEPS]]
        warnings = [text for item in items(parts.get("warnings")) or [] if (text := one_line(item))]
        return cls(steps=[step for step in steps if step is not None], warnings=warnings[:_MOST_WARNINGS])


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """ComfyUI's own start: since when its process has run, and when it first answered in this boot."""

    began: float | None = None
    answered: float | None = None
    expected_seconds: float | None = None

    def seconds(self, now: float) -> float | None:
        """Return how long it has taken."""
        if self.began is None:
            return None
        return round(max(0.0, (now if self.answered is None else self.answered) - self.began), 1)


def with_comfyui(steps: Sequence[Step], start: Start, *, now: float) -> list[Step]:
    """Return the steps with ComfyUI's as it really is: running with its process, and done once it has answered."""
    told = next((step for step in steps if step.name == COMFYUI), None)
    if told is None:
        told = Step(name=COMFYUI)
        steps = [*steps, told]
    own = replace(told, expected_seconds=told.expected_seconds or start.expected_seconds)
    if start.answered is not None:
        seconds = own.seconds if own.state == "done" and own.seconds is not None else start.seconds(now)
        own = replace(own, state="done", seconds=seconds)
    elif own.state == "waiting" and start.began is not None:
        own = replace(own, state="running", seconds=start.seconds(now), detail=own.detail or "Starting ComfyUI")
    return [own if step is told else step for step in steps]


def one_line(value: object) -> str:
    """Return a text as one short plain line; empty for anything else."""
    if not isinstance(value, str):
        return ""
    text = "".join(letter if letter.isprintable() else " " for letter in value[: 4 * _TEXT_LIMIT])
    return " ".join(text.split())[:_TEXT_LIMIT]


def _step(item: object, now: float) -> Step | None:
    said = mapping(item) or {}
    name, state = one_line(said.get("name")), said.get("state")
    if not name or not isinstance(state, str) or state not in _STATES:
        return None
    seconds, began = _seconds(said.get("seconds")), _seconds(said.get("began"))
    if state == "running" and began is not None and began <= now:
        seconds = round(now - began, 1)
    expected, detail = _seconds(said.get("expected_seconds")), one_line(said.get("detail"))
    return Step(name=name, state=state, seconds=seconds, expected_seconds=expected, detail=detail)


def _seconds(value: object) -> float | None:
    seconds = number(value)
    return seconds if seconds is not None and seconds >= 0 else None
