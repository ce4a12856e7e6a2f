"""Puts one machine's parts together and runs its loop, for as long as the process serves."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator

from pydantic import SecretStr

from comfyweb.access.host_tokens import HostTokens, generate_private_key
from comfyweb.access.passwords import Passwords
from comfyweb.access.sessions import Sessions
from comfyweb.access.throttle import Throttle
from comfyweb.cloud.compute import ComputeEngine
from comfyweb.cloud.host import HostClient
from comfyweb.cloud.names import Names
from comfyweb.control import terms
from comfyweb.control.clock import Clock
from comfyweb.control.controller import Controller
from comfyweb.control.ledger import Ledger
from comfyweb.control.loop import Loop
from comfyweb.control.names import NameWatch
from comfyweb.control.orders import Orders
from comfyweb.control.publisher import Publisher
from comfyweb.control.services import Bound
from comfyweb.control.visitors import Visitors
from comfyweb.machine.snapshot import nothing_seen_yet
from comfyweb.settings import Settings

log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def running(settings: Settings, clock: Clock | None = None) -> AsyncGenerator[Bound]:
    """Open the ledger, run the loop, and end both in order. Raises LedgerError when the database can't be opened."""
    clock = clock or Clock()
    place = terms.place(settings)
    audience = f"{place.project}/{place.zone}/{place.instance}"
    async with contextlib.AsyncExitStack() as ends:
        ledger = Ledger(settings.database_url.get_secret_value(), machine=audience)
        ends.push_async_callback(ledger.close)
        await ledger.open()
        keys = settings.gate_private_key or (SecretStr(await ledger.key("gate", generate_private_key)),)
        tokens = HostTokens(
            keys=keys,
            issuer=settings.public_url,
            audience=lambda: f"host:{audience}",
            now=lambda: loop.now(),  # noqa: PLW0108 - made further down. The host's clock is Google's.
        )
        sessions = Sessions(
            secrets=settings.jwt_secret,
            passwords=Passwords(settings.auth_password),
            throttle=Throttle(now=clock.now),
            store=ledger,
            now=clock.now,
        )
        await sessions.refresh()
        compute = ComputeEngine(
            project=settings.gcp_project,
            instance=settings.gce_instance,
            endpoint=settings.compute_endpoint,
            credentials_file=settings.google_application_credentials,
            now=clock.now,
        )
        ends.push_async_callback(compute.close)
        host = HostClient(sign=tokens.call)
        ends.push_async_callback(host.close)
        names = Names(place.proxies)
        ends.push_async_callback(names.close)
        watch = NameWatch(place.name, look=names.look, monotonic=clock.monotonic) if place.name else None
        if watch is not None:
            ends.push_async_callback(watch.close)
        publisher = Publisher(nothing_seen_yet(place))
        loop = Loop(
            compute=compute,
            host=host,
            ledger=ledger,
            publisher=publisher,
            policy=terms.policy(settings, tokens.jwks),
            place=place,
            clock=clock,
            name=watch.observe if watch else lambda _: None,
            orders=Orders(tokens.command),
        )
        loop.on_round.append(sessions.refresh)
        controller = Controller(
            ledger=ledger, loop=loop, publisher=publisher, host=host, tokens=tokens, visitors=Visitors.of(settings)
        )
        turning = asyncio.create_task(loop.run(), name="loop")
        ends.push_async_callback(_ended, turning)
        yield Bound(settings=settings, sessions=sessions, controller=controller)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
