"""What one project of the emulated Compute Engine has, where to find it, and how much of it there may be."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from comfyweb.demo.faults import Faults
from comfyweb.demo.model import (
    PROJECT,
    Address,
    Disk,
    Machine,
    Operation,
    Refusal,
    Snapshot,
    Times,
    region_of,
)
from comfyweb.demo.quotas import Quotas
from comfyweb.demo.register import AddressPool, Register
from comfyweb.demo.timeline import Timeline

ZONES = ("us-central1-a", "us-central1-b", "us-central1-c")


class Estate(Timeline):
    """The project's things by zone (or region) and name. Finding what is not there raises `Refusal`."""

    def __init__(
        self,
        *,
        now: datetime,
        times: Times | None = None,
        seed: int = 0,
        zones: Sequence[str] = ZONES,
        project: str = PROJECT,
        pool: AddressPool | None = None,
        faults: Faults | None = None,
    ) -> None:
        super().__init__(now=now, times=times or Times(), register=Register(seed))
        self.project = project
        self.zones = tuple(zones)
        self.regions = tuple(dict.fromkeys(region_of(zone) for zone in zones))
        self.pool = pool or AddressPool(seed)
        self.faults = faults or Faults()
        self.machines: dict[tuple[str, str], Machine] = {}
        self.disks: dict[tuple[str, str], Disk] = {}
        self.addresses: dict[tuple[str, str], Address] = {}
        self.snapshots: dict[str, Snapshot] = {}
        self.quotas = Quotas(
            self.regions,
            machines=self.machines,
            disks=self.disks,
            addresses=self.addresses,
            snapshots=self.snapshots,
        )
        self.operations = self.register.operations

    @property
    def path(self) -> str:
        """The project's path."""
        return f"projects/{self.project}"

    def zone(self, name: str) -> str:
        """Find the zone of that name."""
        if name not in self.zones:
            raise Refusal.not_found(f"{self.path}/zones/{name}")
        return name

    def region(self, name: str) -> str:
        """Find the region of that name."""
        if name not in self.regions:
            raise Refusal.not_found(f"{self.path}/regions/{name}")
        return name

    def machine(self, zone: str, name: str) -> Machine:
        """Find the machine."""
        try:
            return self.machines[self.zone(zone), name]
        except KeyError:
            raise Refusal.not_found(f"{self.path}/zones/{zone}/instances/{name}") from None

    def disk(self, zone: str, name: str) -> Disk:
        """Find the disk."""
        try:
            return self.disks[self.zone(zone), name]
        except KeyError:
            raise Refusal.not_found(f"{self.path}/zones/{zone}/disks/{name}") from None

    def address(self, region: str, name: str) -> Address:
        """Find the reserved address."""
        try:
            return self.addresses[self.region(region), name]
        except KeyError:
            raise Refusal.not_found(f"{self.path}/regions/{region}/addresses/{name}") from None

    def snapshot(self, name: str) -> Snapshot:
        """Find the snapshot."""
        try:
            return self.snapshots[name]
        except KeyError:
            raise Refusal.not_found(f"{self.path}/global/snapshots/{name}") from None

    def operation(self, zone: str, name: str) -> Operation:
        """Find the operation of a zone."""
        return self.operation_in(f"{self.path}/zones/{self.zone(zone)}", name)

    def operation_in(self, scope: str, name: str) -> Operation:
        """Find the operation of a zone, a region or the whole project, by the path of that."""
        found = self.operations.get(name)
        if found is None or found.scope != scope:
            raise Refusal.not_found(f"{scope}/operations/{name}")
        return found

    def users_of(self, disk: Disk) -> list[Machine]:
        """List the machines that a disk is attached to, whether they are on or not."""
        return [machine for machine in self.machines.values() if machine.attachment(disk)]

    def user_of(self, address: Address) -> Machine | None:
        """Find the machine that has a reserved address."""
        return next(
            (
                machine
                for machine in self.machines.values()
                if machine.access and machine.access.reserved == address.address
            ),
            None,
        )

    def reserved(self, region: str, address: str) -> Address | None:
        """Find the reservation of an address in a region."""
        return next(
            (each for (where, _), each in self.addresses.items() if where == region and each.address == address), None
        )

    def free_internal_ip(self) -> str:
        """Give the lowest internal address that no machine has."""
        used = {machine.internal_ip for machine in self.machines.values()}
        return next(ip for ip in _internal_ips() if ip not in used)


def _internal_ips() -> Iterable[str]:
    for third in range(256):
        for fourth in range(2, 255):
            yield f"10.128.{third}.{fourth}"
