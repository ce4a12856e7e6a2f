"""Reading what others send without ever raising: each function answers with a checked value or with None."""

import json
import math
import re
from typing import cast

_WORD = re.compile(r"[\x21-\x7e]+")


def _no_constant(name: str) -> float:
    raise ValueError(name)


def json_value(raw: object, *, limit: int) -> object:
    """Return the JSON in `raw`, text or UTF-8 bytes of at most `limit` characters; None for anything else."""
    if not isinstance(raw, (str, bytes)) or len(raw) > limit:
        return None
    try:
        text = raw.decode() if isinstance(raw, bytes) else raw
        return cast("object", json.loads(text, parse_constant=_no_constant))
    except (ValueError, RecursionError):
        return None


def mapping(value: object) -> dict[str, object] | None:
    """Return `value` when it is a JSON object."""
    return cast("dict[str, object]", value) if isinstance(value, dict) else None


def items(value: object) -> list[object] | None:
    """Return `value` when it is a JSON list."""
    return cast("list[object]", value) if isinstance(value, list) else None


def number(value: object) -> float | None:
    """Return `value` as a float when it is a finite number; True and False are none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        result = float(value)
    except OverflowError:
        return None
    return result if math.isfinite(result) else None


def word(value: object, *, limit: int) -> str | None:
    """Return `value` when it is a word: 1 to `limit` visible ASCII characters, safe in logs, headers and files."""
    if not isinstance(value, str) or len(value) > limit or _WORD.fullmatch(value) is None:
        return None
    return value
