"""Disks and snapshots of the emulated Compute Engine: made, grown, copied, deleted; never while somebody uses them."""

from collections.abc import Mapping
from typing import Any

from comfyweb.demo import catalog
from comfyweb.demo.bodies import labels_in, name_in, size_in
from comfyweb.demo.estate import Estate
from comfyweb.demo.links import in_scope, is_image, path_in
from comfyweb.demo.model import (
    CALLER,
    Disk,
    Operation,
    OperationError,
    Refusal,
    Snapshot,
    in_use,
    region_of,
)
from comfyweb.demo.quotas import of_disk

Body = Mapping[str, Any]


class Storage(Estate):
    """What callers may do to disks and snapshots. Everything raises `Refusal`."""

    def insert_disk(self, zone: str, body: Body, *, user: str = CALLER) -> Operation:
        """Make a disk: empty, from an image or from a snapshot. One over the quota fails in its operation."""
        disk = self.disk_in(zone, body, "resource")
        operation = self.open("insert", disk, user)
        if excess := self.quotas.excess(region_of(zone), of_disk(disk.kind, disk.size_gb)):
            return self.edit(operation, lambda: excess)
        disk.state = "CREATING"
        self.disks[zone, disk.name] = disk

        def apply() -> None:
            if disk.state == "CREATING":  # and not deleted meanwhile
                disk.state = "READY"

        return self.edit(operation, apply)

    def disk_in(self, zone: str, body: Body, where: str, name: str = "") -> Disk:
        """Read the disk that a caller wants in a zone, without making it; `name` is what it is called by default."""
        scope = f"{self.path}/zones/{self.zone(zone)}"
        name = name_in(body.get("name", name), f"{where}.name")
        if (zone, name) in self.disks:
            raise Refusal.exists(f"{scope}/disks/{name}")
        kind = body.get("type", "")
        source, source_id, least = self._source(body, where)
        disk = Disk(
            name=name,
            zone=zone,
            id=self.register.number(),
            created_at=self.now,
            project=self.project,
            kind=catalog.disk_type(in_scope(kind, f"{where}.type", scope, "diskTypes"), scope)
            if kind
            else "pd-standard",
            size_gb=size_in(body.get("sizeGb"), f"{where}.sizeGb", default=least),
            source=source,
            source_id=source_id,
            description=body.get("description", ""),
            labels=labels_in(body.get("labels", {})),
        )
        if disk.size_gb < least:
            what = "snapshot" if source_id else "image"
            raise Refusal.invalid(
                f"Invalid value for field '{where}.sizeGb': '{disk.size_gb}'. Requested disk size cannot be smaller "
                f"than the {what} size ({least} GB)"
            )
        return disk

    def _source(self, body: Body, where: str) -> tuple[str, int, int]:
        """Find what a disk is made from: its path, its id and its size in GB."""
        if link := body.get("sourceSnapshot"):
            name = in_scope(link, f"{where}.sourceSnapshot", f"{self.path}/global", "snapshots")
            snapshot = self.snapshot(name)
            if snapshot.state != "READY":
                raise Refusal(400, "resourceNotReady", f"The resource '{snapshot.path}' is not ready")
            return snapshot.path, snapshot.id, snapshot.size_gb
        if link := body.get("sourceImage"):
            path = path_in(link, self.project)
            if not is_image(path):
                raise Refusal.invalid(f"Invalid value for field '{where}.sourceImage': '{link}'. The URL is malformed.")
            return path, 0, catalog.IMAGE_GB
        return "", 0, catalog.SMALLEST_DISK_GB

    def delete_disk(self, disk: Disk, *, user: str = CALLER) -> Operation:
        """Delete it, unless a machine has it, on or off."""
        if users := self.users_of(disk):
            raise Refusal.in_use("disk", disk.path, users[0].path)
        operation = self.open("delete", disk, user)
        disk.state = "DELETING"

        def apply() -> None:
            self.disks.pop((disk.zone, disk.name), None)

        return self.edit(operation, apply)

    def resize_disk(self, disk: Disk, body: Body, *, user: str = CALLER) -> Operation:
        """Make it larger; also while it is in use."""
        wanted = size_in(body.get("sizeGb"), "sizeGb")
        if wanted <= disk.size_gb:
            raise Refusal.invalid(
                f"Invalid value for field 'sizeGb': '{wanted}'. New disk size '{wanted}' GB must be larger than "
                f"existing size '{disk.size_gb}' GB."
            )

        def apply() -> OperationError | None:
            more = of_disk(disk.kind, wanted - disk.size_gb)
            if wanted > disk.size_gb and (excess := self.quotas.excess(region_of(disk.zone), more)):
                return excess
            disk.size_gb = max(wanted, disk.size_gb)
            return None

        return self.edit(self.open("resizeDisk", disk, user), apply)

    def create_snapshot(self, disk: Disk, body: Body, *, user: str = CALLER) -> Operation:
        """Copy a disk as it is, in use or not."""
        name = name_in(body.get("name"), "resource.name")
        if name in self.snapshots:
            raise Refusal.exists(f"{self.path}/global/snapshots/{name}")
        if disk.state != "READY":
            raise Refusal(400, "resourceNotReady", f"The resource '{disk.path}' is not ready")
        operation = self.open("createSnapshot", disk, user)
        if excess := self.quotas.excess("", {"SNAPSHOTS": 1}):
            return self.edit(operation, lambda: excess)
        snapshot = Snapshot(
            name=name,
            id=self.register.number(),
            created_at=self.now,
            source=disk.path,
            source_id=disk.id,
            size_gb=disk.size_gb,
            project=self.project,
            description=body.get("description", ""),
            labels=labels_in(body.get("labels", {})),
        )
        self.snapshots[name] = snapshot

        def apply() -> None:
            if snapshot.state == "CREATING":  # and not deleted meanwhile
                snapshot.state = "READY"

        return self.edit(operation, apply)

    def delete_snapshot(self, snapshot: Snapshot, *, user: str = CALLER) -> Operation:
        """Delete it. Disks that were made from it stay."""
        operation = self.open("delete", snapshot, user)
        snapshot.state = "DELETING"

        def apply() -> None:
            self.snapshots.pop(snapshot.name, None)

        return self.edit(operation, apply)


def disk_in_use(disk: Disk, user: str) -> OperationError:
    """Fail because another machine has the disk (openshift/release#7550)."""
    return OperationError(
        code="RESOURCE_IN_USE_BY_ANOTHER_RESOURCE",
        message=in_use("disk", disk.path, user),
        http_status=400,
        http_message="BAD REQUEST",
    )
