"""Keeps the orders that wait in metadata for a host that HTTPS doesn't reach, and says when to write them.

They are in memory alone. A process that is killed asks again: the loop for what it wants of the host, people for the
rest. `machine/orders.py` judges.
"""

import json
import secrets
from collections.abc import Callable, Mapping
from datetime import datetime

from comfyweb.access.host_tokens import COMMAND_LIFETIME
from comfyweb.machine import orders
from comfyweb.machine.decide import FRESH, UP, current_host
from comfyweb.machine.model import MachineSeen, Observation, Verb
from comfyweb.machine.orders import Order, Waiting

Sign = Callable[[str, str, Mapping[str, object], str], str]
"""Makes the token of one command: `sign(method, path, body, jti)`."""


def by_google_alone(seen: Observation, now: datetime) -> bool:
    """Whether the host is heard by way of Google and not by HTTPS."""
    host = current_host(seen, now)
    return host is not None and not host.by_https


class Orders:
    """What waits. Without `sign` nothing is ever told by metadata."""

    def __init__(self, sign: Sign | None = None) -> None:
        self._sign = sign
        self._waiting: tuple[Waiting, ...] = ()
        self._written = ""

    def put(self, order: Order, seen: Observation, now: datetime) -> bool:
        """Let an order wait; False when the host isn't heard by way of Google alone, or no more can wait."""
        if self._sign is None or not by_google_alone(seen, now):
            return False
        self._waiting = orders.live(self._waiting, now)
        if orders.is_told(self._waiting, order, now):
            return True
        if not orders.has_room(self._waiting, order):
            return False
        jti = secrets.token_urlsafe(16)
        token = self._sign(order.method, order.path, order.body, jti)
        signed = Waiting(order=order, jti=jti, token=token, since=now, until=now + COMMAND_LIFETIME)
        self._waiting = orders.joined(self._waiting, signed)
        return True

    def keep_on(self, seen: Observation, now: datetime) -> None:
        """Call off a stop that was ordered this way, or that the host tells of, since somebody wants it on."""
        ordered = any(one.order.about == "drain" and one.order.method == "POST" for one in self._waiting)
        host = current_host(seen, now)
        if ordered or (host is not None and host.drain_until is not None):
            self.put(orders.cancel_drain(), seen, now)

    def due(self, seen: Observation, now: datetime) -> bool:
        """Say whether the metadata must be written now. A machine that is off forgets all."""
        machine = seen.machine
        if not isinstance(machine, MachineSeen) or machine.status not in UP:
            self._waiting, self._written = (), ""
            return False
        acks = seen.host.acks if seen.host is not None else ()
        self._waiting = orders.taken(orders.live(self._waiting, now), acks)
        fresh = seen.machine_fault is None and abs(now - machine.at) <= FRESH
        if not fresh or any(attempt.in_flight for attempt in seen.attempts):
            return False
        last = next((one for one in reversed(seen.attempts) if one.verb is Verb.SEND_COMMANDS), None)
        failed_at = last.ended_at if last is not None and last.fault is not None else None
        if failed_at is not None:
            return self._value() != "" and now - failed_at >= orders.AGAIN
        return self._value() != self._written

    def write(self) -> dict[str, str]:
        """Return what is to be in the metadata; empty values stand for no key."""
        self._written = self._value()
        return {orders.METADATA_KEY: self._written}

    def _value(self) -> str:
        tokens = [one.token for one in self._waiting if not one.taken]
        return json.dumps(tokens, separators=(",", ":")) if tokens else ""
