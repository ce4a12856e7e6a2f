"""Tokens from the app: who may enter (`ticket`), and who may command the host (`host`, `command`).

A token is a JWT signed with EdDSA (RFC 7519, RFC 8037). The host gets the app's public keys by metadata and checks
everybody by itself, so that a browser already at work doesn't need the app. The signature check is passed in,
since Python's standard library has none. Nothing here raises, whatever is sent: a token is either claims or a refusal.

Times are seconds since the epoch, because the app and the host have no other clock in common.
"""

import base64
import binascii
import hashlib
import hmac
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import urlsplit

from vm_setup.host.reading import items, json_value, mapping, number, word

TOKEN_LIMIT = 8192
WORD_LIMIT = 64
KEYS_LIMIT = 65536
SESSION_SECONDS = 24 * 3600.0

Jwk = Mapping[str, object]
Verify = Callable[[Jwk, bytes, bytes], bool]
"""`verify(key, signing_input, signature)`: whether the signature is the key's. False, never an error, for a bad key."""

_BASE64URL = re.compile(r"[A-Za-z0-9_-]*")
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Purpose(str, Enum):
    """What a token is for. One made for one purpose is worthless for another."""

    TICKET = "ticket"
    HOST = "host"
    COMMAND = "command"

    @property
    def seconds(self) -> float:
        """How far ahead the token's end may lie."""
        return 600.0 if self is Purpose.COMMAND else 60.0


class Refusal(str, Enum):
    """Why a token was refused. For our log only: whoever sent it gets the same answer each time."""

    MALFORMED = "malformed"
    ALGORITHM = "algorithm"
    UNKNOWN_KEY = "unknown-key"
    SIGNATURE = "signature"
    ISSUER = "issuer"
    AUDIENCE = "audience"
    PURPOSE = "purpose"
    EXPIRED = "expired"
    TOO_LONG = "too-long"
    REPEATED = "repeated"
    BEFORE_BOOT = "before-boot"
    SESSION_OVER = "session-over"
    REVOKED = "revoked"
    REQUEST = "request"
    BODY = "body"
    UNKNOWN_COMMAND = "unknown-command"
    TOO_MANY = "too-many"
    EARLIER_BOOT = "earlier-boot"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Whom this host believes: the app's origin, the host's own name, and the app's public keys by `kid`.

    Empty, as before the metadata was read, it believes nobody.
    """

    issuer: str = ""
    audience: str = ""
    keys: Mapping[str, Jwk] = field(default_factory=dict[str, Jwk])


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The HTTP request that a `host` token came with; `url` as its client wrote it (the query doesn't matter)."""

    method: str
    url: str
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What a good token says. `iat`, when it was made, is 0 when it doesn't say so.

    `rest` are all its claims, for what only one purpose carries.
    """

    jti: str
    session: str
    session_exp: float
    exp: float
    rest: Mapping[str, object]
    iat: float = 0.0


def audience(project: str, zone: str, instance: str) -> str:
    """Return the name by which the app addresses this host; empty, which matches nothing, while a part is unknown."""
    return f"host:{project}/{zone}/{instance}" if project and zone and instance else ""


def read_keys(text: object) -> dict[str, Jwk]:
    """Return the Ed25519 keys of a JWKS (RFC 7517) by `kid`; what isn't one is left out."""
    jwks = mapping(json_value(text, limit=KEYS_LIMIT)) or {}
    keys: dict[str, Jwk] = {}
    for item in items(jwks.get("keys")) or []:
        jwk = mapping(item) or {}
        kid = word(jwk.get("kid"), limit=WORD_LIMIT)
        if kid and jwk.get("kty") == "OKP" and jwk.get("crv") == "Ed25519" and word(jwk.get("x"), limit=WORD_LIMIT):
            keys[kid] = jwk
    return keys


