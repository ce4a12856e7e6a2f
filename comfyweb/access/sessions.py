"""Who is logged in. The token proves who asks; the session's row decides whether it still counts.

Both are needed: with the token alone nobody could be logged out, and with the row alone every event would ask the
database. So the rows that count are mirrored in memory, and verification never waits.
"""

import asyncio
import logging
import re
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

import jwt
from pydantic import SecretStr

from comfyweb.access.passwords import Busy, Passwords
from comfyweb.access.throttle import Throttle, TooManyAttempts

log = logging.getLogger(__name__)

LIFETIME = timedelta(hours=24)
ALGORITHM = "HS256"
ISSUER = "comfyweb"
SUBJECT = "owner"
PURPOSE = "session"
LONGEST_TOKEN = 1024
CACHED_TOKENS = 4096
BUSY_SECONDS = 2
_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One login, from `issued_at` until `expires_at` (whole seconds, UTC) unless it is ended before."""

    jti: str
    issued_at: datetime
    expires_at: datetime


class SessionStore(Protocol):
    """Where sessions outlive the process. Any method may raise; what it raises never lets anybody in."""

    async def add(self, session: Session) -> None:
        """Store a login."""
        ...

    async def end(self, jti: str, at: datetime) -> None:
        """Store that a session has ended; one that is unknown or has ended before is no error."""
        ...

    async def end_all(self, at: datetime) -> None:
        """Store that every session stored so far has ended."""
        ...

    async def live(self, now: datetime) -> Iterable[Session]:
        """Read the sessions that have neither ended nor expired."""
        ...


class WrongPassword(Exception):
    """What was sent isn't the password. Nothing says why, since nobody who asks may know."""


class SessionsUnavailable(Exception):
    """The store doesn't answer. A login didn't happen; a logout counts in this process and is stored later."""


_WELL = "ok"
_REFUSALS: dict[type[Exception], str] = {
    WrongPassword: "wrong-password",
    TooManyAttempts: "too-many-attempts",
    SessionsUnavailable: "unavailable",
}
LOGIN_OUTCOMES = (_WELL, *_REFUSALS.values())


