"""Compute Engine's REST: disks, snapshots and reserved addresses."""

from starlette.routing import Route

from comfyweb.demo import render_resources as write
from comfyweb.demo.box import Box
from comfyweb.demo.model import Address, Disk, Snapshot
from comfyweb.demo.rest import Act, Answer, Call, Handler, aggregated, change, listed, route


def storage_routes(box: Box) -> list[Route]:
    """Make the routes."""
    answers: dict[str, Handler] = {
        "disks.get": lambda call: write.disk(_disk(call), call.world),
        "disks.list": _disks,
        "disks.aggregatedList": _all_disks,
        "snapshots.get": lambda call: write.snapshot(_snapshot(call)),
        "snapshots.list": _snapshots,
        "addresses.get": lambda call: write.address(_address(call), call.world),
        "addresses.list": _addresses,
        "addresses.aggregatedList": _all_addresses,
    }
    changes: dict[str, Act] = {
        "disks.insert": lambda call: call.world.insert_disk(
            call.path["zone"],
            {**call.body, **({"sourceImage": call.query["sourceImage"]} if "sourceImage" in call.query else {})},
            user=call.user,
        ),
        "disks.delete": lambda call: call.world.delete_disk(_disk(call), user=call.user),
        "disks.resize": lambda call: call.world.resize_disk(_disk(call), call.body, user=call.user),
        "disks.createSnapshot": lambda call: call.world.create_snapshot(_disk(call), call.body, user=call.user),
        "snapshots.delete": lambda call: call.world.delete_snapshot(_snapshot(call), user=call.user),
        "addresses.insert": lambda call: call.world.insert_address(call.path["region"], call.body, user=call.user),
        "addresses.delete": lambda call: call.world.delete_address(_address(call), user=call.user),
    }
    return [
        *(route(box, name, answer) for name, answer in answers.items()),
        *(change(box, name, act) for name, act in changes.items()),
    ]


def _disk(call: Call) -> Disk:
    return call.world.disk(call.path["zone"], call.path["disk"])


def _snapshot(call: Call) -> Snapshot:
    return call.world.snapshot(call.path["snapshot"])


def _address(call: Call) -> Address:
    return call.world.address(call.path["region"], call.path["address"])


def _disks(call: Call) -> Answer:
    zone = call.world.zone(call.path["zone"])
    found = [write.disk(disk, call.world) for disk in call.world.disks.values() if disk.zone == zone]
    return listed(call, "compute#diskList", f"zones/{zone}/disks", found)


def _all_disks(call: Call) -> Answer:
    found = [write.disk(disk, call.world) for disk in call.world.disks.values()]
    return aggregated(
        call, "compute#diskAggregatedList", "disks", [f"zones/{zone}" for zone in call.world.zones], found
    )


def _snapshots(call: Call) -> Answer:
    found = [write.snapshot(snapshot) for snapshot in call.world.snapshots.values()]
    return listed(call, "compute#snapshotList", "global/snapshots", found)


def _addresses(call: Call) -> Answer:
    region = call.world.region(call.path["region"])
    found = [write.address(each, call.world) for each in call.world.addresses.values() if each.region == region]
    return listed(call, "compute#addressList", f"regions/{region}/addresses", found)


def _all_addresses(call: Call) -> Answer:
    found = [write.address(each, call.world) for each in call.world.addresses.values()]
    scopes = [f"regions/{region}" for region in call.world.regions]
    return aggregated(call, "compute#addressAggregatedList", "addresses", scopes, found)
