"""What the world gives out: ids, addresses, and operations, each once. Everything random comes from one seed."""

import random
import re
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime

from comfyweb.demo.model import Operation, Refusal, Resource

ADDRESSES = tuple(f"{net}.{n}" for net in ("203.0.113", "192.0.2", "198.51.100") for n in range(1, 255))
"""Addresses that nobody has: blocks that RFC 5737 keeps for documentation."""

KEPT_OPERATIONS = 1000
_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")


class AddressPool:
    """External addresses: of all projects together each has one owner at most."""

    def __init__(self, seed: int, addresses: Sequence[str] = ADDRESSES) -> None:
        self._addresses = addresses
        self._given = random.Random(seed).randrange(len(addresses))  # noqa: S311 - no secret
        self._taken: set[str] = set()

    def take(self) -> str:
        """Give the next one that is free. Raises `LookupError` when none is."""
        for _ in self._addresses:
            self._given += 1
            address = self._addresses[self._given % len(self._addresses)]
            if address not in self._taken:
                self._taken.add(address)
                return address
        raise LookupError("no external address is left")

    def give_back(self, address: str) -> None:
        """Let it be given again."""
        self._taken.discard(address)


class Register:
    """The operations by name, oldest first, and the source of what must differ from all before."""

    def __init__(self, seed: int) -> None:
        self.operations: dict[str, Operation] = {}
        self._random = random.Random(seed)  # noqa: S311 - names and ids, no secrets

    def number(self) -> int:
        """Make an id that fits Compute Engine's unsigned 64 bits."""
        return self._random.randrange(10**18, 9 * 10**18)

    def boot_id(self) -> str:
        """Make the name of a boot."""
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def open(self, kind: str, target: Resource, user: str, *, now: datetime, started_at: datetime) -> Operation:
        """Open an operation; the oldest ones are forgotten."""
        while len(self.operations) >= KEPT_OPERATIONS:
            del self.operations[next(iter(self.operations))]
        tail = "-".join(f"{self._random.getrandbits(32):08x}" for _ in range(3))
        operation = Operation(
            name=f"operation-{int(now.timestamp() * 1000)}-{tail}",
            id=self.number(),
            kind=kind,
            scope=target.scope,
            target=target.path,
            target_id=target.id,
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
