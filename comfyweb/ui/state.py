"""What a tab knows and may ask. It holds no private data: what is shown is read for the tab's login when it is sent.

Every public function of a Reflex state can be called by anybody with a websocket; `guard.py` lets only those through
who are logged in, and each handler looks again. Helpers therefore start with `_`.
"""

import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, cast

import reflex as rx
from reflex.event import EventSpec

from comfyweb.access.sessions import Session, SessionsUnavailable, WrongPassword
from comfyweb.access.throttle import TooManyAttempts
from comfyweb.control.controller import NotNow, Unavailable
from comfyweb.control.services import services
from comfyweb.machine.model import StopMode
from comfyweb.ui.live import LOGGED_OUT, Live, session_of

log = logging.getLogger(__name__)

EXTEND_MINUTES = 30
FAILED = "That did not work. The reason is in the app's log."
LOGIN = "/login"
MACHINE = "/"


class Tab(rx.State):
    """One browser tab. `token` is whatever the browser's storage holds: it is checked at every use."""

    # Synchronized, or a tab that is still coming up writes the login it came with over a newer one of another tab.
    token: str = rx.LocalStorage(name="auth-token", sync=True)
    login_words: str = ""
    words: str = ""
    words_count: rx.Field[int] = rx.field(0)
    words_since: str = ""
    dismissed: rx.Field[list[str]] = rx.field(default_factory=list)
    checking: bool = False
    server_time: float = 0.0
    # The websocket on which the browser handed its storage over. Whoever comes back with this tab's id on another one
    # has proved nothing yet.
    _proved_on: str = ""

    @rx.var(cache=False)
    def snapshot(self) -> dict[str, Any]:
        """Show what REST's status shows; to those without a login only that they have none."""
        return LOGGED_OUT if self._session() is None else services.controller.publisher.snapshot.body

    @rx.var(cache=False)
    def own_notices(self) -> list[str]:
        """Tell what concerns this visitor alone; nothing to those without a login."""
        session = self._session()
        words = services.controller.locked_out(session, self.router.session.client_ip) if session else ""
        return [words] if words else []

    @rx.event
    async def join(self) -> EventSpec | None:
        """Arrive at a page: enter the status room, or go where one can log in."""
        self.server_time = time.time()
        self.words = self.login_words = ""  # what was said elsewhere, or to who was here before
        at_login = self._at_login()
        if self.token and self._session() is None:
            await services.sessions.meet(self.token)
        if self._session() is None:
            return None if at_login else rx.redirect(LOGIN, replace=True)
        if at_login:
            return rx.redirect(MACHINE, replace=True)
        await Live.current().enter(self.router.session.session_id, self.token)
        return None

    @rx.event
    async def login(self, form: dict[str, Any]) -> AsyncGenerator[EventSpec | None]:
        """Check the password; the same words for every failure."""
        self.checking = True
        self.login_words = ""
        yield
        try:
            self.token, _ = await services.sessions.login(form.get("password"), self.router.session.client_ip)
        except WrongPassword:
            self.login_words = "That is not the password."
        except TooManyAttempts as refusal:
            self.login_words = f"Too many attempts. Try again in {_minutes(refusal.retry_after)}."
        except SessionsUnavailable:
            log.exception("nobody can log in")
            self.login_words = "Nobody can log in just now: comfyweb's database does not answer. Try again in a moment."
        else:
            yield rx.redirect(MACHINE)
        finally:
            self.checking = False

    @rx.event
    async def logout(self) -> EventSpec | None:
        """End this login, here and in every tab that shares it."""
        session = self._session()
        if session is None:
            return None
        return await self._left(services.sessions.end(session))

    @rx.event
    async def logout_everyone(self) -> EventSpec | None:
        """End every login there is, this one too."""
        if self._session() is None:
            return None
        return await self._left(services.sessions.end_all())

    @rx.event
    async def start(self) -> None:
        """Ask for the machine to be on."""
        await self._ask(services.controller.start)

    @rx.event
    async def stop(self) -> None:
        """Ask for the machine to be off once its jobs are done."""
        await self._ask(lambda session: services.controller.stop(session, StopMode.DRAIN))

    @rx.event
    async def stop_now(self) -> None:
        """Ask for the machine to be off at once."""
        await self._ask(lambda session: services.controller.stop(session, StopMode.NOW))

    @rx.event
    def look(self) -> None:
        """Look at the machine now: somebody is about to decide by how many jobs are shown."""
        if self._session() is not None:
            services.controller.look()

    @rx.event
    async def extend(self) -> None:
        """Ask for half an hour more before the idle stop."""
        await self._ask(lambda session: services.controller.extend(session, EXTEND_MINUTES))

    @rx.event
    def dismiss(self, notice: str) -> None:
        """Hide a notice in this tab. Only what is shown can be hidden, so a stranger's list can't grow."""
        shown = [*self.own_notices, *self.snapshot.get("notices", [])]
        if notice in shown:
            self.dismissed = [*(old for old in self.dismissed if old in shown), notice]

    @rx.event
    def failed(self) -> None:
        """Say that something went wrong."""
        self.checking = False
        if self._at_login():
            self.login_words = FAILED
        else:
            self._say(FAILED)

    def _prove(self) -> None:
        """Count what the browser hands over on this websocket, and nothing that the tab held before."""
        if self._proved_on != self.router.session.session_id:
            # Hydrating empties the token as well, unless it fails over a made-up argument.
            self.token = self.words = self.login_words = ""
            self.dismissed = []
            self._proved_on = self.router.session.session_id

    def _at_login(self) -> bool:
        return self.router.url.path.rstrip("/") == LOGIN

    def _session(self) -> Session | None:
        if not self.token or self._proved_on != self.router.session.session_id:
            return None
        return session_of(self.token)

    async def _ask(self, ask: Callable[[Session], Awaitable[str]]) -> None:
        session = self._session()
        if session is None:
            return
        try:
            self._say(await ask(session))
        except (NotNow, Unavailable) as refusal:
            self._say(refusal.words)

    def _say(self, words: str) -> None:
        """Show words until the phase changes: then the page itself says what is true."""
        self.words = words
        self.words_count += 1
        self.words_since = str(self.snapshot.get("phase_since", ""))

    async def _left(self, ending: Awaitable[None]) -> EventSpec:
        try:
            await ending
        except SessionsUnavailable:
            log.warning("a logout counts, but is not stored yet", exc_info=True)
        self.token = ""
        self.dismissed = []
        self._say("")
        await Live.current().sweep()
        return rx.redirect(LOGIN)


def on_error(exception: Exception) -> EventSpec:
    """Log what a handler raised; the tab gets one plain line. Reflex's own handler wants its toaster."""
    log.error("a handler of the page failed", exc_info=exception)
    return cast("EventSpec", Tab.failed())


def _minutes(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return "a minute" if minutes == 1 else f"{minutes} minutes"