def decode(part: str) -> bytes | None:
    """Decode unpadded base64url (RFC 7515, section 2); None if it is anything else."""
    if _BASE64URL.fullmatch(part) is None:
        return None
    try:
        return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except (ValueError, binascii.Error):
        return None


def check(
    token: object, *, purpose: Purpose, trust: Trust, verify: Verify, now: float, request: Request | None = None
) -> Claims | Refusal:
    """Return what `token` says, or why it is refused. `request` is what a `host` token must have been made for.

    Whether it was used before is for `Memory.spend` to say.
    """
    claims = _signed_claims(token, trust, verify)
    if isinstance(claims, Refusal):
        return claims
    refused = _elsewhere(claims, trust, purpose)
    if purpose is Purpose.HOST:
        refused = refused or _other_request(claims, request)
    return refused or _in_time(claims, purpose, now)


def _elsewhere(claims: Mapping[str, object], trust: Trust, purpose: Purpose) -> Refusal | None:
    """Whether a token comes from elsewhere, or is for another host or another use."""
    if not trust.issuer or claims.get("iss") != trust.issuer:
        return Refusal.ISSUER
    if not trust.audience or claims.get("aud") != trust.audience:
        return Refusal.AUDIENCE
    return None if claims.get("purpose") == purpose.value else Refusal.PURPOSE


def _in_time(claims: Mapping[str, object], purpose: Purpose, now: float) -> Claims | Refusal:
    """Read what every token carries. Only a ticket needs a session that lasts: a revoke may come after its end."""
    jti, session = word(claims.get("jti"), limit=WORD_LIMIT), word(claims.get("sub"), limit=WORD_LIMIT)
    exp, session_exp = number(claims.get("exp")), number(claims.get("session_exp"))
    if jti is None or session is None or exp is None or session_exp is None:
        return Refusal.MALFORMED
    if not now < exp <= now + purpose.seconds:
        return Refusal.EXPIRED if exp <= now else Refusal.TOO_LONG
    if purpose is Purpose.TICKET and session_exp <= now:
        return Refusal.SESSION_OVER
    iat = number(claims.get("iat")) or 0.0
    return Claims(jti=jti, iat=iat, session=session, session_exp=session_exp, exp=exp, rest=claims)


def _signed_claims(token: object, trust: Trust, verify: Verify) -> dict[str, object] | Refusal:
    if not isinstance(token, str) or len(token) > TOKEN_LIMIT or token.count(".") != 2:  # noqa: PLR2004 - three parts
        return Refusal.MALFORMED
    signed, _, last = token.rpartition(".")
    first, _, middle = signed.partition(".")
    signature = decode(last)
    header = mapping(json_value(decode(first), limit=TOKEN_LIMIT))
    claims = mapping(json_value(decode(middle), limit=TOKEN_LIMIT))
    if signature is None or header is None or claims is None or "crit" in header:
        return Refusal.MALFORMED
    if header.get("alg") != "EdDSA":
        return Refusal.ALGORITHM
    kid = word(header.get("kid"), limit=WORD_LIMIT)
    key = trust.keys.get(kid) if kid else None
    if key is None:
        return Refusal.UNKNOWN_KEY
    return claims if verify(key, signed.encode("ascii"), signature) else Refusal.SIGNATURE


def _other_request(claims: Mapping[str, object], request: Request | None) -> Refusal | None:
    """Whether a `host` token was made for another request than the one it came with."""
    if request is None or claims.get("htm") != request.method:
        return Refusal.REQUEST
    made_for = _place(claims.get("htu"))
    if made_for is None or made_for != _place(request.url):
        return Refusal.REQUEST
    body_hash = word(claims.get("body_sha256"), limit=WORD_LIMIT)
    if body_hash is None or not hmac.compare_digest(body_hash, hashlib.sha256(request.body).hexdigest()):
        return Refusal.BODY
    return None


