"""The calls that the emulator answers, and what Google's front checks before one reaches Compute Engine.

`discovery.json` is what Google's discovery document says about these calls: their paths, queries and bodies, field by
field. It is written by `python -m tests.demo.extract`, and a test holds it to the document.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

from comfyweb.demo.model import Refusal

_INSTANCES = (
    *("aggregatedList", "get", "getEffectiveFirewalls", "getGuestAttributes", "getSerialPortOutput", "list"),
    "testIamPermissions",
    *("addAccessConfig", "attachDisk", "delete", "deleteAccessConfig", "detachDisk", "insert", "reset"),
    *("setLabels", "setMachineType", "setMetadata", "setScheduling", "start", "stop"),
)
METHODS = frozenset(
    {
        *(f"instances.{name}" for name in _INSTANCES),
        *(
            f"disks.{name}"
            for name in ("aggregatedList", "createSnapshot", "delete", "get", "insert", "list", "resize")
        ),
        *(f"addresses.{name}" for name in ("aggregatedList", "delete", "get", "insert", "list")),
        *(f"snapshots.{name}" for name in ("delete", "get", "list")),
        *(f"{name}Operations.{verb}" for name in ("global", "region", "zone") for verb in ("get", "list", "wait")),
        *(
            f"{name}Types.{verb}"
            for name in ("accelerator", "disk", "machine")
            for verb in ("aggregatedList", "get", "list")
        ),
        *(f"{name}.{verb}" for name in ("networks", "regions", "zones") for verb in ("get", "list")),
        "projects.get",
    }
)
"""By Google's own names."""


_ACTIONS = {"aggregatedList": "list", "insert": "create", "wait": "get"}


def verb_of(name: str) -> str:
    """Give a method's short name, by which faults are asked for: `start`, `operations.get`, `disks.insert`."""
    return name.removeprefix("instances.").replace("zoneOperations.", "operations.")


def permission_of(name: str) -> str:
    """Name the permission that a method asks for."""
    resource, _, action = name.partition(".")
    return f"compute.{resource}.{_ACTIONS.get(action, action)}"


@dataclass(frozen=True, slots=True)
class Method:
    """One call: its HTTP method, its path below /compute/v1/, its query by name, and the schema of its body."""

    name: str
    http: str
    path: str
    query: Mapping[str, Mapping[str, Any]]
    body: str


@cache
def _document() -> dict[str, Any]:
    return json.loads((Path(__file__).parent / "discovery.json").read_text())


def method(name: str) -> Method:
    """Find the method of that name. Raises `KeyError`."""
    found = _document()["methods"][name]
    return Method(name, found["http"], found["path"], found["query"], found.get("body", ""))


def check_query(of: Method, query: Mapping[str, str]) -> None:
    """Refuse a query with names that the call hasn't, with values that can't be, or without what it needs."""
    for name, value in query.items():
        known = of.query.get(name) or _document()["common"].get(name)
        if known is None:
            raise Refusal.invalid(
                f"Invalid JSON payload received. Unknown name \"{name}\": Cannot bind query parameter. Field '{name}' "
                "could not be found in request message."
            )
        if not _is_text_of(value, known["type"]):
            raise Refusal.invalid(f"Invalid value at '{name}' ({_TYPES[known['type']]}), \"{value}\"")
    for name, known in of.query.items():
        if known.get("required") and not query.get(name):
            raise Refusal(400, "required", f"Required field '{name}' not specified")


def checked_body(of: Method, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body without its nulls, which say nothing. Raises `Refusal` for unknown fields and other types."""
    _check_fields(body, of.body, "")
    return cast("dict[str, Any]", _without_nulls(body))


def _without_nulls(value: object) -> object:
    if isinstance(value, Mapping):
        fields = cast("Mapping[str, object]", value)
        return {name: _without_nulls(below) for name, below in fields.items() if below is not None}
    if isinstance(value, list):
        return [_without_nulls(below) for below in cast("list[object]", value)]
    return value


def _check_fields(value: Mapping[str, Any], schema: str, where: str) -> None:
    known = _document()["schemas"][schema]
    for name, below in value.items():
        if name not in known:
            place = f" at '{where}'" if where else ""
            raise Refusal.invalid(f'Invalid JSON payload received. Unknown name "{name}"{place}: Cannot find field.')
        _check(below, known[name], f"{where}.{name}" if where else name)


def _check(value: object, kind: Any, where: str) -> None:
    if value is None:
        return
    if isinstance(kind, list):
        if not isinstance(value, list):
            raise Refusal.invalid(f"Invalid value at '{where}', expected a list")
        for index, below in enumerate(cast("list[object]", value)):
            _check(below, kind[0], f"{where}[{index}]")
    elif isinstance(kind, dict) or kind in _document()["schemas"]:
        if not isinstance(value, dict):
            raise Refusal.invalid(f"Invalid value at '{where}', expected an object")
        fields = cast("dict[str, object]", value)
        if isinstance(kind, dict):
            for name, below in fields.items():
                _check(below, kind["*"], f"{where}.{name}")
        else:
            _check_fields(fields, kind, where)
    elif not _is_json_of(value, kind):
        raise Refusal.invalid(f"Invalid value at '{where}' ({_TYPES[kind]}), {json.dumps(value)}")


_TYPES = {
    "any": "TYPE_MESSAGE",
    "boolean": "TYPE_BOOL",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "number": "TYPE_DOUBLE",
    "string": "TYPE_STRING",
    "uint32": "TYPE_UINT32",
    "uint64": "TYPE_UINT64",
}
_RANGES = {
    "int32": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint32": (0, 2**32 - 1),
    "uint64": (0, 2**64 - 1),
}
_INTEGER = re.compile(r"-?[0-9]{1,20}")


def _is_text_of(value: str, kind: str) -> bool:
    if kind in _RANGES:
        least, most = _RANGES[kind]
        return _INTEGER.fullmatch(value) is not None and least <= int(value) <= most
    return kind != "boolean" or value in ("true", "false")


def _is_json_of(value: object, kind: str) -> bool:
    """Whether a value is of a type. Integers may be written as text, as protocol buffers' JSON allows."""
    if kind == "any":
        return True
    if kind == "boolean":
        return isinstance(value, bool)
    if kind == "string":
        return isinstance(value, str)
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return False
    if kind == "number":
        return not isinstance(value, str)
    return not isinstance(value, float) and _is_text_of(str(value), kind)
