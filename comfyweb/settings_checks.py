"""What the values of settings must look like: one small function per kind, used by `settings.py` alone.

Each returns the value in its one normal form or raises ValueError with the second half of a sentence that begins with
the variable's name. No message shows the value: people paste secrets into the wrong line. `info.data` has the settings
that were declared above the one being checked, and lacks those that were wrong themselves.
"""

import base64
import functools
import ipaddress
import re
from pathlib import Path

from argon2 import extract_parameters
from argon2.exceptions import InvalidHashError
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from publicsuffixlist import PublicSuffixList
from pydantic import AfterValidator, SecretStr, ValidationInfo

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"

_PLACEHOLDER = re.compile(r"change.?(me|this|it)|replace.?(me|this)|^your[-_ .]|^<.*>$", re.IGNORECASE)
# What is left of a secret without these words must still be worth guessing.
_WELL_KNOWN = re.compile(
    r"change|replace|please|this|with|your|super|very|long|random|string|secret|password|passwd|pass|admin|letmein|welcome"
    r"|example|default|demo|test|insecure|development|dev|production|prod|value|token|jwt|auth|key|here|comfyui|comfyweb"
    r"|login|user|root|characters?|chars?|least|minimum|qwerty|asdf|abcd?|123\d*|[\W_]",
    re.IGNORECASE,
)
_WORTH_GUESSING = 5
_PASSWORD_CHARACTERS = 12
_SECRET_BYTES = 32  # RFC 7518, 3.2: the key of HS256 has at least 256 bits
_SEED_BYTES = 32  # RFC 8032, 5.1.5
_ARGON2 = re.compile(r"\$argon2(id|i|d)\$v=\d+\$m=\d+,t=\d+,p=\d+\$([A-Za-z0-9+/]{11,})\$([A-Za-z0-9+/]{16,})")
_ARGON2_MAX_KIB = 2**20
_ARGON2_MAX_PASSES = 64
_MAX_PORT = 65535


def shaped(pattern: str, like: str) -> AfterValidator:
    """Accept text of this shape, which the message calls `like`."""

    def matching(text: str | None) -> str | None:
        if text is not None and not re.fullmatch(pattern, text, re.ASCII):
            raise ValueError(f"must be {like}")
        return text

    return AfterValidator(matching)


# cloud.google.com/resource-manager/docs/creating-managing-projects (domain-scoped ids hold a colon)
project_shape = shaped(
    r"([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]", "a project id: 6 to 30 lower-case letters, digits and hyphens"
)
# cloud.google.com/compute/docs/naming-resources
instance_shape = shaped(
    r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", "a machine's name: up to 63 lower-case letters, digits and hyphens"
)
zone_shape = shaped(r"[a-z]+-[a-z]+\d+-[a-z0-9]+", "named like us-central1-a")
email_shape = shaped(r"[^\s@,;\"'<>]+@[^\s@.]+(\.[^\s@.]+)+", "an e-mail address")
release_shape = shaped(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,99}", "the name of a git tag or branch")
# These go into metadata, which any node can read, so they carry no password.
repository_shape = shaped(r"https://[^\s/@?#]+/\S+", "https://host/path, without user or password")
stored_file = shaped(
    r"(gs://[a-z0-9._-]+|https://[^\s/@?#]+)/\S+", "gs://bucket/object or https://host/path, without user or password"
)


def members(value: object) -> object:
    """Split what was written comma separated."""
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


def guessable(secret: str) -> bool:
    """Whether it is an example, a default or one character repeated."""
    return bool(_PLACEHOLDER.search(secret)) or len(set(_WELL_KNOWN.sub("", secret).lower())) < _WORTH_GUESSING


def password(secret: SecretStr) -> SecretStr:
    """Accept a password that can't be guessed, or an argon2 hash."""
    text = secret.get_secret_value()
    if re.search(r"argon2|t=\d+,p=\d+", text):
        _argon2_hash(text)
    elif len(text) < _PASSWORD_CHARACTERS:
        raise ValueError(f"is shorter than {_PASSWORD_CHARACTERS} characters; take a longer one")
    elif guessable(text):
        raise ValueError("is an example or well-known; take one of your own")
    return secret


