"""Writes docs/rest.md from the OpenAPI document: `python -m comfyweb.api.reference > docs/rest.md`. A test compares."""

import sys
from collections.abc import Iterable
from typing import Any

from comfyweb.api.app import create_api

INTRODUCTION = """\
# REST

Made by `python -m comfyweb.api.reference`; `/api/docs` of a running app has the same to try out.

Log in once, then send the token as `x-auth-token: TOKEN`, `Authorization: Bearer TOKEN` or the cookie `auth-token`
(with POST only from the app's own pages):

    token=$(curl -s localhost:3000/api/auth/login -H 'content-type: application/json' \\
      -d '{"password": "…"}' | python3 -c 'import json, sys; print(json.load(sys.stdin)["token"])')
    curl -s localhost:3000/api/instance/status -H "x-auth-token: $token"
    curl -s localhost:3000/api/instance/start -H "x-auth-token: $token" -X POST
    curl -sN localhost:3000/api/instance/events -H "x-auth-token: $token"

A body is JSON of at most 64 KB. An error is `application/problem+json` with `type`, `title`, `status`, `detail` and
`error` (the same text as `detail`). Every path may answer 401, and one that needs the machine or the database 503 with
Retry-After; the tables name what is special to a call.
"""


def reference() -> str:
    """Return docs/rest.md."""
    document = create_api().openapi()
    schemas: dict[str, Any] = document["components"]["schemas"]
    lines = [INTRODUCTION, "## Calls", "", "| call | body | answers | meaning |", "|---|---|---|---|"]
    for path, item in document["paths"].items():
        for method, operation in item.items():
            codes = ", ".join(code for code in operation["responses"] if code in SPECIAL)
            meaning = " ".join(operation["description"].split())
            lines.append(f"| `{method.upper()} {path}` | {_body(operation)} | {codes} | {meaning} |")
    lines += ["", "## Bodies and answers"]
    for name, schema in sorted(schemas.items()):
        lines += ["", f"**{name}**: {' '.join(schema.get('description', '').split())}", ""]
        lines += _members(schema)
    return "\n".join(lines) + "\n"


SPECIAL = frozenset({"200", "304", "409", "429"})


def _body(operation: dict[str, Any]) -> str:
    body = operation.get("requestBody")
    if not body:
        return ""
    schema = body["content"]["application/json"]["schema"]
    refs = [one["$ref"] for one in [schema, *schema.get("anyOf", [])] if "$ref" in one]
    return refs[0].rpartition("/")[2] + ("" if body.get("required") else ", may be left out")


def _members(schema: dict[str, Any]) -> Iterable[str]:
    required = schema.get("required", [])
    for name, one in schema["properties"].items():
        kind: str | list[str] = one.get("type", "")
        kinds: list[str] = [kind] if isinstance(kind, str) else kind
        words = [" or ".join(kinds)]
        words += [f"one of {', '.join(one['enum'])}"] if "enum" in one else []
        words += [f"{one['minimum']:g} to {one['maximum']:g}"] if "maximum" in one else []
        words += [f"default {one['default']}"] if "default" in one else []
        words += ["may be left out"] if name not in required and "default" not in one else []
        meaning = f": {one['description']}" if "description" in one else ""
        yield f"- `{name}` ({', '.join(words)}){meaning}"


if __name__ == "__main__":
    sys.stdout.write(reference())
