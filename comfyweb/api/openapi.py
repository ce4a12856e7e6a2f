"""What FastAPI can't know of the API and its document must say: the fast path, the ways to log in, every refusal."""

from http import HTTPStatus
from typing import Any

from comfyweb.api.guard import is_public
from comfyweb.api.problems import MEDIA_TYPE
from comfyweb.api.status import PATH

TITLE = "comfyweb"
SUMMARY = "Start, use and stop a ComfyUI machine on Compute Engine."

Json = dict[str, Any]

SNAPSHOT_WORDS = {
    "phase": "off, waiting, starting, booting, ready, draining, stopping, fault or missing",
    "phase_since": "since when it is in that phase",
    "status": "Compute Engine's word as last seen, such as RUNNING or TERMINATED; empty when it has none",
    "external_ip": "the machine's address; empty while it has none",
    "comfyui_url": "ComfyUI's own address; empty while the machine is off",
    "embed": "whether a page of this app can frame ComfyUI",
    "embed_words": "why not",
    "same_site": "whether browsers count this app and ComfyUI as one site; if not, some don't run it in a frame",
    "certificate": "the machine's, where it told of one: mode, trusted, name, until, words",
    "upload_limit_mb": "megabytes that one upload to ComfyUI may have (Cloudflare's small plans); null: no limit known",
    "last_activity": "when somebody last used it; empty while unknown",
    "machine": "project, zone, name, type, accelerators",
    "price_per_hour": "an estimate; empty when there is none",
    "price_source": "where the estimate comes from",
    "currency": "of the estimate",
    "idle_minutes": "minutes without activity after which it stops itself",
    "drain_minutes": "minutes that a stop waits at most for running and queued prompts",
    "longest_run_minutes": "minutes that a run may last in any case",
    "run": "since when it is on, since when ready, whether comfyweb started it, when its longest time ends",
    "boot": "the start that is going on: since when, percent, the usual seconds, its steps",
    "queue": "ComfyUI's prompts: running, pending, and how far the current one is",
    "stops_at": "when it stops itself unless somebody uses it; empty while unknown",
    "ending": "a stop that comfyweb has announced: its reason (session-cap or silent-host), when, in words",
    "drain": "until when a stop waits, and for how many prompts",
    "wanted": "on or off, while somebody's wish for it is being carried out",
    "stop_mode": "drain or now, while it is being stopped on somebody's wish",
    "fault": "what went wrong: code, title, what, todo, passes, retry (it keeps trying), retry_at (when, if settled)",
    "last_stop": "when and why it stopped last",
    "notices": "sentences that whoever uses it should know",
}
SNAPSHOT_TYPES: dict[str, Json] = {
    "embed": {"type": "boolean"},
    "same_site": {"type": "boolean"},
    "machine": {"type": "object"},
    "idle_minutes": {"type": "number"},
    "drain_minutes": {"type": "number"},
    "longest_run_minutes": {"type": "number"},
    "upload_limit_mb": {"type": ["integer", "null"]},
    "notices": {"type": "array", "items": {"type": "string"}},
} | {
    name: {"type": ["object", "null"]}
    for name in ("certificate", "run", "boot", "queue", "ending", "drain", "fault", "last_stop")
}

