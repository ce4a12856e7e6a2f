"""The metadata server that the guest talks to, at /computeMetadata/v1/.

It answers for one machine: the one that has electricity, or the first. Rules of the protocol:
https://cloud.google.com/compute/docs/metadata/querying-metadata
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Match, Route
from starlette.types import Scope

from comfyweb.demo.box import Box
from comfyweb.demo.identity import SCOPES
from comfyweb.demo.model import PROJECT_NUMBER, SERVICE_ACCOUNT, Machine, Status

BASE = "/computeMetadata/v1"
LONGEST_VALUE = 256 * 1024
LONGEST_WAIT_SECONDS = 3600.0
HEADERS = {"Metadata-Flavor": "Google", "Server": "Metadata Server for VM"}
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,256}")

Node = Mapping[str, Any] | Sequence[Any] | str | int


def tree(machine: Machine) -> dict[str, Any]:
    """Gather all metadata of a machine in a tree of dicts, lists, strings and numbers."""
    zone = f"projects/{PROJECT_NUMBER}/zones/{machine.zone}"
    scheduling = machine.scheduling
    account = {"aliases": ["default"], "email": SERVICE_ACCOUNT, "scopes": sorted(SCOPES)}
    instance = {
        "attributes": machine.metadata,
        "cpu-platform": "Intel Broadwell",
        "description": "",
        "disks": [
            {
                "device-name": each.device,
                "index": index,
                "interface": "SCSI",
                "mode": each.mode,
                "type": "PERSISTENT",
            }
            for index, each in enumerate(machine.disks)
        ],
        "guest-attributes": machine.guest_attributes,
        "hostname": f"{machine.name}.{machine.zone}.c.{machine.project}.internal",
        "id": machine.id,
        "machine-type": f"projects/{PROJECT_NUMBER}/machineTypes/{machine.machine_type}",
        "maintenance-event": "NONE",
        "name": machine.name,
        "network-interfaces": [
            {
                "access-configs": [{"external-ip": machine.external_ip, "type": "ONE_TO_ONE_NAT"}]
                if machine.access
                else [],
                "ip": machine.internal_ip,
                "network": f"projects/{PROJECT_NUMBER}/networks/default",
            }
        ],
        "preempted": "TRUE" if machine.preempted and machine.status is Status.STOPPING else "FALSE",
        "scheduling": {
            "automatic-restart": str(scheduling["automaticRestart"]).upper(),
            "on-host-maintenance": scheduling["onHostMaintenance"],
            "preemptible": str(scheduling["preemptible"]).upper(),
        },
        "service-accounts": {"default": account, SERVICE_ACCOUNT: account},
        "tags": machine.tags,
        "zone": zone,
    }
    return {
        "instance": instance,
        "project": {"attributes": {}, "numeric-project-id": PROJECT_NUMBER, "project-id": machine.project},
        "universe": {"universe-domain": "googleapis.com"},
    }


def lookup(node: Node, path: str) -> Node | None:
    """Find what stands at `path` below `node`; None when nothing does."""
    for name in filter(None, path.split("/")):
        if isinstance(node, Mapping) and name in node:
            node = node[name]
        elif not isinstance(node, (Mapping, str, int)) and name in map(str, range(len(node))):
            node = node[int(name)]
        else:
            return None
    return node


def etag_of(node: Node) -> str:
    """Name this content: another name when, and only when, it differs."""
    return hashlib.sha256(json.dumps(node).encode()).hexdigest()[:16]


def as_json(node: Node, path: str) -> Any:
    """Write the node in JSON, names in camelCase; those that people chose (attributes) stay as they are."""
    if isinstance(node, Mapping):
        free = path.rstrip("/").endswith("attributes") or "guest-attributes/" in path
        return {name if free else _camel(name): as_json(below, f"{path}/{name}") for name, below in node.items()}
    if isinstance(node, (str, int)):
        return node
    return [as_json(below, f"{path}/{index}") for index, below in enumerate(node)]


def _camel(name: str) -> str:
    first, *others = name.split("-")
    return first + "".join(word.title() for word in others)


def _children(node: Mapping[str, Any] | Sequence[Any]) -> list[tuple[str, Node]]:
    if isinstance(node, Mapping):
        return sorted(cast("Mapping[str, Node]", node).items())
    return [(str(index), below) for index, below in enumerate(node)]


def as_text(node: Node) -> str:
    """Write the node as text: a value, or the names in a directory, those of directories with a slash."""
    if isinstance(node, (str, int)):
        return str(node)
    return "".join(f"{name}\n" if isinstance(below, (str, int)) else f"{name}/\n" for name, below in _children(node))


def as_text_below(node: Node, path: str = "") -> str:
    """Write all values below the node as text, one a line with its path."""
    if isinstance(node, (str, int)):
        return f"{path} {node}\n"
    return "".join(as_text_below(below, f"{path}/{name}".lstrip("/")) for name, below in _children(node))


class _Flavored(Route):
    """A route that only those find who ask as the metadata server's clients do: a browser gets another page there."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match the path, for who has the header."""
        return super().matches(scope) if "metadata-flavor" in Headers(scope=scope) else (Match.NONE, {})


