"""The gate's cookies: who has come in with a ticket, and until when.

A cookie is an opaque random value; the gate keeps only its hash, so that a copy of the gate's memory opens nothing.
It lives 60 minutes past its last use and never past its session, this boot, or a revoke. Times are seconds since
the epoch, like the sessions' ends they are compared with; a clock set back lets no cookie outlive its session.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

from vm_setup.host.reading import items, mapping, number, word

NAME = "comfyweb_gate"
UNUSED_SECONDS = 3600.0
_VALUE_LIMIT = 128
_SESSION_LIMIT = 64
# Browsers send one or two. A stranger may send thousands, and each is looked up.
_MOST_VALUES = 16


def set_cookie(value: str, *, https: bool) -> str:
    """Return the `Set-Cookie` header. Over https a frame on another site gets it too, in a jar of its own (CHIPS)."""
    attributes = "HttpOnly; Secure; SameSite=None; Partitioned" if https else "HttpOnly; SameSite=Lax"
    return f"{NAME}={value}; Path=/; {attributes}"


def values(headers: Iterable[str]) -> list[str]:
    """Return the first of the gate's values in `Cookie` headers: several, when a browser keeps one per jar."""
    found: list[str] = []
    for header in headers:
        for pair in header.split(";"):
            name, _, value = pair.strip().partition("=")
            if name == NAME and word(value, limit=_VALUE_LIMIT):
                found.append(value)
                if len(found) == _MOST_VALUES:
                    return found
    return found


def digest(value: str) -> str:
    """Return what the gate remembers of a cookie."""
    return hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One cookie as the gate knows it."""

    digest: str
    session: str
    session_exp: float
    used: float

    def lives(self, now: float) -> bool:
        """Whether it still opens the gate."""
        return now < self.session_exp and now - self.used < UNUSED_SECONDS


class Ledger:
    """The cookies of one boot."""

    def __init__(self, boot_id: str) -> None:
        self._boot_id = boot_id
        self._passes: dict[str, Pass] = {}

    def add(self, value: str, *, session: str, session_exp: float, now: float) -> None:
        """Remember a new cookie, made for `session`."""
        self._forget(now)
        key = digest(value)
        self._passes[key] = Pass(digest=key, session=session, session_exp=session_exp, used=now)

    def use(self, offered: Iterable[str], *, now: float) -> Pass | None:
        """Return the pass of the first offered value that is good, and count this as its use."""
        for value in offered:
            found = self.touch(digest(value), now=now)
            if found is not None:
                return found
        return None

    def touch(self, key: str, *, now: float) -> Pass | None:
        """Count a use of the cookie with that digest (an open websocket is one); None when it is dead or unknown."""
        found = self._passes.get(key)
        if found is None or not found.lives(now):
            return None
        self._passes[key] = replace(found, used=max(found.used, now))
        return self._passes[key]

    def touch_all(self, *, now: float) -> None:
        """Count a use of every living cookie: a running job is one."""
        self._forget(now)
        for key in self._passes:
            self.touch(key, now=now)

    def revoke(self, session: str) -> None:
        """Kill the cookies of `session`."""
        self._passes = {key: one for key, one in self._passes.items() if one.session != session}

    def to_json(self) -> dict[str, object]:
        """Return what has to be kept when the gate's process restarts."""
        passes = [
            {"digest": one.digest, "session": one.session, "session_exp": one.session_exp, "used": one.used}
            for one in self._passes.values()
        ]
        return {"boot_id": self._boot_id, "passes": passes}

    @classmethod
    def from_json(cls, saved: object, *, boot_id: str) -> "Ledger":
        """Read what `to_json` returned in this boot. Whatever isn't that, or is of another boot, opens nothing."""
        ledger = cls(boot_id)
        parts = mapping(saved) or {}
        if parts.get("boot_id") != boot_id:
            return ledger
        for entry in items(parts.get("passes")) or []:
            one = _read_pass(entry)
            if one is not None:
                ledger._passes[one.digest] = one
        return ledger

    def _forget(self, now: float) -> None:
        self._passes = {key: one for key, one in self._passes.items() if one.lives(now)}


def _read_pass(entry: object) -> Pass | None:
    fields = mapping(entry) or {}
    key, session = word(fields.get("digest"), limit=_VALUE_LIMIT), word(fields.get("session"), limit=_SESSION_LIMIT)
    session_exp, used = number(fields.get("session_exp")), number(fields.get("used"))
    if key is None or session is None or session_exp is None or used is None:
        return None
    return Pass(digest=key, session=session, session_exp=session_exp, used=used)
