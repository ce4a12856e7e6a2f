"""The app, wired together: the page, REST, the machine's loop, and what every answer carries. Nothing else.

`app` is what Reflex builds the page from and runs while developing. `serve` makes what `python -m comfyweb` serves:
the page as it was built, REST, and of Reflex the websocket alone.
"""

import asyncio
import contextlib
import functools
import gc
import logging
import os
import signal
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import reflex as rx
from reflex.utils.exec import is_prod_mode
from starlette.types import ASGIApp, Receive, Scope, Send

from comfyweb.api.app import in_front_of
from comfyweb.control import start, storage
from comfyweb.control.database import LedgerError
from comfyweb.control.services import services
from comfyweb.settings import of_process
from comfyweb.ui import door
from comfyweb.ui.crowd import Crowd
from comfyweb.ui.headers import SecurityHeaders
from comfyweb.ui.hosts import Hosts
from comfyweb.ui.idle import Idle, places
from comfyweb.ui.live import Live
from comfyweb.ui.pages import add_pages
from comfyweb.ui.request_ids import RequestIds
from comfyweb.ui.static import BuiltPage

EVENTS = "/_event/"
PARENT_EVERY = 1.0  # seconds
SERVER_AGAIN = 1.0  # seconds
COLLECT_EVERY = 300.0  # seconds, as long as a closed tab's state is kept (rxconfig.py)


log = logging.getLogger(__name__)
settings = functools.cache(of_process)


def serve() -> ASGIApp:
    """Return the whole app, from a built page. Raises SettingsError and NotBuiltError."""
    app.register_lifespan_task(_end_with_parent, parent=os.getppid())  # pyright: ignore[reportUnknownMemberType] - Reflex's keywords are untyped
    page = BuiltPage.read()
    _await_server(settings().database_url.get_secret_value())
    reflex = app()
    events = door.Frames(reflex)

    async def site(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await page(scope, receive, send)
        elif scope["type"] == "lifespan":
            await reflex(scope, receive, send)
        elif scope["path"] == EVENTS:
            await events(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    _collect_rarely()
    app.register_lifespan_task(_collect_in_time)  # pyright: ignore[reportUnknownMemberType] - as above
    inside = Crowd(in_front_of(site), settings().trusted_proxy_hops)
    protected = RequestIds(SecurityHeaders(Hosts(inside, settings()), settings(), page.script_hashes))
    if settings().trusted_proxy_hops:
        return protected
    idle = Idle(protected, port=settings().port, places=places())
    app.register_lifespan_task(idle.watch)  # pyright: ignore[reportUnknownMemberType] - as above
    return idle


def _await_server(url: str) -> None:
    """Return once the database's server can be used: when a computer is switched on it may be there later than we.

    Here, where SIGTERM still ends this process at once; while the app starts, granian takes note of it and goes on.
    """
    if url.startswith("sqlite"):
        return
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    said = ""
    while trouble := storage.examine(url).trouble:
        if trouble != said:  # once, not each second
            log.warning("Nothing is served yet. %s", trouble)
        said = trouble
        time.sleep(SERVER_AGAIN)
    signal.signal(signal.SIGTERM, before)


def _collect_rarely() -> None:
    """Keep garbage collection from stalling every tab: a full one over all that was imported takes half a second.

    What is here now stays, so it is never looked at again; measured, this takes a status change to 1000 tabs from a p99
    of 520 ms to 80.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 50, 1000)


async def _collect_in_time(every_seconds: float = COLLECT_EVERY) -> None:
    """Give back what closed tabs have left: by that threshold alone, strangers' visits would fill the memory first."""
    while True:
        await asyncio.sleep(every_seconds)
        gc.collect()


@contextlib.asynccontextmanager
async def _running() -> AsyncGenerator[None]:
    """Run the machine's loop and offer it to the page and to REST, for as long as the server does."""
    async with contextlib.AsyncExitStack() as ends:
        try:
            bound = await ends.enter_async_context(start.running(settings()))
        except LedgerError as error:
            log.error("comfyweb can't start: %s", error)  # noqa: TRY400 - the server prints the traceback, and cuts it
            raise
        services.bind(bound)
        live = Live(app)
        unsubscribe = bound.controller.publisher.subscribe(live.push)
        bound.controller.on_round.append(live.sweep)
        services.tabs = lambda: live.count
        try:
            yield
        finally:
            unsubscribe()
            bound.controller.on_round.remove(live.sweep)
            services.bind(None)


async def _end_with_parent(parent: int) -> None:
    """End when the process that supervises this one was killed: two loops must never run one machine."""
    while True:
        await asyncio.sleep(PARENT_EVERY)
        if os.getppid() != parent:
            signal.raise_signal(signal.SIGTERM)
            return


def _own_origin(origin: str, environ: Mapping[str, Any]) -> bool:
    """Tell whether a browser opened a websocket for a page of ours; others would act with a login that isn't theirs."""
    return origin in settings().origins(environ.get("HTTP_HOST", ""))


def _create() -> rx.App:
    # Serving, REST stands in front of Reflex, past its layers.
    created = rx.App(toaster=None, app_wraps={}, api_transformer=None if is_prod_mode() else in_front_of)
    if created.sio is None or created.event_namespace is None:
        raise RuntimeError("Reflex has made no websocket")
    door.shut(created.event_namespace)
    created.sio.eio.cors_allowed_origins = _own_origin  # pyright: ignore[reportUnknownMemberType] - socketio is untyped
    add_pages(created)
    created.register_lifespan_task(_running)  # pyright: ignore[reportUnknownMemberType] - as above
    return created


app = _create()