SNAPSHOT: Json = {
    "type": "object",
    "description": "The machine as everybody sees it. Times are RFC 3339, UTC.",
    "required": list(SNAPSHOT_WORDS),
    "properties": {
        name: {"description": words} | SNAPSHOT_TYPES.get(name, {"type": "string"})
        for name, words in SNAPSHOT_WORDS.items()
    },
}
PROBLEM: Json = {
    "type": "object",
    "description": "What went wrong (RFC 9457).",
    "required": ["type", "title", "status", "detail", "error"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "for a person"},
        "error": {"type": "string", "description": "the same, for clients of the system before comfyweb"},
    },
}
STATUS: Json = {
    "tags": ["Machine"],
    "summary": "Instance Status",
    "description": "Return the machine as everybody sees it. With `If-None-Match` 304 while nothing changed.",
    "operationId": "instance_status",
    "parameters": [{"name": "If-None-Match", "in": "header", "required": False, "schema": {"type": "string"}}],
    "responses": {
        "200": {
            "description": "The newest snapshot",
            "headers": {"ETag": {"schema": {"type": "string"}}},
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Snapshot"}}},
        },
        "304": {"description": "Nothing has changed"},
    },
}
LOGINS: Json = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "x-auth-token"},
    "cookie": {
        "type": "apiKey",
        "in": "cookie",
        "name": "auth-token",
        "description": "unsafe methods only from this app's own pages",
    },
}
METRICS = "/metrics"
METRICS_LOGIN: Json = {"metrics": {"type": "http", "scheme": "bearer", "description": "METRICS_TOKEN, not a session's"}}
REFUSALS = {
    HTTPStatus.UNAUTHORIZED: "No token, or its session has ended",
    HTTPStatus.FORBIDDEN: "A cookie sent by another site's page",
    HTTPStatus.REQUEST_TIMEOUT: "The body did not arrive in time",
    HTTPStatus.CONFLICT: "The machine's phase does not allow it",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body is too large",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "The body is not application/json",
    HTTPStatus.BAD_REQUEST: "The body is not JSON",
    HTTPStatus.UNPROCESSABLE_ENTITY: "The body has the wrong shape; `errors` names each place",
    HTTPStatus.TOO_MANY_REQUESTS: "Too many attempts, or event streams; Retry-After says for how long to wait",
    HTTPStatus.INTERNAL_SERVER_ERROR: "A mistake of comfyweb's; `request_id` finds it in the log",
    HTTPStatus.SERVICE_UNAVAILABLE: "Something that is needed does not answer; nothing was done",
}
BODY_REFUSALS = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
)
NEEDS_PHASE = frozenset({"start", "stop", "keep-alive", "extend", "ticket"})
LOGIN = "/api/auth/login"
EVENTS = "/api/instance/events"


def complete(document: Json) -> Json:
    """Return FastAPI's document with what it lacks."""
    paths: Json = {**document["paths"], PATH: {"get": STATUS}}
    for path, item in paths.items():
        for method, operation in item.items():
            operation["responses"] = {
                code: answer for code, answer in operation["responses"].items() if code != "422"
            } | {str(int(code)): _refusal(code) for code in _refusals(path, method)}
            ways = METRICS_LOGIN if path == METRICS else {} if is_public(path) else LOGINS
            operation["security"] = [{name: []} for name in ways]
    known: Json = document.get("components", {}).get("schemas", {})
    schemas = {name: schema for name, schema in known.items() if name not in {"HTTPValidationError", "ValidationError"}}
    return document | {
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": schemas | {"Snapshot": SNAPSHOT, "Problem": PROBLEM},
            "securitySchemes": LOGINS | METRICS_LOGIN,
        },
    }


def _refusals(path: str, method: str) -> list[HTTPStatus]:
    """Return the refusals that an operation may answer with."""
    if path == "/healthz":
        return [HTTPStatus.INTERNAL_SERVER_ERROR]
    found = [HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.SERVICE_UNAVAILABLE]
    if not is_public(path) or path in {LOGIN, METRICS}:
        found.append(HTTPStatus.UNAUTHORIZED)
    if method == "post":
        found += BODY_REFUSALS
        found.append(HTTPStatus.TOO_MANY_REQUESTS if path == LOGIN else HTTPStatus.FORBIDDEN)
    if path == EVENTS:
        found.append(HTTPStatus.TOO_MANY_REQUESTS)
    if path.rpartition("/")[2] in NEEDS_PHASE:
        found.append(HTTPStatus.CONFLICT)
    return sorted(found)


def _refusal(code: HTTPStatus) -> Json:
    return {
        "description": REFUSALS[code],
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
