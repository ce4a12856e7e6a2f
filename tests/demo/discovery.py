"""Holds calls and answers to Google's own description of Compute Engine, which google-api-python-client carries."""

import base64
import binascii
import importlib.resources
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache, lru_cache
from typing import Any, cast
from urllib.parse import parse_qsl

from starlette.types import ASGIApp, Message, Receive, Scope, Send

BASE = "/compute/v1/"
_LIMITS = {
    "int32": (-(2**31), 2**31 - 1),
    "uint32": (0, 2**32 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint64": (0, 2**64 - 1),
}


@cache
def document() -> dict[str, Any]:
    """The discovery document of compute.v1."""
    files = importlib.resources.files("googleapiclient.discovery_cache.documents")
    return json.loads((files / "compute.v1.json").read_text())


@dataclass(frozen=True)
class Described:
    """A method as the document has it; `name` is `instances.get`."""

    name: str
    http: str
    path: re.Pattern[str]
    query: Mapping[str, Any]
    body: str
    answer: str


@cache
def methods() -> list[Described]:
    """All that there are."""
    found: list[Described] = []
    for name, resource in document()["resources"].items():
        for verb, call in resource.get("methods", {}).items():
            found.append(
                Described(
                    name=f"{name}.{verb}",
                    http=call["httpMethod"],
                    path=re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(call["path"]))),
                    query={key: each for key, each in call["parameters"].items() if each["location"] == "query"},
                    body=call.get("request", {}).get("$ref", ""),
                    answer=call.get("response", {}).get("$ref", ""),
                )
            )
    return found


@lru_cache(maxsize=4096)
def method_of(http: str, path: str) -> Described | None:
    """The method that a call is for; None when Compute Engine has no such call."""
    below = path.removeprefix(BASE)
    return next((known for known in methods() if known.http == http and known.path.fullmatch(below)), None)


def call_violations(method: Described, query: Sequence[tuple[str, str]], body: bytes) -> Iterator[str]:
    """Everything in which what was sent is not what the method takes."""
    for name, value in query:
        schema = method.query.get(name) or document()["parameters"].get(name)
        if schema is None:
            yield f"query: {name} is no parameter of {method.name}"
        else:
            yield from violations(_typed(value, schema), schema, f"query.{name}")
    sent = {name for name, _ in query}
    yield from (
        f"query: {name} is missing"
        for name, each in method.query.items()
        if each.get("required", False) and name not in sent
    )
    if body.strip() and not method.body and body != b'"ignored"':
        yield f"a body, which {method.name} has not: {body!r}"
    elif body.strip() and method.body:
        found = violations(json.loads(body), {"$ref": method.body})
        # Google's front takes empty lists, nulls, 64-bit numbers that are not in text, and base64 without its padding.
        yield from (each for each in found if not _LOOSE.search(each))


_LOOSE = re.compile(r"an empty array|: -?\d+ is not a string$|: None is|: '(....)*...?' is not base64$")


def _typed(value: str, schema: Mapping[str, Any]) -> object:
    kind = schema["type"]
    if kind == "integer" and re.fullmatch(r"-?\d+", value):
        return int(value)
    return {"true": True, "false": False}.get(value, value) if kind == "boolean" else value


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
    """Middleware that remembers what is wrong with Compute Engine calls and their answers, and which were answered.

    A call is judged when it was accepted: then its maker must have kept to the document, and the emulator too.
    """

    def __init__(self) -> None:
        self.found: list[str] = []
        self.seen: set[str] = set()

    def wrap(self, app: ASGIApp) -> ASGIApp:
        """Examine what `app` is asked and answers."""

        async def examined(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or not scope["path"].startswith(BASE):
                await app(scope, receive, send)
                return
            status, html, body, sent = 0, False, b"", b""

            async def hear() -> Message:
                nonlocal sent
                message = await receive()
                sent += message.get("body", b"")
                return message

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
                        self._judge(scope, sent, status, body)
                await send(message)

            await app(scope, hear, examine)

        return examined

    def _judge(self, scope: Scope, sent: bytes, status: int, body: bytes) -> None:
        call = f"{scope['method']} {scope['path']}"
        method = method_of(scope["method"], scope["path"])
        if method is None:
            self.found.append(f"{call}: Compute Engine has no such call")
            return
        answer: object = json.loads(body)
        if status != 200:
            self.found.extend(f"{call}: {each}" for each in error_violations(status, answer))
            return
        self.seen.add(method.name)
        query = parse_qsl(scope["query_string"].decode(), keep_blank_values=True)
        self.found.extend(f"{call}: sent {each}" for each in call_violations(method, query, sent))
        self.found.extend(f"{call}: {each}" for each in violations(answer, {"$ref": method.answer}))
