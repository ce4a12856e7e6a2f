"""Reading what the host says of itself: strict about what it must say, and total, whatever was sent.

The sender may be a later version, a proxy's error page, or (for guest attributes) any ComfyUI node. So: what must be
there and isn't makes the whole answer worthless; what else makes no sense is dropped; texts become one short line.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import cast

from comfyweb.machine.faults import plain
from comfyweb.machine.model import Certificate, HostSeen, Step

LARGEST_BYTES = 64 * 1024

_NAME = 64
_SENTENCE = 200
_HOST_NAME = 253
_MOST_STEPS = 64
_MOST_ACKS = 64
_MOST_WARNINGS = 16
_MOST_JOBS = 1_000_000
_LONGEST_SECONDS = 30 * 86400.0
_YEARS = range(2001, 2200)  # the ledger takes no others, and every one of them is a lie
_STATES = frozenset({"waiting", "running", "done", "failed"})

Message = Mapping[str, object]


def message(raw: str | bytes) -> Message | None:
    """Return the JSON object in `raw`; None if it is anything else or too long."""
    if len(raw) > LARGEST_BYTES:
        return None
    try:
        value = cast("object", json.loads(raw))
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, object]", value) if isinstance(value, dict) else None


def host_seen(said: Message, *, by_https: bool) -> HostSeen | None:
    """Return what a status says; None when it lacks its time, its boot or its phase."""
    at, boot_id, phase = moment(said.get("at")), word(said.get("boot_id")), word(said.get("phase"))
    if at is None or not boot_id or not phase:
        return None
    comfyui, drain = part(said, "comfyui"), part(said, "drain")
    activity, current = part(said, "activity"), part(comfyui, "current")
    return HostSeen(
        at=at,
        boot_id=boot_id,
        phase=phase,
        by_https=by_https,
        host_version=word(said.get("host_version")),
        steps=_steps(said.get("steps")),
        comfyui_ready=comfyui.get("ready") is True,
        comfyui_version=word(comfyui.get("version")),
        queue_running=count(comfyui.get("queue_running")),
        queue_pending=count(comfyui.get("queue_pending")),
        percent=_number(current.get("percent"), 100.0),
        node=word(current.get("node")),
        last_activity=moment(activity.get("at")),
        stops_at=moment(activity.get("stops_at")),
        drain_until=moment(drain.get("until")),
        drain_remaining=count(drain.get("remaining")),
        warnings=tuple(
            text for item in _list(said.get("warnings"))[:_MOST_WARNINGS] if (text := word(item, _SENTENCE))
        ),
        certificate=_certificate(part(said, "tls")),
    )


def _certificate(said: Message) -> Certificate | None:
    mode, trusted = word(said.get("mode")), said.get("trusted")
    if not mode or not isinstance(trusted, bool):
        return None
    return Certificate(
        mode=mode, trusted=trusted, name=word(said.get("name"), _HOST_NAME), until=moment(said.get("until"))
    )


def acks(said: Message) -> tuple[str, ...]:
    """Return the commands that a heartbeat acknowledges."""
    return tuple(jti for item in _list(said.get("acks"))[:_MOST_ACKS] if (jti := word(item)))


def word(value: object, longest: int = _NAME) -> str:
    """Return a short text as one plain line; empty for anything else."""
    return plain(value, longest) if isinstance(value, str) else ""


def moment(value: object) -> datetime | None:
    """Return a time (RFC 3339 with an offset) in UTC; None for anything else, and for one of another age."""
    if not isinstance(value, str):
        return None
    try:
        time = datetime.fromisoformat(value)
        sensible = time.tzinfo is not None and time.year in _YEARS
        return time.astimezone(UTC) if sensible else None
    except (ValueError, OverflowError):
        return None


def count(value: object) -> int | None:
    """Return a number of things; None for anything else."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_JOBS:
        return value
    return None


def part(said: Message, name: str) -> Message:
    """Return an object within an object; an empty one for anything else."""
    return _object(said.get(name))


def _object(value: object) -> Message:
    return cast("Message", value) if isinstance(value, dict) else cast("Message", {})


def _number(value: object, largest: float) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= largest else None


def _steps(value: object) -> tuple[Step, ...]:
    steps: list[Step] = []
    for item in _list(value)[:_MOST_STEPS]:
        said = _object(item)
        name, state = word(said.get("name")), word(said.get("state"))
        if name and state in _STATES:
            steps.append(
                Step(
                    name=name,
                    state=state,
                    seconds=_number(said.get("seconds"), _LONGEST_SECONDS),
                    expected_seconds=_number(said.get("expected_seconds"), _LONGEST_SECONDS),
                    detail=word(said.get("detail"), _SENTENCE),
                )
            )
    return tuple(steps)


def _list(value: object) -> list[object]:
    return cast("list[object]", value) if isinstance(value, list) else []
