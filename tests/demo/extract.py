"""What the emulator needs of Google's discovery document: `python -m tests.demo.extract` writes it anew."""

import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from comfyweb.demo.methods import METHODS
from tests.demo.discovery import document

TARGET = Path(__file__).parent.parent.parent / "comfyweb/demo/discovery.json"


def described(name: str) -> Mapping[str, Any]:
    """Google's description of a method, `instances.get`. Raises `KeyError` when there is no such method."""
    resource, _, method = name.rpartition(".")
    return document()["resources"][resource]["methods"][method]


def extract(names: Iterable[str]) -> dict[str, Any]:
    """Path, query and body of these methods, and the fields of all that their bodies hold."""
    methods: dict[str, Any] = {}
    schemas: dict[str, Any] = {}
    for name in sorted(names):
        found = described(name)
        query = {
            key: {"type": _type(each), **({"required": True} if each.get("required") else {})}
            for key, each in sorted(found["parameters"].items())
            if each["location"] == "query"
        }
        methods[name] = {"http": found["httpMethod"], "path": found["path"], "query": query}
        if body := found.get("request", {}).get("$ref"):
            methods[name]["body"] = body
            _gather(body, schemas)
    common = {key: {"type": _type(each)} for key, each in sorted(document()["parameters"].items())}
    return {"methods": methods, "common": common, "schemas": dict(sorted(schemas.items()))}


def _gather(name: str, schemas: dict[str, Any]) -> None:
    if name in schemas:
        return
    schemas[name] = {}
    for field, below in sorted(document()["schemas"][name].get("properties", {}).items()):
        schemas[name][field] = written = _field(below)
        for reference in re.findall(r"[A-Z]\w+", json.dumps(written)):
            if reference in document()["schemas"]:
                _gather(reference, schemas)


def _field(schema: Mapping[str, Any]) -> Any:
    if "$ref" in schema:
        return schema["$ref"]
    if schema["type"] == "array":
        return [_field(schema["items"])]
    if schema["type"] == "object":
        return {"*": _field(schema.get("additionalProperties", {"type": "any"}))}
    return _type(schema)


def _type(schema: Mapping[str, Any]) -> str:
    return schema["format"] if schema.get("format") in {"int32", "uint32", "int64", "uint64"} else schema["type"]


def text(names: Iterable[str]) -> str:
    """The file's whole content."""
    return json.dumps(extract(names), indent=1) + "\n"


if __name__ == "__main__":
    sys.exit(0 if TARGET.write_text(text(METHODS)) else 1)
