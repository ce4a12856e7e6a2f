"""Who calls the emulated Compute Engine: service accounts, by tokens that are verified as Google verifies them.

Two kinds are taken: a JWT that a service account signed itself with a key that was made known here
(https://developers.google.com/identity/protocols/oauth2/service-account#jwt-auth), and an access token that the
emulator's metadata server gave out. Unless verification is asked for, everybody is the same caller.
"""

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from jwt.types import Options

from comfyweb.demo.model import CALLER, Refusal

AUDIENCES = frozenset({"https://compute.googleapis.com/", "https://compute.googleapis.com"})
SCOPES = frozenset(
    f"https://www.googleapis.com/auth/{name}" for name in ("cloud-platform", "compute", "compute.readonly")
)
TOKEN_LIFETIME = timedelta(seconds=3599)
LONGEST_JWT = timedelta(hours=1)
SKEW = timedelta(minutes=5)
"""How far a caller's clock may be ahead."""

MOST_TOKENS = 1000
_ELSEWHERE: Options = {
    "require": ["iss", "sub", "iat", "exp"],
    "verify_exp": False,
    "verify_iat": False,
    "verify_nbf": False,
    "verify_aud": False,
}
_EXPECTED = "Expected OAuth 2 access token, login cookie or other valid authentication credential."


class Identity:
    """The keys and tokens that are good. `verifies` says whether they are asked for."""

    def __init__(self, *, verifies: bool = False) -> None:
        self.verifies = verifies
        self._keys: dict[str, tuple[str, RSAPublicKey]] = {}
        self._tokens: dict[str, tuple[str, datetime]] = {}

    def keys(self) -> dict[str, str]:
        """List the ids of the keys that are good, each with its service account."""
        return {key_id: email for key_id, (email, _) in self._keys.items()}

    def register(self, key: Mapping[str, Any]) -> None:
        """Make a service account's key known: a key file as Google makes it, or one with `public_key` instead.

        Only the public half is kept. Raises `Refusal` for what is no RSA key.
        """
        try:
            email, key_id = key["client_email"], key["private_key_id"]
            if "public_key" in key:
                public = load_pem_public_key(key["public_key"].encode())
            else:
                private = load_pem_private_key(key["private_key"].encode(), None)
                public = private.public_key() if isinstance(private, RSAPrivateKey) else None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Refusal.invalid(f"That is no service account's key: {type(error).__name__}") from None
        if not isinstance(public, RSAPublicKey) or not isinstance(email, str) or not isinstance(key_id, str):
            raise Refusal.invalid("A service account's key is an RSA key with `client_email` and `private_key_id`.")
        self._keys[key_id] = (email, public)

    def revoke(self, key_id: str) -> None:
        """Let a key be good no more. Raises `Refusal` when it was not."""
        if self._keys.pop(key_id, None) is None:
            raise Refusal.not_found(f"keys/{key_id}")

    def issue(self, email: str, now: datetime) -> dict[str, Any]:
        """Give out an access token, as the metadata server does; `expires_in` is in seconds."""
        token = f"ya29.{secrets.token_urlsafe(32)}"
        while len(self._tokens) >= MOST_TOKENS:
            del self._tokens[next(iter(self._tokens))]
        self._tokens[token] = (email, now + TOKEN_LIFETIME)
        return {
            "access_token": token,
            "expires_in": int(TOKEN_LIFETIME.total_seconds()),
            "token_type": "Bearer",
        }

    def caller(self, authorization: str, now: datetime) -> str:
        """Find the email of who calls. Raises `Refusal` for a missing token and for one that isn't good."""
        if not self.verifies:
            return CALLER
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Refusal(401, "required", f"Request is missing required authentication credential. {_EXPECTED}")
        email = self._of_token(token, now) or self._of_jwt(token, now)
        if not email:
            raise Refusal(401, "authError", f"Request had invalid authentication credentials. {_EXPECTED}")
        return email

    def _of_token(self, token: str, now: datetime) -> str:
        email, expires = self._tokens.get(token, ("", now))
        return email if now < expires else ""

    def _of_jwt(self, token: str, now: datetime) -> str:
        try:
            email, public = self._keys[jwt.get_unverified_header(token)["kid"]]
            # The clock is the emulator's own, so that the times are looked at below.
            claims = jwt.decode(token, public, algorithms=["RS256"], options=_ELSEWHERE)
            issued, expires = (datetime.fromtimestamp(claims[name], UTC) for name in ("iat", "exp"))
        except (jwt.PyJWTError, KeyError, TypeError, ValueError, OverflowError, OSError):
            return ""
        good = claims["iss"] == claims["sub"] == email and _is_for_us(claims)
        return email if good and issued - SKEW <= now < expires <= issued + LONGEST_JWT else ""


def _is_for_us(claims: Mapping[str, Any]) -> bool:
    """Whether a token names Compute Engine as its audience or, in its place, one of its scopes."""
    scope = claims.get("scope", "")
    if isinstance(scope, str) and "aud" not in claims:
        return bool(SCOPES & set(scope.split()))
    return claims.get("aud") in AUDIENCES if isinstance(claims.get("aud"), str) else False
