"""Quotas: how much of each thing a project may have, how much it has, and what is said when that is too much."""

from collections.abc import Iterable, Iterator, Mapping

from comfyweb.demo.catalog import ACCELERATOR_TYPES, MACHINE_TYPES
from comfyweb.demo.model import Address, Disk, Machine, OperationError, Snapshot, region_of

GPUS = tuple(each.metric for each in ACCELERATOR_TYPES.values())
REGIONAL: Mapping[str, float] = {
    "CPUS": 72,
    "DISKS_TOTAL_GB": 40960,
    "INSTANCES": 720,
    "IN_USE_ADDRESSES": 8,
    **dict.fromkeys(GPUS, 4),
    "SSD_TOTAL_GB": 4096,
    "STATIC_ADDRESSES": 8,
}
"""What a region of a new project may have. pd-standard counts as DISKS_TOTAL_GB, the faster kinds as SSD_TOTAL_GB."""

GLOBAL: Mapping[str, float] = {"CPUS_ALL_REGIONS": 128, "GPUS_ALL_REGIONS": 8, "SNAPSHOTS": 5000}
"""What a new project may have in all regions together; `""` stands for them where a region is named."""

Amounts = Mapping[str, float]


def of_machine(machine: Machine) -> dict[str, float]:
    """Count what a machine uses while it is on."""
    cpus = MACHINE_TYPES[machine.machine_type].cpus
    used: dict[str, float] = {"CPUS": cpus, "CPUS_ALL_REGIONS": cpus}
    if machine.accelerators:
        used[ACCELERATOR_TYPES[machine.accelerator].metric] = machine.accelerators
        used["GPUS_ALL_REGIONS"] = machine.accelerators
    if machine.access:
        used["IN_USE_ADDRESSES"] = 1
    return used


def of_disk(kind: str, size_gb: int) -> dict[str, float]:
    """Count what a disk uses."""
    return {"DISKS_TOTAL_GB" if kind == "pd-standard" else "SSD_TOTAL_GB": size_gb}


class Quotas:
    """The limits of one project, and what is used of them by what it has."""

    def __init__(
        self,
        regions: Iterable[str],
        *,
        machines: Mapping[tuple[str, str], Machine],
        disks: Mapping[tuple[str, str], Disk],
        addresses: Mapping[tuple[str, str], Address],
        snapshots: Mapping[str, Snapshot],
    ) -> None:
        self.limits: dict[str, dict[str, float]] = {"": dict(GLOBAL), **{region: dict(REGIONAL) for region in regions}}
        self._machines = machines
        self._disks = disks
        self._addresses = addresses
        self._snapshots = snapshots

    def usage(self, region: str) -> dict[str, float]:
        """How much of each limit of a region (`""`: of the whole project) is used."""
        used = dict.fromkeys(self.limits[region], 0.0)
        for amounts in self._amounts(region):
            for metric, amount in amounts.items():
                if metric in used:
                    used[metric] += amount
        return used

    def _amounts(self, region: str) -> Iterator[Amounts]:
        for machine in self._machines.values():
            if region in ("", region_of(machine.zone)):
                yield {"INSTANCES": 1}
                yield of_machine(machine) if machine.admitted else {}
        for disk in self._disks.values():
            if region in ("", region_of(disk.zone)):
                yield of_disk(disk.kind, disk.size_gb)
        for address in self._addresses.values():
            if region in ("", address.region):
                yield {"STATIC_ADDRESSES": 1}
        for _ in self._snapshots:
            yield {"SNAPSHOTS": 1}

    def excess(self, region: str, more: Amounts) -> OperationError | None:
        """Tell how `more` would be too much; None when it is not."""
        for where in (region, ""):
            used = self.usage(where) if where in self.limits else {}
            for metric, amount in more.items():
                if metric in used and used[metric] + amount > self.limits[where][metric]:
                    return exceeded(metric, self.limits[where][metric], where)
        return None


def exceeded(metric: str, limit: float, region: str) -> OperationError:
    """Fail because of a quota, of a region or (`""`) of the whole project. Words and fields are recorded ones."""
    info = {
        "metricName": f"compute.googleapis.com/{metric.lower()}",
        "limitName": f"{metric.replace('_', '-')}-per-project{'-region' if region else ''}",
        "limit": float(limit),
        "dimensions": {"region": region or "global"},
    }
    where = f"in region {region}" if region else "globally"
    return OperationError(
        code="QUOTA_EXCEEDED",
        message=f"Quota '{metric}' exceeded.  Limit: {float(limit)} {where}.",
        http_status=403,
        http_message="FORBIDDEN",
        details=({"quotaInfo": info},),
    )
