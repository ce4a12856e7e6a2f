"""Puts one machine's parts together and runs its loop, for as long as the process serves."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncGenerator, Callable

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
from comfyweb.control.follower import Follower
from comfyweb.control.lease import Lease
from comfyweb.control.ledger import Ledger
from comfyweb.control.loop import Loop
from comfyweb.control.names import NameWatch
from comfyweb.control.orders import Orders
from comfyweb.control.publisher import Publisher
from comfyweb.control.relay import Relay
from comfyweb.control.replica import Replica
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
        url = settings.database_url.get_secret_value()
        ledger = Ledger(url, machine=audience)
        ends.push_async_callback(ledger.close)
        await ledger.open()
        keys = settings.gate_private_key or (SecretStr(await ledger.key("gate", generate_private_key)),)
        tokens = HostTokens(
            keys=keys,
            issuer=settings.public_url,
            audience=lambda: f"host:{audience}",
            now=lambda: present().now(),  # made further down. The host's clock is Google's.
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
        policy = terms.policy(settings, tokens.jwks)

        def make_loop(ledger: Ledger, must_lead: Callable[[], None] = lambda: None) -> Loop:
            return Loop(
                compute=compute,
                host=host,
                ledger=ledger,
                publisher=publisher,
                policy=policy,
                place=place,
                clock=clock,
                name=watch.observe if watch else lambda _: None,
                orders=Orders(tokens.command),
                must_lead=must_lead,
            )

        @contextlib.asynccontextmanager
        async def leading(lease: Lease) -> AsyncGenerator[Loop]:
            """Make the loop of a process that holds the lease: what it stores counts only while it does."""
            fenced = Ledger(url, machine=audience, fence=lease.fence())
            compute.may_change = lease.must_be_held()
            try:
                yield make_loop(fenced, compute.may_change)
            finally:
                await fenced.close()

        if url.startswith("sqlite"):
            loop = make_loop(ledger)
            present, run = (lambda: loop), loop.run
        else:
            lease = Lease(url, machine=audience, holder=secrets.token_hex(8))
            ends.push_async_callback(lease.close)
            relay = Relay(settings.redis_url.get_secret_value(), machine=audience) if settings.redis_url else None
            if relay is not None:
                ends.push_async_callback(relay.close)
            replica = Replica(
                lease=lease,
                relay=relay,
                follower=Follower(publisher=publisher, policy=policy, clock=clock),
                publisher=publisher,
                make_loop=leading,
            )
            present, run = (lambda: replica.current), replica.run
        present().on_round.append(sessions.refresh)
        controller = Controller(
            ledger=ledger,
            present=present,
            publisher=publisher,
            host=host,
            tokens=tokens,
            visitors=Visitors.of(settings),
        )
        running = asyncio.create_task(run(), name="loop")
        ends.push_async_callback(_ended, running)
        yield Bound(settings=settings, sessions=sessions, controller=controller)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