class Sessions:
    """Logs in and out, and tells who is logged in.

    After a restart the sessions go on: call `refresh` once before serving, and again with every poll, which also brings
    logins and logouts of other workers. Until the first refresh nobody is logged in.

    While the store fails, nobody can log in (SessionsUnavailable), and whoever is logged in stays so on the mirror
    until the session's end. A logout takes effect here at once, raises SessionsUnavailable, and is stored by the first
    `refresh` or login that finds the store working; only a restart before that would bring the session back.
    """

    def __init__(
        self,
        *,
        secrets: Sequence[SecretStr],
        passwords: Passwords,
        throttle: Throttle,
        store: SessionStore,
        now: Callable[[], datetime],
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """Sign with the first of `secrets`, and accept what any of them signed."""
        self._secrets = tuple(secret.get_secret_value() for secret in secrets)
        self._passwords = passwords
        self._throttle = throttle
        self._store = store
        self._now = now
        self._sleep = sleep
        self._live: dict[str, Session] = {}
        self._jti_of: dict[str, str] = {}
        self._ended: dict[str, datetime] = {}
        self._unknown: dict[str, None] = {}
        self._meeting: set[str] = set()
        self._unread = False
        self._unstored: dict[str, datetime] = {}
        self._unstored_end_all: datetime | None = None
        self._storing = asyncio.Lock()
        self.logins: Counter[str] = Counter()

    @property
    def count(self) -> int:
        """How many are logged in."""
        now = self._now()
        return sum(now < session.expires_at for session in self._live.values())

    async def login(self, password: object, address: str) -> tuple[str, Session]:
        """Begin a session for whoever knows the password; return its token and itself.

        Raises WrongPassword, TooManyAttempts, or SessionsUnavailable. `logins` counts them all by their outcome.
        """
        try:
            begun = await self._login(password, address)
        except (WrongPassword, TooManyAttempts, SessionsUnavailable) as refusal:
            self.logins[_REFUSALS[type(refusal)]] += 1
            raise
        self.logins[_WELL] += 1
        return begun

    async def _login(self, password: object, address: str) -> tuple[str, Session]:
        turn = self._throttle.begin(address)
        await self._sleep(turn.delay)
        try:
            right = await self._passwords.matches(password, turn.rank)
        except Busy:
            raise TooManyAttempts(BUSY_SECONDS) from None
        if not right:
            raise WrongPassword
        self._throttle.succeeded(address)
        begin = self._now().replace(microsecond=0)
        session = Session(jti=secrets.token_urlsafe(16), issued_at=begin, expires_at=begin + LIFETIME)
        async with self._storing:
            await self._stored(self._add(session))
        return self._sign(session), session

    async def meet(self, token: str) -> None:
        """Read the store if the token is one of ours whose session is not known here: another worker may have begun it.

        That is done once for each session, and never for what a stranger has made up. Failing, it is logged.
        """
        jti = self._claims(token).get("jti") if len(token) <= LONGEST_TOKEN else None
        if jti in self._meeting:
            async with self._storing:  # the read that is under way for it
                return
        if jti is None or jti in self._live or jti in self._ended or jti in self._unknown:
            return
        if len(self._unknown) >= CACHED_TOKENS:
            del self._unknown[next(iter(self._unknown))]
        self._unknown[jti] = None
        self._meeting.add(jti)
        try:
            await self.refresh()
        finally:
            self._meeting.discard(jti)

    def verify(self, token: object, now: datetime) -> Session | None:
        """Return the live session that `token` belongs to; None for anything else that anybody may send."""
        if not isinstance(token, str) or len(token) > LONGEST_TOKEN:
            return None
        jti = self._jti_of.get(token)
        if jti is None:
            claims = self._claims(token)
            jti = str(claims.get("jti"))
            session = self._live.get(jti)
            if session is None or claims.get("exp") != session.expires_at.timestamp():
                return None
            if len(self._jti_of) >= CACHED_TOKENS:
                del self._jti_of[next(iter(self._jti_of))]
            self._jti_of[token] = jti
        return self._live[jti] if self.is_live(jti, now) else None

    def is_live(self, jti: str, now: datetime) -> bool:
        """Whether a session has neither ended nor expired."""
        session = self._live.get(jti)
        return session is not None and now < session.expires_at

    async def end(self, session: Session) -> None:
        """Log out. Raises SessionsUnavailable when that could not be stored yet."""
        self._forget([session])
        self._unstored[session.jti] = self._now()
        async with self._storing:
            await self._stored(self._flush())

    async def end_all(self) -> None:
        """Log everybody out. Raises SessionsUnavailable when that could not be stored yet."""
        self._forget(list(self._live.values()))
        self._unstored_end_all = self._now()
        async with self._storing:
            self._forget(list(self._live.values()))  # a login that was being stored meanwhile
            await self._stored(self._flush())

    async def refresh(self) -> None:
        """Read the store again; on failure say so in the log and go on with what was known."""
        async with self._storing:
            try:
                await self._stored(self._read())
            except SessionsUnavailable:
                if not self._unread:  # once, not at each turn
                    log.warning("sessions could not be read; those known so far go on", exc_info=True)
                self._unread = True
            else:
                self._unread = False

    async def _stored(self, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception as error:
            raise SessionsUnavailable("The sessions' store doesn't answer. Try again in a moment.") from error

    async def _add(self, session: Session) -> None:
        await self._flush()  # else a logout of everybody, stored later, would end this session too
        await self._store.add(session)
        self._live[session.jti] = session

    async def _read(self) -> None:
        await self._flush()
        now = self._now()
        rows = await self._store.live(now)
        self._ended = {jti: until for jti, until in self._ended.items() if until > now}
        self._live = {row.jti: row for row in rows if row.jti not in self._ended}

    async def _flush(self) -> None:
        """Store the logouts that aren't yet."""
        if self._unstored_end_all is not None:
            at = self._unstored_end_all
            await self._store.end_all(at)
            if self._unstored_end_all is at:
                self._unstored_end_all = None
        for jti, at in list(self._unstored.items()):
            await self._store.end(jti, at)
            del self._unstored[jti]

    def _forget(self, ended: Iterable[Session]) -> None:
        """Let sessions count no more, not even when a read that began before is answered afterwards."""
        for session in ended:
            self._live.pop(session.jti, None)
            self._ended[session.jti] = session.expires_at
        self._jti_of.clear()

    def _sign(self, session: Session) -> str:
        claims = {
            "iss": ISSUER,
            "sub": SUBJECT,
            "iat": int(session.issued_at.timestamp()),
            "exp": int(session.expires_at.timestamp()),
            "jti": session.jti,
            "purpose": PURPOSE,
        }
        return jwt.encode(claims, self._secrets[0], ALGORITHM)

    def _claims(self, token: str) -> dict[str, Any]:
        """Return what a token of ours says, whatever its age; nothing for any other text."""
        if not _TOKEN.fullmatch(token):
            return {}
        # Whether it has expired is judged by our clock and the session's row, not by the library's clock.
        options: Any = {"require": ["iss", "sub", "iat", "exp", "jti"], "verify_exp": False, "verify_iat": False}
        for secret in self._secrets:
            try:
                claims = jwt.decode(token, secret, [ALGORITHM], options, issuer=ISSUER, subject=SUBJECT)
            except (jwt.PyJWTError, ValueError, RecursionError):  # JSON nested deeper than Python's stack
                continue
            return claims if claims.get("purpose") == PURPOSE else {}
        return {}
