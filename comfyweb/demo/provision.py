"""The control endpoint, as to what the cloud consists of: projects, quotas, and whose keys are good."""

from collections.abc import Mapping
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from comfyweb.demo.box import Box
from comfyweb.demo.model import Refusal
from comfyweb.demo.rest import body_of
from comfyweb.demo.world import World

MOST = 1e9


class Provision:
    """The routes. Each answers with all that there is afterwards."""

    def __init__(self, box: Box) -> None:
        self._box = box

    def routes(self) -> list[Route]:
        """List them."""
        return [
            Route("/control/cloud", self._state, methods=["GET"]),
            Route("/control/project", self._project, methods=["POST"]),
            Route("/control/quota", self._quota, methods=["POST"]),
            Route("/control/keys", self._register, methods=["POST"]),
            Route("/control/keys", self._revoke, methods=["DELETE"]),
        ]

    async def _state(self, _request: Request) -> Response:
        return self._answer()

    def _answer(self) -> Response:
        identity = self._box.identity
        return JSONResponse(
            {
                "projects": {name: _project(world) for name, world in self._box.cloud.projects.items()},
                "verifies": identity.verifies,
                "keys": identity.keys(),
            }
        )

    async def _project(self, request: Request) -> Response:
        body = await body_of(request)
        zones = cast("object", body.get("zones", []))
        if not isinstance(zones, list) or not all(isinstance(zone, str) for zone in cast("list[object]", zones)):
            raise Refusal.invalid("'zones' is a list of words")
        self._box.cloud.create(_text(body, "name"), cast("list[str]", zones))
        return self._answer()

    async def _quota(self, request: Request) -> Response:
        body = await body_of(request)
        cloud = self._box.cloud
        world = cloud.project(_text(body, "project", cloud.first.project))
        metric, region, limit = _text(body, "metric"), _text(body, "region", ""), body.get("limit")
        limits = world.quotas.limits.get(region)
        if limits is None or metric not in limits:
            raise Refusal.invalid(f"There is no quota '{metric}' of '{region or 'all regions'}'.")
        if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not 0 <= limit <= MOST:
            raise Refusal.invalid("'limit' is a number from 0")
        limits[metric] = limit
        return self._answer()

    async def _register(self, request: Request) -> Response:
        self._box.identity.register(await body_of(request))
        self._box.identity.verifies = True
        return self._answer()

    async def _revoke(self, request: Request) -> Response:
        self._box.identity.revoke(_text(await body_of(request), "private_key_id"))
        return self._answer()


def _project(world: World) -> dict[str, Any]:
    return {
        "zones": world.zones,
        "machines": [machine.path for machine in world.machines.values()],
        "disks": [disk.path for disk in world.disks.values()],
        "snapshots": [snapshot.path for snapshot in world.snapshots.values()],
        "addresses": {address.path: address.address for address in world.addresses.values()},
        "quotas": {
            region or "global": {
                metric: {"limit": limit, "usage": usage[metric]} for metric, limit in sorted(limits.items())
            }
            for region, limits in world.quotas.limits.items()
            for usage in [world.quotas.usage(region)]
        },
    }


def _text(body: Mapping[str, Any], name: str, default: str | None = None) -> str:
    said = body.get(name, default)
    if not isinstance(said, str):
        raise Refusal.invalid(f"'{name}' is a word")
    return said
