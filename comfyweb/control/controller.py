"""What can be asked of the machine. A button and a program call the same functions; none of them calls the cloud."""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta

from comfyweb.access.host_tokens import HostTokens
from comfyweb.access.sessions import Session
from comfyweb.cloud.host import HostClient, HostRefused, HostSilent
from comfyweb.control.database import LedgerError
from comfyweb.control.follower import Follower
from comfyweb.control.ledger import Ledger
from comfyweb.control.loop import Loop
from comfyweb.control.measures import Measured
from comfyweb.control.publisher import Publisher
from comfyweb.control.visitors import Visitors
from comfyweb.logs import about
from comfyweb.machine import orders
from comfyweb.machine.model import Phase, StopMode, Wanted
from comfyweb.machine.orders import Order

log = logging.getLogger(__name__)

OK = "ok"
PROBED_EVERY_SECONDS = 10.0
SHORTEST_EXTENSION, LONGEST_EXTENSION = 1, 120

LEDGER_WORDS = "The request could not be stored, so nothing was done. The log of comfyweb says why; try again."
HOST_WORDS = "The machine's own software did not answer. Try again in a moment."
BY_GOOGLE_WORDS = "The machine is told by way of Google, so it shows in a minute or two."
IN_USE = frozenset({Phase.READY, Phase.DRAINING})


class NotNow(Exception):
    """The machine's phase doesn't allow it. `words` say so to a person."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.words = words


class Unavailable(Exception):
    """Something that is needed doesn't answer. Nothing was done; `words` say so to a person."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.words = words


