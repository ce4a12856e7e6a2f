"""Makes what the host believes: tickets for browsers, tokens for the app's own calls, signed commands for metadata.

The host holds public keys only (`jwks`, by way of the metadata key `comfyweb-keys`), so nothing on the machine, all of
which a ComfyUI node may read, lets anybody in. `vm_setup/host/tokens.py` is what checks these tokens.
"""

import base64
import hashlib
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import SecretStr

from comfyweb.access.sessions import Session

ALGORITHM = "EdDSA"
# Less than what the host allows (60 s, 10 min): it refuses an end farther away, and the two clocks differ a little.
LIFETIME = timedelta(seconds=30)
COMMAND_LIFETIME = timedelta(minutes=9)
APP = "app"


def generate_private_key() -> str:
    """Make a key; the text is the 32 secret bytes in base64, as `settings.gate_private_key` holds them."""
    return base64.b64encode(Ed25519PrivateKey.generate().private_bytes_raw()).decode()


class HostTokens:
    """Signs with the first of `keys` (one at least). The host accepts all, so a key can be replaced while it runs.

    `issuer` is PUBLIC_URL. `audience` names the host that is meant now, `host:<project>/<zone>/<instance>`; it is asked
    each time, because the machine may be in another zone after the next start.
    """

    def __init__(
        self, *, keys: Sequence[SecretStr], issuer: str, audience: Callable[[], str], now: Callable[[], datetime]
    ) -> None:
        private = [Ed25519PrivateKey.from_private_bytes(base64.b64decode(key.get_secret_value())) for key in keys]
        public = [_public_jwk(key) for key in private]
        self._key, self._kid = private[0], public[0]["kid"]
        self._issuer = issuer
        self._audience = audience
        self._now = now
        self.jwks = json.dumps({"keys": public}, separators=(",", ":"))

    def ticket(self, session: Session) -> str:
        """Let the session's browser into ComfyUI, once."""
        return self._sign("ticket", session, LIFETIME, {})

    def call(self, method: str, url: str, body: bytes = b"", *, session: Session | None = None) -> str:
        """Allow one HTTP call to the host, on behalf of `session` or of the app itself."""
        claims = {"htm": method, "htu": url, "body_sha256": hashlib.sha256(body).hexdigest()}
        return self._sign("host", session, LIFETIME, claims)

    def command(self, method: str, path: str, body: Mapping[str, object], jti: str = "") -> str:
        """Say by metadata what the HTTP call of that path and JSON body would. The host acknowledges the `jti`."""
        claims = {"htm": method, "htu": path, "body": dict(body)}
        return self._sign("command", None, COMMAND_LIFETIME, claims | ({"jti": jti} if jti else {}))

    def _sign(self, purpose: str, session: Session | None, lifetime: timedelta, more: Mapping[str, object]) -> str:
        now = self._now()
        end = int((now + lifetime).timestamp())
        claims = {
            "iss": self._issuer,
            "aud": self._audience(),
            "iat": int(now.timestamp()),
            "exp": end,
            "jti": secrets.token_urlsafe(16),
            "sub": session.jti if session else APP,
            "session_exp": int(session.expires_at.timestamp()) if session else end,
            "purpose": purpose,
        }
        return jwt.encode({**claims, **more}, self._key, ALGORITHM, {"kid": self._kid})


def _public_jwk(key: Ed25519PrivateKey) -> dict[str, str]:
    """Return the public half with its thumbprint (RFC 7638, the members of RFC 8037) as `kid`."""
    thumbed = {"crv": "Ed25519", "kty": "OKP", "x": _base64url(key.public_key().public_bytes_raw())}
    canonical = json.dumps(thumbed, separators=(",", ":"), sort_keys=True)
    return {**thumbed, "kid": _base64url(hashlib.sha256(canonical.encode()).digest()), "alg": ALGORITHM, "use": "sig"}


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