def _place(url: object) -> tuple[str, str, int | None, str] | None:
    """Scheme, host, port and path of a URL, so that two spellings of one place are equal."""
    if not isinstance(url, str):
        return None
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return None
    return parts.scheme, parts.hostname or "", port, parts.path


class Memory:
    """Which tokens were used and which sessions were revoked; each is forgotten once it can no longer matter.

    Of the used ones that are forgotten the latest end is kept: a clock that is set back makes none of them good again.
    """

    def __init__(self) -> None:
        self._spent: dict[str, float] = {}
        self._forgotten = -math.inf
        self._revoked: dict[str, float] = {}

    def spend(self, claims: Claims, *, now: float) -> Refusal | None:
        """Use up a token; say why when it was used before. The host must call this for every token it obeys."""
        self._forget(now)
        if claims.jti in self._spent or claims.exp <= self._forgotten:
            return Refusal.REPEATED
        self._spent[claims.jti] = claims.exp
        return None

    def revoke(self, session: str, *, until: float, now: float) -> None:
        """Let no ticket of `session` in any more. `until` is when the session would have ended by itself."""
        if until > now:
            self._revoked[session] = max(until, self._revoked.get(session, until))

    def revoked(self, session: str, *, now: float) -> bool:
        """Whether `session` was revoked; once it is over by itself, its tickets are refused without this."""
        return self._revoked.get(session, now) > now

    def revocations(self, *, now: float) -> dict[str, float]:
        """Return the sessions that are revoked, with their ends."""
        return {session: until for session, until in self._revoked.items() if until > now}

    def to_json(self) -> dict[str, object]:
        """Return what has to be kept when the process restarts."""
        forgotten = self._forgotten if math.isfinite(self._forgotten) else None
        return {"spent": dict(self._spent), "forgotten": forgotten, "revoked": dict(self._revoked)}

    @classmethod
    def from_json(cls, saved: object) -> "Memory":
        """Read what `to_json` returned. Throws away whatever isn't that."""
        memory = cls()
        parts = mapping(saved) or {}
        forgotten = number(parts.get("forgotten"))
        if forgotten is not None:
            memory._forgotten = forgotten
        for name, into in (("spent", memory._spent), ("revoked", memory._revoked)):
            for key, value in (mapping(parts.get(name)) or {}).items():
                until = number(value)
                if until is not None:
                    into[key] = until
        return memory

    def _forget(self, now: float) -> None:
        self._forgotten = max([self._forgotten, *(exp for exp in self._spent.values() if exp <= now)])
        self._spent = {jti: exp for jti, exp in self._spent.items() if exp > now}
        self._revoked = {session: until for session, until in self._revoked.items() if until > now}


def admit(
    token: object, *, trust: Trust, verify: Verify, memory: Memory, now: float, booted: float
) -> Claims | Refusal:
    """Check a ticket and use it up. It works once, and never for a session that was logged out.

    `booted` is when the host's memory began: of a ticket that is older, nobody knows whether it was used.
    """
    claims = check(token, purpose=Purpose.TICKET, trust=trust, verify=verify, now=now)
    if isinstance(claims, Refusal):
        return claims
    if claims.iat < math.floor(booted):  # the app counts in whole seconds
        return Refusal.BEFORE_BOOT
    return memory.spend(claims, now=now) or (Refusal.REVOKED if memory.revoked(claims.session, now=now) else claims)


def obey(
    token: object, *, request: Request, trust: Trust, verify: Verify, memory: Memory, now: float
) -> Claims | Refusal:
    """Check the token of a call to the host's own API and use it up."""
    claims = check(token, purpose=Purpose.HOST, trust=trust, verify=verify, now=now, request=request)
    if isinstance(claims, Refusal):
        return claims
    return memory.spend(claims, now=now) or claims


def revoked_until(claims: Claims, session: str, *, now: float) -> float:
    """Until when to remember that the app revoked `session`: its own end, or a whole session's life if not told."""
    return claims.session_exp if claims.session == session else now + SESSION_SECONDS
