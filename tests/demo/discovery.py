"""Holds answers to Google's own description of Compute Engine: the discovery document in google-api-python-client."""

import base64
import binascii
import importlib.resources
import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import cache
from typing import Any, cast

from starlette.types import ASGIApp, Message, Receive, Scope, Send

BASE = "/compute/v1/"
_LIMITS = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1), "uint64": (0, 2**64 - 1)}


@cache
def document() -> dict[str, Any]:
    """The discovery document of compute.v1."""
    files = importlib.resources.files("googleapiclient.discovery_cache.documents")
    return json.loads((files / "compute.v1.json").read_text())


@cache
def calls() -> list[tuple[str, re.Pattern[str], str]]:
    """HTTP method, path and the name of the schema of the answer, of every call there is."""
    found: list[tuple[str, re.Pattern[str], str]] = []
    resources = list(document()["resources"].values())
    while resources:
        resource = resources.pop()
        resources.extend(resource.get("resources", {}).values())
        for call in resource.get("methods", {}).values():
            path = re.sub(r"\\{\w+\\}", "[^/]+", re.escape(call["path"]))
            found.append((call["httpMethod"], re.compile(path), call.get("response", {}).get("$ref", "")))
    return found


def schema_of(method: str, path: str) -> str | None:
    """The name of the schema of what a call answers; None when Compute Engine has no such call."""
    for known, pattern, schema in calls():
        if known == method and pattern.fullmatch(path.removeprefix(BASE)):
            return schema
    return None


def violations(value: object, schema: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """Everything in which `value` is not what `schema` describes."""
    if "$ref" in schema:
        yield from violations(value, document()["schemas"][schema["$ref"]], where or schema["$ref"])
        return
    check = _CHECKS[schema["type"]]
    yield from check(value, schema, where)


def _object(value: object, schema: Mapping[str, Any], where: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{where}: {value!r} is not an object"
        return
    known, others = schema.get("properties", {}), schema.get("additionalProperties")
    for name, below in cast("dict[str, object]", value).items():
        expected = known.get(name, others)
        if expected is None:
            yield f"{where}.{name}: no such field"
        else:
            yield from violations(below, expected, f"{where}.{name}")


def _array(value: object, schema: Mapping[str, Any], where: str) -> Iterator[str]:
    if not isinstance(value, list):
        yield f"{where}: {value!r} is not an array"
        return
    if not value:
        yield f"{where}: an empty array, which Google leaves out"
    for index, below in enumerate(cast("list[object]", value)):
        yield from violations(below, schema["items"], f"{where}[{index}]")


def _string(value: object, schema: Mapping[str, Any], where: str) -> Iterator[str]:
    if not isinstance(value, str):
        yield f"{where}: {value!r} is not a string"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{where}: {value!r} is none of {schema['enum']}"
    form = schema.get("format")
    if form in _LIMITS and not _fits(value, form):
        yield f"{where}: {value!r} is no {form}"
    if form == "byte" and not _base64(value):
        yield f"{where}: {value!r} is not base64"
    if where.endswith(("Timestamp", "Time")) and not _timestamp(value):
        yield f"{where}: {value!r} is not RFC 3339 with milliseconds and offset"


def _integer(value: object, schema: Mapping[str, Any], where: str) -> Iterator[str]:
    if not isinstance(value, int) or isinstance(value, bool) or not _fits(str(value), schema["format"]):
        yield f"{where}: {value!r} is no {schema['format']}"


def _number(value: object, _schema: Mapping[str, Any], where: str) -> Iterator[str]:
    if not isinstance(value, int | float) or isinstance(value, bool):
        yield f"{where}: {value!r} is not a number"


def _boolean(value: object, _schema: Mapping[str, Any], where: str) -> Iterator[str]:
    if not isinstance(value, bool):
        yield f"{where}: {value!r} is not a boolean"


_CHECKS: dict[str, Callable[[object, Mapping[str, Any], str], Iterator[str]]] = {
    "object": _object,
    "array": _array,
    "string": _string,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "any": lambda _value, _schema, _where: iter(()),
}


def _fits(value: str, form: str) -> bool:
    least, most = _LIMITS[form]
    return re.fullmatch(r"-?\d+", value) is not None and least <= int(value) <= most


def _base64(value: str) -> bool:
    try:
        base64.b64decode(value, validate=True)
    except binascii.Error:
        return False
    return True


def _timestamp(value: str) -> bool:
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d", value) is not None


def error_violations(status: int, body: object) -> Iterator[str]:
    """Everything in which the body of a refusal is not Google's error frame, which no schema describes."""
    match body:
        case {
            "error": {"code": code, "message": str(message), "errors": [{"reason": str(), "domain": str()} as first]}
        }:
            if code != status:
                yield f"the frame says {code}, HTTP {status}"
            if first.get("message") != message:
                yield "the frame holds two messages"
        case _:
            yield f"not Google's error frame: {body!r}"


class Examiner:
    """Middleware that remembers what is wrong with the answers to Compute Engine calls, and which calls were made."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.seen: set[tuple[str, int]] = set()

    def wrap(self, app: ASGIApp) -> ASGIApp:
        """Examine what `app` answers."""

        async def examined(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or not scope["path"].startswith(BASE):
                await app(scope, receive, send)
                return
            status, html, body = 0, False, b""

            async def examine(message: Message) -> None:
                nonlocal status, html, body
                if message["type"] == "http.response.start":
                    status = message["status"]
                    html = any(
                        key == b"content-type" and value.startswith(b"text/html") for key, value in message["headers"]
                    )
                elif message["type"] == "http.response.body":
                    body += message.get("body", b"")
                    if not message.get("more_body") and not html:
                        self._judge(scope["method"], scope["path"], status, body)
                await send(message)

            await app(scope, receive, examine)

        return examined

    def _judge(self, method: str, path: str, status: int, body: bytes) -> None:
        call = f"{method} {path}"
        schema = schema_of(method, path)
        if schema is None:
            self.found.append(f"{call}: Compute Engine has no such call")
            return
        self.seen.add((f"{schema}", status))
        answer: object = json.loads(body)
        wrong = violations(answer, {"$ref": schema}) if status == 200 else error_violations(status, answer)
        self.found.extend(f"{call}: {each}" for each in wrong)
