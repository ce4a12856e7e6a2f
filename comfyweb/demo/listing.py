"""Lists: the part of Compute Engine's filter language that clients use, and pages."""

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Any

from comfyweb.demo.model import Refusal

MOST_RESULTS = 500
_SMALL_NUMBER = re.compile(r"[0-9]{1,9}")
_TERM = re.compile(
    r"""\(?\s*(?P<field>\w+)\s*(?P<operator>!=|=|\beq\b|\bne\b)\s*(?P<value>"[^"]*"|'[^']*'|[^\s"'()]+)\s*\)?"""
)


def chosen(items: Sequence[dict[str, Any]], expression: str) -> Sequence[dict[str, Any]]:
    """Choose the items that match: one field against one word, any number of times. Raises `Refusal`."""
    for field, operator, value in _terms(expression):
        same = operator in ("=", "eq")
        items = [item for item in items if (str(item.get(field, "")) == value) == same]
    return items


def _terms(expression: str) -> Sequence[tuple[str, str, str]]:
    terms: list[tuple[str, str, str]] = []
    rest = expression.strip()
    while rest:
        found = _TERM.match(rest)
        if not found:
            raise Refusal.invalid(f"Invalid value for field 'filter': '{expression}'. Invalid list filter expression.")
        terms.append((found["field"], found["operator"], found["value"].strip("\"'")))
        rest = rest[found.end() :].strip()
        rest = rest.removeprefix("AND ").strip()
    return terms


def page(items: Sequence[dict[str, Any]], query: Mapping[str, str]) -> tuple[Sequence[dict[str, Any]], str]:
    """Find the page that `filter`, `maxResults` and `pageToken` ask for, and the next one's token. Raises `Refusal`."""
    items = chosen(items, query.get("filter", ""))
    most = query.get("maxResults", str(MOST_RESULTS))
    if not _SMALL_NUMBER.fullmatch(most) or int(most) > MOST_RESULTS:
        raise Refusal.invalid(f"Invalid value for field 'maxResults': '{most}'. Must be between 0 and {MOST_RESULTS}.")
    begin = _begin(query.get("pageToken", ""))
    end = begin + (int(most) or MOST_RESULTS)
    token = base64.urlsafe_b64encode(str(end).encode()).decode() if end < len(items) else ""
    return items[begin:end], token


def _begin(token: str) -> int:
    try:
        said = base64.urlsafe_b64decode(token).decode("ascii") if token else "0"
    except (binascii.Error, ValueError):
        said = ""
    if not _SMALL_NUMBER.fullmatch(said):
        raise Refusal.invalid(f"Invalid value for field 'pageToken': '{token}'.")
    return int(said)
