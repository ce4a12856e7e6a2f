"""Compute Engine's REST: projects, regions, zones, and what there is to have in them."""

from collections.abc import Callable, Iterable
from typing import Any

from starlette.routing import Route

from comfyweb.demo import catalog
from comfyweb.demo import render_catalog as write
from comfyweb.demo.box import Box
from comfyweb.demo.model import Refusal
from comfyweb.demo.rest import Answer, Call, aggregated, listed, route

Written = dict[str, Any]


def catalog_routes(box: Box) -> list[Route]:
    """Make the routes."""
    return [
        route(box, "projects.get", lambda call: write.project(call.world)),
        route(box, "regions.get", lambda call: write.region(call.world.region(call.path["region"]), call.world)),
        route(box, "regions.list", _regions),
        route(box, "zones.get", lambda call: write.zone(call.world.zone(call.path["zone"]), call.world)),
        route(box, "zones.list", _zones),
        route(box, "networks.get", _network),
        route(box, "networks.list", _networks),
        *_kinds(
            box,
            "machineType",
            lambda name, scope: write.machine_type(catalog.machine_type(name, scope), scope),
            catalog.MACHINE_TYPES,
        ),
        *_kinds(
            box,
            "acceleratorType",
            lambda name, scope: write.accelerator_type(catalog.accelerator_type(name, scope), scope),
            catalog.ACCELERATOR_TYPES,
        ),
        *_kinds(
            box,
            "diskType",
            lambda name, scope: write.disk_type(catalog.disk_type(name, scope), scope),
            catalog.DISK_TYPES,
        ),
    ]


def _kinds(box: Box, kind: str, written: Callable[[str, str], Written], names: Iterable[str]) -> list[Route]:
    """Make the routes of what every zone has: to get one, to list a zone's, to list them all."""

    def get(call: Call) -> Answer:
        zone = call.world.zone(call.path["zone"])
        return written(call.path[kind], f"{call.world.path}/zones/{zone}")

    def in_zone(call: Call, zone: str) -> list[Written]:
        return [written(name, f"{call.world.path}/zones/{zone}") for name in names]

    def of_zone(call: Call) -> Answer:
        zone = call.world.zone(call.path["zone"])
        return listed(call, f"compute#{kind}List", f"zones/{zone}/{kind}s", in_zone(call, zone))

    def everywhere(call: Call) -> Answer:
        scopes = [f"zones/{zone}" for zone in call.world.zones]
        found = [each for zone in call.world.zones for each in in_zone(call, zone)]
        return aggregated(call, f"compute#{kind}AggregatedList", f"{kind}s", scopes, found)

    return [
        route(box, f"{kind}s.get", get),
        route(box, f"{kind}s.list", of_zone),
        route(box, f"{kind}s.aggregatedList", everywhere),
    ]


def _regions(call: Call) -> Answer:
    return listed(
        call, "compute#regionList", "regions", [write.region(name, call.world) for name in call.world.regions]
    )


def _zones(call: Call) -> Answer:
    return listed(call, "compute#zoneList", "zones", [write.zone(name, call.world) for name in call.world.zones])


def _network(call: Call) -> Answer:
    if call.path["network"] != "default":
        raise Refusal.not_found(f"{call.world.path}/global/networks/{call.path['network']}")
    return write.network(call.world)


def _networks(call: Call) -> Answer:
    return listed(call, "compute#networkList", "global/networks", [dict(write.network(call.world))])
