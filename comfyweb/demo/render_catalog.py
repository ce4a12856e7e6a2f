"""What Compute Engine has on offer, in its JSON: projects, regions and zones, with their quotas, sizes and kinds."""

from collections.abc import Mapping
from typing import Any

from comfyweb.demo.bodies import fingerprint_of
from comfyweb.demo.catalog import DISK_TYPES, LARGEST_DISK_GB, SMALLEST_DISK_GB, AcceleratorType, MachineType
from comfyweb.demo.estate import Estate
from comfyweb.demo.model import PROJECT_NUMBER, region_of
from comfyweb.demo.render import at, link, present

BEGINNING = "1969-12-31T16:00:00.000-08:00"


def _id(name: str) -> str:
    """Make an id out of a name, the same each time."""
    return str(1000 + int.from_bytes(name.encode()[-6:], "big"))


def _quotas(estate: Estate, region: str) -> list[dict[str, Any]]:
    usage = estate.quotas.usage(region)
    return [
        {"metric": metric, "limit": float(limit), "usage": float(usage[metric])}
        for metric, limit in sorted(estate.quotas.limits[region].items())
    ]


def project(estate: Estate) -> dict[str, Any]:
    """Write a project as `projects.get` answers it."""
    return {
        "kind": "compute#project",
        "id": str(PROJECT_NUMBER),
        "creationTimestamp": at(estate.began),
        "name": estate.project,
        "commonInstanceMetadata": {"kind": "compute#metadata", "fingerprint": fingerprint_of({})},
        "quotas": _quotas(estate, ""),
        "selfLink": link(estate.path),
    }


def region(name: str, estate: Estate) -> dict[str, Any]:
    """Write a region as `regions.get` answers it."""
    return {
        "kind": "compute#region",
        "id": _id(name),
        "creationTimestamp": BEGINNING,
        "name": name,
        "description": name,
        "status": "UP",
        "zones": [link(f"{estate.path}/zones/{zone}") for zone in estate.zones if region_of(zone) == name],
        "quotas": _quotas(estate, name),
        "selfLink": link(f"{estate.path}/regions/{name}"),
    }


def zone(name: str, estate: Estate) -> dict[str, Any]:
    """Write a zone as `zones.get` answers it."""
    return {
        "kind": "compute#zone",
        "id": _id(name),
        "creationTimestamp": BEGINNING,
        "name": name,
        "description": name,
        "status": "UP",
        "region": link(f"{estate.path}/regions/{region_of(name)}"),
        "selfLink": link(f"{estate.path}/zones/{name}"),
        "availableCpuPlatforms": ["Intel Broadwell", "Intel Skylake"],
    }


def machine_type(found: MachineType, scope: str) -> dict[str, Any]:
    """Write a size of machine as `machineTypes.get` answers it."""
    accelerators = [{"guestAcceleratorType": found.accelerator, "guestAcceleratorCount": found.accelerators}]
    return {
        **present(
            kind="compute#machineType",
            id=_id(found.name),
            creationTimestamp=BEGINNING,
            name=found.name,
            description=f"{found.cpus} vCPUs, {found.memory_mb / 1024:g} GB RAM",
            zone=scope.rpartition("/")[2],
            selfLink=link(f"{scope}/machineTypes/{found.name}"),
            accelerators=accelerators if found.accelerator else [],
        ),
        "guestCpus": found.cpus,
        "memoryMb": found.memory_mb,
        "maximumPersistentDisks": 128,
        "maximumPersistentDisksSizeGb": "263168",
        "isSharedCpu": found.name == "e2-medium",
    }


def accelerator_type(found: AcceleratorType, scope: str) -> dict[str, Any]:
    """Write a GPU as `acceleratorTypes.get` answers it."""
    return {
        "kind": "compute#acceleratorType",
        "id": _id(found.name),
        "creationTimestamp": BEGINNING,
        "name": found.name,
        "description": found.words,
        "zone": link(scope),
        "selfLink": link(f"{scope}/acceleratorTypes/{found.name}"),
        "maximumCardsPerInstance": found.most,
    }


def disk_type(name: str, scope: str) -> dict[str, Any]:
    """Write a kind of disk as `diskTypes.get` answers it."""
    return {
        "kind": "compute#diskType",
        "id": _id(name),
        "creationTimestamp": BEGINNING,
        "name": name,
        "description": DISK_TYPES[name],
        "validDiskSize": f"{SMALLEST_DISK_GB}GB-{LARGEST_DISK_GB}GB",
        "defaultDiskSizeGb": "500" if name == "pd-standard" else "100",
        "zone": link(scope),
        "selfLink": link(f"{scope}/diskTypes/{name}"),
    }


def network(estate: Estate) -> Mapping[str, Any]:
    """Write the network that every project begins with, as `networks.get` answers it."""
    return {
        "kind": "compute#network",
        "id": _id(estate.project),
        "creationTimestamp": at(estate.began),
        "name": "default",
        "description": "Default network for the project",
        "autoCreateSubnetworks": True,
        "routingConfig": {"routingMode": "REGIONAL"},
        "subnetworks": [link(f"{estate.path}/regions/{name}/subnetworks/default") for name in estate.regions],
        "selfLink": link(f"{estate.path}/global/networks/default"),
    }