def _argon2_hash(text: str) -> None:
    found = _ARGON2.fullmatch(text)
    try:
        cost = extract_parameters(text)
    except InvalidHashError:
        found = cost = None
    # base64 without padding never has a length of 4n+1
    if not found or not cost or len(found[2]) % 4 == 1 or len(found[3]) % 4 == 1:
        raise ValueError(
            "looks like an argon2 hash but can't be read as one; in .env put it in single quotes, or Docker Compose "
            "expands its $, which AUTH_PASSWORD_FILE avoids"
        )
    passes_ok = 1 <= cost.time_cost <= _ARGON2_MAX_PASSES
    if not passes_ok or not 1 <= cost.parallelism <= cost.memory_cost // 8 <= _ARGON2_MAX_KIB // 8:
        raise ValueError("is an argon2 hash whose costs are out of range; take at most 1 GiB and 64 passes")


def signing_secrets(secrets: tuple[SecretStr, ...], info: ValidationInfo) -> tuple[SecretStr, ...]:
    """Accept secrets that are long, unguessable and not the password."""
    for position, secret in enumerate(secrets, 1):
        _strong(secret, info, f"part {position} of {len(secrets)} " if len(secrets) > 1 else "")
    return secrets


def metrics_token(secret: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
    """Accept a token that is long, unguessable and no other secret: who scrapes may not log in."""
    if secret is not None:
        _strong(secret, info, "")
        if secret in info.data.get("jwt_secret", ()):
            raise ValueError("is JWT_SECRET too; make another with: openssl rand -hex 32")
    return secret


def _strong(secret: SecretStr, info: ValidationInfo, which: str) -> None:
    if len(secret.get_secret_value().encode()) < _SECRET_BYTES:
        raise ValueError(f"{which}is shorter than {_SECRET_BYTES} bytes; make one with: openssl rand -hex 32")
    if guessable(secret.get_secret_value()):
        raise ValueError(f"{which}is an example or well-known; make one with: openssl rand -hex 32")
    if secret == info.data.get("auth_password"):
        raise ValueError(f"{which}is the password; make one with: openssl rand -hex 32")


def project(name: str) -> str:
    """Refuse the project ids that stand in examples."""
    if _PLACEHOLDER.search(name):
        raise ValueError("is an example; set it to the id of your own Google Cloud project")
    return name


def origin(text: str) -> str:
    """Accept an origin and return it as browsers write it: lower case, without a default port or a slash."""
    found = re.fullmatch(r"(https?)://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?/?", text.lower())
    if not found or not 1 <= int(found[3] or 1) <= _MAX_PORT:
        raise ValueError(
            "must be http:// or https://, a host name and a port if needed, without path, user or password"
        )
    return write_origin(found[1], found[2], int(found[3] or 0))


def write_origin(scheme: str, host: str, port: int) -> str:
    """Write an origin as browsers do; port 0 stands for the scheme's own."""
    return f"{scheme}://{host}" + (f":{port}" if port not in {0, 443 if scheme == "https" else 80} else "")


def host_of(origin: str) -> str:
    """Return an origin's host without the port; IPv6 addresses keep their brackets."""
    return re.sub(r":\d+$", "", origin.partition("://")[2])


def site(host: str) -> str:
    """Return what browsers count as the site of a host: the name that somebody registered, or the host itself.

    By the public suffix list (publicsuffix.org), private suffixes included, as browsers do; it comes with the library.
    """
    if host in LOOPBACK or host.startswith("[") or host.rpartition(".")[2].isdigit():
        return host
    return _suffixes().privatesuffix(host) or host


@functools.cache
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList()


def public_url(text: str, info: ValidationInfo) -> str:
    """Accept the app's own origin; by default localhost on the port it listens on."""
    return origin(text) if text else f"http://localhost:{info.data.get('port', 3000)}"


def elsewhere(url: str | None, info: ValidationInfo) -> str | None:
    """Accept an origin that isn't the app's own."""
    if url is None:
        return None
    if origin(url) == info.data.get("public_url"):
        raise ValueError(
            "is PUBLIC_URL itself; ComfyUI's nodes ship scripts, so it must be another origin than the app"
        )
    return origin(url)


def endpoint(url: str | None) -> str | None:
    """Accept a Compute Engine endpoint to which Google credentials may be sent."""
    if url is None:
        return None
    if origin(url).startswith("http://") and host_of(origin(url)) not in LOOPBACK:
        raise ValueError("would send Google credentials unencrypted; use https://, or http:// on localhost only")
    return origin(url)


def domain(name: str | None, info: ValidationInfo) -> str | None:
    """Accept ComfyUI's host name, which isn't the app's."""
    if name is None:
        return None
    name = name.lower().removesuffix(".")
    if len(name) > 253 or not re.fullmatch(rf"({_LABEL}\.)+(?=[a-z0-9-]*[a-z]){_LABEL}", name):  # noqa: PLR2004 - RFC 1035
        raise ValueError("must be a host name such as comfy.example.com, without https://, port or path")
    if name == host_of(info.data.get("public_url", "")):
        raise ValueError("is PUBLIC_URL's host; ComfyUI's nodes ship scripts, so it needs a name of its own")
    return name


def networks(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Accept addresses and networks; host bits below a network's mask are dropped."""
    try:
        found = [ipaddress.ip_network(text, strict=False) for text in texts]
    except ValueError:
        raise ValueError("must be addresses or networks such as 203.0.113.7 or 10.0.0.0/8, comma separated") from None
    return tuple(str(net.network_address if net.num_addresses == 1 else net) for net in found)


def stored_key(url: str | None, info: ValidationInfo) -> str | None:
    """Accept where the certificate's key lies, when it is known where the certificate lies."""
    if "cf_cert_path" in info.data and (url is None) != (info.data["cf_cert_path"] is None):
        raise ValueError("goes with CF_CERT_PATH; set both or neither")
    return url


def zones(names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
    """Accept candidate zones, each named once; by default GCE_ZONE alone."""
    if len(set(names)) < len(names):
        raise ValueError("names a zone twice; name each once, the first choice first")
    return names or (info.data.get("gce_zone", ""),)


def key_file(path: Path | None) -> Path | None:
    """Accept a file that can be read."""
    if path is None:
        return None
    try:
        path.open("rb").close()
    except IsADirectoryError:
        raise ValueError("names a directory; Docker makes one where the file to mount is missing") from None
    except (OSError, ValueError):
        raise ValueError("names a file that can't be read; mount the key file there or leave this unset") from None
    return path.absolute()


def database(url: SecretStr) -> SecretStr:
    """Accept a SQLAlchemy address of SQLite or PostgreSQL."""
    if not re.fullmatch(r"sqlite(\+\w+)?://\S*|postgresql(\+psycopg)?://[^\s/]*/\S+", url.get_secret_value()):
        raise ValueError("must be sqlite:///file or postgresql://user:password@host/database")
    return url


def redis(url: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
    """Accept Redis beside PostgreSQL."""
    if url is None:
        return None
    if not re.fullmatch(r"(rediss?|unix)://\S+", url.get_secret_value()):
        raise ValueError("must be redis://, rediss:// or unix://")
    if "database_url" in info.data and not info.data["database_url"].get_secret_value().startswith("postgresql"):
        raise ValueError(
            "means several workers, which can't share a SQLite file; set DATABASE_URL to PostgreSQL as well"
        )
    return url


def seeds(keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    """Accept Ed25519 private keys, in PEM or as base64 of the seed, and return the seeds in base64."""
    return tuple(SecretStr(base64.b64encode(_seed(key.get_secret_value())).decode()) for key in keys)


def _seed(text: str) -> bytes:
    try:
        if "-----BEGIN" in text:  # in one line of `.env`, a PEM's line breaks are written \n
            key = load_pem_private_key(text.replace("\\n", "\n").encode(), password=None)
            seed = key.private_bytes_raw() if isinstance(key, Ed25519PrivateKey) else b""
        else:
            seed = base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), altchars=b"-_")
    except (ValueError, TypeError, UnsupportedAlgorithm):
        seed = b""
    if len(seed) != _SEED_BYTES or len(set(seed)) == 1:
        raise ValueError("is no Ed25519 private key; make one with: openssl genpkey -algorithm ed25519")
    return seed