class Controller:
    """Stores what people ask for, wakes the loop, and hands out tickets.

    `present` returns the loop, or what stands in for it in a process that doesn't run it.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        present: Callable[[], Loop | Follower],
        publisher: Publisher,
        host: HostClient,
        tokens: HostTokens,
        visitors: Visitors,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.publisher = publisher
        self._ledger = ledger
        self._present = present
        self._host = host
        self._tokens = tokens
        self._visitors = visitors
        self._monotonic = monotonic
        self._probed = -math.inf
        self._database = OK
        self._probing = asyncio.Lock()

    @property
    def on_round(self) -> list[Callable[[], Awaitable[None]]]:
        """What is called after each turn of the loop."""
        return self._present().on_round

    def look(self) -> None:
        """Look at once, for somebody who is about to decide by what is shown."""
        self._present().wake()

    async def start(self, session: Session) -> str:
        """Ask for the machine to be on. Stored when this returns. Raises NotNow or Unavailable."""
        phase = self.publisher.snapshot.phase
        if phase is Phase.MISSING:
            raise NotNow("There is no such machine. Check GCP_PROJECT, GCE_ZONE and GCE_INSTANCE.")
        if phase is Phase.DRAINING and self._session_is_ending:
            raise NotNow("The longest session is nearly over, so it goes off. It can be started again then.")
        await self._ask(Wanted.ON, StopMode.DRAIN, session)
        match phase:
            case Phase.STOPPING:
                return "It is stopping. It will be started again as soon as it is off."
            case Phase.DRAINING:
                return "It stays on."
            case Phase.STARTING | Phase.BOOTING:
                return "It is starting already."
            case Phase.READY:
                return "It is on already."
            case Phase.FAULT:
                return "It will be started as soon as that is possible."
            case _:
                return "Starting."

    async def stop(self, session: Session, mode: StopMode) -> str:
        """Ask for the machine to be off. Stored when this returns. Raises NotNow or Unavailable."""
        phase = self.publisher.snapshot.phase
        if phase is Phase.MISSING:
            raise NotNow("There is no such machine. Check GCP_PROJECT, GCE_ZONE and GCE_INSTANCE.")
        await self._ask(Wanted.OFF, mode, session)
        if phase is Phase.OFF:
            return "It is off already."
        return "Stopping now." if mode is StopMode.NOW else "Stopping as soon as nothing runs or waits."

    async def keep_alive(self, session: Session) -> str:
        """Count as use. Raises NotNow while the machine is not in use, Unavailable when the host doesn't answer."""
        del session  # Any live session may; the caller has checked that it is one.
        url = self._url("Nothing to keep alive: the machine is not ready.")
        return await self._tell(self._host.keep_alive(url), orders.keep_alive(), "Counted as use.")

    async def extend(self, session: Session, minutes: float) -> str:
        """Put the idle stop off by `minutes`, never past the end of the longest session.

        Raises NotNow or Unavailable.
        """
        if not SHORTEST_EXTENSION <= minutes <= LONGEST_EXTENSION:
            raise NotNow(f"It can be extended by {SHORTEST_EXTENSION} to {LONGEST_EXTENSION} minutes at a time.")
        url = self._url("Nothing to extend: the machine is not ready.")
        left = self._left_of_the_session()
        if left is not None and left < timedelta(minutes=1):
            raise NotNow("The longest session ends before the idle stop would come, and can't be made longer.")
        words = f"The idle stop is put off by {minutes:g} minutes."
        if left is not None and left < timedelta(minutes=minutes):
            words = "The idle stop is put off until the end of the longest session, which comes first."
        words = await self._tell(self._host.extend(url, minutes), orders.extend(minutes), words)
        log.info("session %s extended the run by %g minutes", session.jti[:8], minutes)
        return words

    async def ticket(self, session: Session) -> str:
        """Return a one-use address of ComfyUI's gate for one browser tab. Raises NotNow."""
        url = self._url("ComfyUI is not ready yet.")
        return f"{url}/_host/gate?ticket={self._tokens.ticket(session)}"

    def locked_out(self, session: Session, address: str) -> str:
        """Return what to tell who comes from this address and would not be let in to ComfyUI; empty if he would."""
        del session  # Any live session may; the caller has checked that it is one.
        return self._visitors.words(address, self._present().seen.machine)

    def measured(self) -> Measured:
        """Return what is counted of the loop and its calls."""
        return self._present().measured

    async def dependencies(self) -> dict[str, str]:
        """Return for each thing that comfyweb needs `ok`, or what is wrong with it.

        The database must take writes, which is tried every `PROBED_EVERY_SECONDS` at most: strangers may ask this.
        """
        async with self._probing:
            try:
                await self._ledger.standing()
                if self._monotonic() - self._probed >= PROBED_EVERY_SECONDS:
                    self._probed = self._monotonic()
                    await self._ledger.probe()
                    self._database = OK
            except LedgerError as error:
                self._database = str(error)
        fault = self._present().seen.machine_fault
        return {
            "database": self._database,
            "compute-engine": f"{fault.title}: {fault.what}" if fault else OK,
            "loop": self._present().trouble or OK,
        }

    async def _ask(self, wanted: Wanted, mode: StopMode, session: Session) -> None:
        try:
            intent = await self._ledger.ask(wanted, mode, session.jti, self._present().now())
        except LedgerError as error:
            log.warning("an intent could not be stored: %s", error)
            raise Unavailable(LEDGER_WORDS) from error
        with about(intent_id=intent.id):
            log.info("somebody wants the machine %s (%s)", wanted, mode)
        self._present().wake()

    async def _tell(self, call: Awaitable[None], order: Order, words: str) -> str:
        """Tell the host by HTTPS, else by way of Google; return the words for that. Raises Unavailable."""
        try:
            await call
        except (HostSilent, HostRefused) as error:
            log.warning("the host did not obey: %s", error)
            if not self._present().order(order):
                raise Unavailable(HOST_WORDS) from error
            words = f"{words} {BY_GOOGLE_WORDS}"
        self._present().wake()
        return words

    @property
    def _session_is_ending(self) -> bool:
        ending = self.publisher.snapshot.body["ending"]
        return ending is not None and ending["reason"] == "session-cap"

    def _left_of_the_session(self) -> timedelta | None:
        """Return how far the idle stop can be moved before the run is ended in any case; None: nothing limits it."""
        present = self._present()
        end, host = present.latest_end, present.seen.host
        return end - host.stops_at if end is not None and host is not None and host.stops_at else None

    def _url(self, words: str) -> str:
        snapshot = self.publisher.snapshot
        if snapshot.phase not in IN_USE or not snapshot.comfyui_url:
            raise NotNow(words)
        return snapshot.comfyui_url
