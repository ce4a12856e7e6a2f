"""Tells the host what is wanted of it: by HTTPS, or by way of Google while it is heard no other way."""

import logging
from collections.abc import Awaitable, Callable
from datetime import datetime

from comfyweb.cloud.host import HostClient, HostRefused, HostSilent
from comfyweb.control.clock import CorrectedClock
from comfyweb.control.ledger import Ledger
from comfyweb.control.observer import Observer
from comfyweb.control.orders import Orders
from comfyweb.machine import orders
from comfyweb.machine.model import MachineSeen
from comfyweb.machine.orders import Order
from comfyweb.machine.snapshot import Place, address

log = logging.getLogger(__name__)


class Messenger:
    """Speaks to the host of one machine."""

    def __init__(
        self,
        *,
        host: HostClient,
        ledger: Ledger,
        observer: Observer,
        orders: Orders,
        place: Place,
        clock: CorrectedClock,
        must_lead: Callable[[], None],
    ) -> None:
        self._host = host
        self._ledger = ledger
        self._observer = observer
        self._orders = orders
        self._place = place
        self._clock = clock
        self._must_lead = must_lead

    def order(self, order: Order) -> bool:
        """Tell the host by metadata; False when it isn't heard by way of Google either, or still answers by HTTPS."""
        return self._orders.put(order, self._observer.seen, self._clock.now())

    async def drain(self, until: datetime, *, stay: bool) -> None:
        """Have it stop when nothing runs or waits, `until` then; `stay` leaves the machine on."""
        left = until - self._clock.now()
        await self._tell(lambda url: self._host.drain(url, left, stay=stay), orders.drain(left, stay=stay))

    async def cancel_drain(self) -> None:
        """Call that off."""
        await self._tell(self._host.cancel_drain, orders.cancel_drain())

    async def revoke(self, now: datetime) -> None:
        """Tell it of sessions that have ended, until it has heard: their ComfyUI cookies die with them.

        Raises LedgerError.
        """
        host, machine = self._observer.seen.host, self._observer.seen.machine
        if host is None or not isinstance(machine, MachineSeen):
            return
        told: list[str] = []
        for jti in await self._ledger.unrevoked(now):
            if not host.by_https:
                # An acknowledgement by way of Google can be forged, so it is told again when HTTPS is back.
                self.order(orders.revoke(jti))
                continue  # with the next, by way of Google
            self._must_lead()
            try:
                await self._host.revoke(address(machine, self._place), jti)
            except (HostSilent, HostRefused) as error:
                log.warning("the host did not hear of a logout: %s", error)
                break
            told.append(jti)
        if told:
            await self._ledger.revoked(told, now)

    async def _tell(self, say: Callable[[str], Awaitable[None]], order: Order) -> None:
        host, machine = self._observer.seen.host, self._observer.seen.machine
        if host is not None and not host.by_https:
            self.order(order)
            return  # It is told by way of Google.
        url = address(machine, self._place) if isinstance(machine, MachineSeen) else ""
        if not url:
            return  # The machine has lost its address since its host answered.
        self._must_lead()
        try:
            await say(url)
        except (HostSilent, HostRefused) as error:
            log.warning("the host did not obey: %s", error)
        else:
            self._observer.host_due = 0.0  # Show at once what it makes of that. A refusal is tried again as usual.