class Metadata:
    """The routes."""

    def __init__(self, box: Box) -> None:
        self._box = box

    def routes(self) -> list[Route]:
        """List them: reading everything, the service account's tokens, writing guest attributes."""
        guest_attribute = f"{BASE}/instance/guest-attributes/{{namespace}}/{{key}}"
        account = f"{BASE}/instance/service-accounts/{{account}}/token"
        return [
            _Flavored("/", self._root, methods=["GET"]),
            Route(account, self._token, methods=["GET"]),
            Route("/computeMetadata", self._top, methods=["GET"]),
            Route("/computeMetadata/", self._top, methods=["GET"]),
            Route(guest_attribute, self._write, methods=["PUT", "DELETE"]),
            Route(f"{BASE}/{{path:path}}", self._read, methods=["GET"]),
        ]

    async def _root(self, request: Request) -> Response:
        return _refused(request) or _text("0.1/\ncomputeMetadata/\n")

    async def _token(self, request: Request) -> Response:
        if refused := _refused(request):
            return refused
        if self._box.machine() is None or request.path_params["account"] not in ("default", SERVICE_ACCOUNT):
            return _text("Not Found\n", 404)
        return Response(
            json.dumps(self._box.identity.issue(SERVICE_ACCOUNT, self._box.clock.now())),
            media_type="application/json",
            headers=HEADERS,
        )

    async def _top(self, request: Request) -> Response:
        return _refused(request) or _text("v1/\n")

    async def _read(self, request: Request) -> Response:
        if refused := _refused(request):
            return refused
        path, query = request.path_params["path"], request.query_params
        node = self._node(path)
        if node is None:
            return _text("Not Found\n", 404)
        directory = not isinstance(node, (str, int))
        if directory != (not path or path.endswith("/")):
            return _redirect(request) if directory else _text("Not Found\n", 404)
        if query.get("wait_for_change", "").lower() == "true":
            seconds = _seconds(query.get("timeout_sec", str(LONGEST_WAIT_SECONDS)))
            if seconds is None:
                return _text("Invalid timeout_sec\n", 400)
            known = query.get("last_etag", etag_of(node))
            await self._box.until(lambda: _etag(self._node(path)) != known, seconds, given_up=request.is_disconnected)
            node = self._node(path)
            if node is None:
                return _text("Not Found\n", 404)
        return _rendered(node, path, recursive=query.get("recursive", "").lower() == "true", alt=query.get("alt", ""))

    def _node(self, path: str) -> Node | None:
        machine = self._box.machine()
        return lookup(tree(machine), path) if machine else None

    async def _write(self, request: Request) -> Response:
        if refused := _refused(request):
            return refused
        machine = self._box.machine()
        if machine is None or not machine.guest_attributes_enabled:
            return _text("Guest attributes endpoint access is disabled.\n", 403)
        namespace, key = request.path_params["namespace"], request.path_params["key"]
        if not _NAME.fullmatch(namespace) or not _NAME.fullmatch(key):
            return _text("Invalid namespace or key\n", 400)
        if request.method == "DELETE":
            known = machine.guest_attributes.get(namespace, {}).pop(key, None) is not None
            return _text("", 200 if known else 404)
        raw = b""
        async for chunk in request.stream():
            raw += chunk
            if len(raw) > LONGEST_VALUE:
                return _text("Value too large\n", 413)
        machine.guest_attributes.setdefault(namespace, {})[key] = raw.decode(errors="replace")
        return _text("")


def _refused(request: Request) -> Response | None:
    if "x-forwarded-for" in request.headers:
        return _text("X-Forwarded-For is not allowed\n", 403)
    if request.headers.get("metadata-flavor", "").lower() != "google":
        return _text('Missing required header "Metadata-Flavor": "Google"\n', 403)
    return None


def _etag(node: Node | None) -> str:
    return "" if node is None else etag_of(node)


def _seconds(said: str) -> float | None:
    try:
        seconds = float(said)
    except ValueError:
        return None
    return min(seconds, LONGEST_WAIT_SECONDS) if seconds >= 0 else None


def _rendered(node: Node, path: str, *, recursive: bool, alt: str) -> Response:
    etag = {"ETag": etag_of(node)}
    if alt == "json" or (recursive and alt != "text"):
        below = (
            node if recursive or isinstance(node, (str, int)) else [name.rstrip("\n") for name in as_text(node).split()]
        )
        return Response(json.dumps(as_json(below, path)), media_type="application/json", headers={**HEADERS, **etag})
    return _text(as_text_below(node) if recursive else as_text(node), headers=etag)


def _text(words: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return PlainTextResponse(words, status, media_type="application/text", headers={**HEADERS, **(headers or {})})


def _redirect(request: Request) -> Response:
    query = f"?{request.url.query}" if request.url.query else ""
    return Response(status_code=301, headers={**HEADERS, "Location": f"{quote(request.url.path)}/{query}"})
