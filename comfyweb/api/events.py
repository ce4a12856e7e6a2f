"""The machine's snapshots as server-sent events: for programs, and for `fetch` streams, which can send a header."""

import asyncio
import logging
import signal
import threading
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from http import HTTPStatus
from types import FrameType
from typing import ClassVar

from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from comfyweb.api.caller import Token, session_of
from comfyweb.api.problems import problem
from comfyweb.api.status import etag
from comfyweb.control.services import services
from comfyweb.machine.snapshot import Snapshot

log = logging.getLogger(__name__)

PULSE_SECONDS = 2.0
HEARTBEAT_SECONDS = 15.0
READ_WITHIN_SECONDS = 60.0
STREAMS_OF_ONE_LOGIN = 50
TOO_MANY = f"This login has {STREAMS_OF_ONE_LOGIN} event streams already. Close one first."

HEARTBEAT = b": still here\n\n"
LOGGED_OUT = b"event: logged-out\ndata: {}\n\n"


class Ending:
    """Whether the process has been told to end. The server waits for open answers, and a stream would never close."""

    def __init__(self) -> None:
        self.begun = False

    def watch(self) -> None:
        """Hear SIGTERM and SIGINT beside whoever hears them already. Python lets only the main thread hear signals."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGTERM, signal.SIGINT):
            self._hear_beside(number)

    def _hear_beside(self, number: signal.Signals) -> None:
        before = signal.getsignal(number)

        def hear(got: int, frame: FrameType | None) -> None:
            self.begun = True
            if callable(before):
                before(got, frame)

        # asyncio's own handlers, which the server uses, hang on the wake-up descriptor and go on working.
        signal.signal(number, hear)


ending = Ending()


class EventStream(StreamingResponse):
    """An answer that goes on until the session ends, the client leaves, or it has read nothing for a while."""

    media_type = "text/event-stream"
    _of_one_login: ClassVar[Counter[str]] = Counter()

    def __init__(self, events: AsyncGenerator[bytes], login: str) -> None:
        super().__init__(events, headers={"X-Accel-Buffering": "no"})
        self._events, self._login = events, login

    @classmethod
    def open(cls) -> int:
        """Return how many are open."""
        return cls._of_one_login.total()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events, and in any case close their source: a client that vanished must be forgotten."""
        if self._of_one_login[self._login] >= STREAMS_OF_ONE_LOGIN:
            await problem(HTTPStatus.TOO_MANY_REQUESTS, TOO_MANY, headers={"Retry-After": "15"})(scope, receive, send)
            return

        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(READ_WITHIN_SECONDS):
                await send(message)

        self._of_one_login[self._login] += 1
        try:
            async with aclosing(self._events):
                await super().__call__(scope, receive, send_in_time)
        except (TimeoutError, ClientDisconnect):
            log.info("an event stream was ended: its client reads nothing")
        finally:
            self._of_one_login[self._login] -= 1
            if not self._of_one_login[self._login]:
                del self._of_one_login[self._login]


async def events(
    token: Token | None, pulse_seconds: float = PULSE_SECONDS, heartbeat_seconds: float = HEARTBEAT_SECONDS
) -> AsyncGenerator[bytes]:
    """Yield the snapshot and each newer one until the session ends, then `logged-out`; or until the process ends.

    A client that reads slowly skips snapshots and gets the newest: nothing is queued for it. The session is looked at
    before each event and every `pulse_seconds`.
    """
    publisher = services.controller.publisher
    news = asyncio.Event()
    news.set()

    async def hear(_: Snapshot) -> None:
        news.set()

    forget = publisher.subscribe(hear)
    silent = 0.0
    try:
        while not ending.begun:
            if session_of(token) is None:
                yield LOGGED_OUT
                return
            if news.is_set():
                news.clear()
                silent = 0.0
                yield _event(publisher.encoded)
            elif silent >= heartbeat_seconds:
                silent = 0.0
                yield HEARTBEAT
            try:
                async with asyncio.timeout(pulse_seconds):
                    await news.wait()
            except TimeoutError:
                silent += pulse_seconds
    finally:
        forget()


def _event(body: bytes) -> bytes:
    return b"id: %b\ndata: %b\n\n" % (etag(body).strip('"').encode(), body)
