"""Reserved addresses, and a machine's way to an external one."""

from collections.abc import Mapping
from typing import Any

from comfyweb.demo.bodies import labels_in, name_in
from comfyweb.demo.estate import Estate
from comfyweb.demo.faults import not_ready
from comfyweb.demo.model import (
    CALLER,
    AccessConfig,
    Address,
    Machine,
    Operation,
    OperationError,
    Refusal,
    Status,
    region_of,
)

Body = Mapping[str, Any]
NETWORK_INTERFACE = "nic0"
ACCESS_CONFIG = "External NAT"
_CONNECTED = frozenset({Status.STAGING, Status.RUNNING, Status.STOPPING})


class Addresses(Estate):
    """What callers may do to addresses. Everything raises `Refusal`."""

    def insert_address(self, region: str, body: Body, *, user: str = CALLER) -> Operation:
        """Reserve an address: a new one, or the one that a machine has for this run, which it then keeps."""
        name = name_in(body.get("name"), "resource.name")
        if (self.region(region), name) in self.addresses:
            raise Refusal.exists(f"{self.path}/regions/{region}/addresses/{name}")
        if body.get("addressType", "EXTERNAL") != "EXTERNAL":
            raise Refusal.invalid("Invalid value for field 'resource.addressType'. Only EXTERNAL is emulated.")
        holder = self._holder(region, body["address"]) if body.get("address") else None
        made = Address(
            name=name,
            region=region,
            id=self.register.number(),
            created_at=self.now,
            address=body.get("address", ""),
            project=self.project,
            description=body.get("description", ""),
            labels=labels_in(body.get("labels", {})),
        )
        operation = self.open("insert", made, user)
        if excess := self.quotas.excess(region, {"STATIC_ADDRESSES": 1}):
            return self.edit(operation, lambda: excess)
        if holder:
            holder.access = AccessConfig(name=holder.access.name if holder.access else "", reserved=made.address)
        else:
            made.address = self.pool.take()
        self.addresses[region, name] = made

        def apply() -> None:
            made.state = "RESERVED"

        return self.edit(operation, apply)

    def _holder(self, region: str, address: str) -> Machine:
        if self.reserved(region, address):
            raise Refusal.invalid(
                f"Invalid value for field 'resource.address': '{address}'. Specified IP address is already reserved."
            )
        for machine in self.machines.values():
            if machine.external_ip == address and region_of(machine.zone) == region:
                return machine
        raise Refusal.invalid(
            f"Invalid value for field 'resource.address': '{address}'. Specified IP address is not in use by a machine "
            f"of region '{region}'."
        )

    def delete_address(self, address: Address, *, user: str = CALLER) -> Operation:
        """Give it back, unless a machine has it, on or off."""
        if holder := self.user_of(address):
            raise Refusal.in_use("address", address.path, holder.path)

        def apply() -> OperationError | None:
            if holder := self.user_of(address):
                return _in_use(address.address, holder)
            if self.addresses.pop((address.region, address.name), None):
                self.pool.give_back(address.address)
            return None

        return self.edit(self.open("delete", address, user), apply)

    def add_access_config(self, machine: Machine, interface: str, body: Body, *, user: str = CALLER) -> Operation:
        """Give it a way to an external address: to `natIP`, which must be reserved, or to one per run."""
        _only_interface(interface)
        if machine.access:
            raise Refusal.invalid(
                "Invalid value for field 'resource.accessConfigs': At most one access config currently supported."
            )
        wanted = self.access_in(machine.zone, body)

        def apply() -> OperationError | None:
            if machine.access:
                return _in_use(machine.access.reserved or machine.external_ip, machine)
            if holder := self._holds(wanted.reserved):
                return _in_use(wanted.reserved, holder)
            if wanted.reserved and not self.reserved(region_of(machine.zone), wanted.reserved):
                return not_ready(machine.path)
            more = {"IN_USE_ADDRESSES": 1.0} if machine.admitted else {}
            if excess := self.quotas.excess(region_of(machine.zone), more):
                return excess
            machine.access = wanted
            if machine.status in _CONNECTED:
                self.connect(machine)
            return None

        return self.edit(self.open("addAccessConfig", machine, user), apply)

    def access_in(self, zone: str, body: Body) -> AccessConfig:
        """Read the access config that a caller wants for a machine in a zone."""
        address, region = body.get("natIP", ""), region_of(zone)
        if address and not self.reserved(region, address):
            raise Refusal.invalid(
                f"Invalid value for field 'resource.natIP': '{address}'. The specified external IP address "
                f"'{address}' was not found in region '{region}'."
            )
        if holder := self._holds(address):
            raise Refusal.in_use("address", address, holder.path)
        return AccessConfig(name=body.get("name") or ACCESS_CONFIG, reserved=address)

    def _holds(self, address: str) -> Machine | None:
        return next(
            (each for each in self.machines.values() if address and each.access and each.access.reserved == address),
            None,
        )

    def delete_access_config(self, machine: Machine, interface: str, name: str, *, user: str = CALLER) -> Operation:
        """Take its way to an external address away. A reserved address stays reserved."""
        _only_interface(interface)
        if not machine.access or machine.access.name != name:
            raise Refusal.invalid(f"Invalid value for field 'accessConfig': '{name}'. No such access config on nic0.")

        def apply() -> None:
            if machine.access and machine.access.name == name:
                self.disconnect(machine)
                machine.access = None

        return self.edit(self.open("deleteAccessConfig", machine, user), apply)

    def connect(self, machine: Machine) -> None:
        """Let it have its address: the reserved one, or any that is free."""
        if machine.access and not machine.external_ip:
            machine.external_ip = machine.access.reserved or self.pool.take()

    def disconnect(self, machine: Machine) -> None:
        """Take its address away; one that isn't reserved goes to somebody else."""
        if machine.external_ip and not (machine.access and machine.access.reserved):
            self.pool.give_back(machine.external_ip)
        machine.external_ip = ""


def _only_interface(name: str) -> None:
    if name != NETWORK_INTERFACE:
        raise Refusal.invalid(f"Invalid value for field 'networkInterface': '{name}'. No such network interface.")


def _in_use(address: str, holder: Machine) -> OperationError:
    return OperationError(
        code="IP_IN_USE_BY_ANOTHER_RESOURCE",
        message=f"IP '{address}' is already being used by another resource. '{holder.path}'",
        http_status=400,
        http_message="BAD REQUEST",
    )
