"""What the world gives out: ids, addresses, and operations, each once. Everything random comes from one seed."""

import random
import re
import uuid
from collections.abc import Callable, Container
from datetime import datetime

from comfyweb.demo.model import Machine, Operation, Refusal

ADDRESSES = tuple(f"{net}.{n}" for net in ("203.0.113", "192.0.2") for n in range(1, 255))
"""Addresses that nobody has: blocks that RFC 5737 keeps for documentation."""

KEPT_OPERATIONS = 1000
_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")


class Register:
    """The operations by name, oldest first, and the source of what must differ from all before."""

    def __init__(self, seed: int) -> None:
        self.operations: dict[str, Operation] = {}
        self._random = random.Random(seed)  # noqa: S311 - names and ids, no secrets
        self._addresses_given = self._random.randrange(len(ADDRESSES))

    def number(self) -> int:
        """Make an id that fits Compute Engine's unsigned 64 bits."""
        return self._random.randrange(10**18, 9 * 10**18)

    def boot_id(self) -> str:
        """Make the name of a boot."""
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def address(self, used: Container[str]) -> str:
        """Give the next address that is not in use."""
        while True:
            self._addresses_given += 1
            address = ADDRESSES[self._addresses_given % len(ADDRESSES)]
            if address not in used:
                return address

    def open(self, kind: str, machine: Machine, user: str, *, now: datetime, started_at: datetime) -> Operation:
        """Open an operation on a machine; the oldest ones are forgotten."""
        while len(self.operations) >= KEPT_OPERATIONS:
            del self.operations[next(iter(self.operations))]
        tail = "-".join(f"{self._random.getrandbits(32):08x}" for _ in range(3))
        operation = Operation(
            name=f"operation-{int(now.timestamp() * 1000)}-{tail}",
            id=self.number(),
            kind=kind,
            zone=machine.zone,
            target=machine.name,
            target_id=machine.id,
            user=user,
            inserted_at=now,
            started_at=started_at,
        )
        self.operations[operation.name] = operation
        return operation

    def once(self, request_id: str, act: Callable[[], Operation]) -> Operation:
        """Act, unless a call with this `request_id` was accepted before: then find its operation. Raises `Refusal`."""
        if not request_id:
            return act()
        if not _UUID.fullmatch(request_id) or not uuid.UUID(request_id).int:
            raise Refusal.invalid(
                f"Invalid value for field 'requestId': '{request_id}'. It must be a valid UUID other than zero."
            )
        for operation in self.operations.values():
            if operation.request_id == request_id:
                return operation
        operation = act()
        operation.request_id = request_id
        return operation
