"""Whether a certificate and its key can be used: whole, a pair, for this name, today.

OpenSSL itself judges, by shaking hands with itself in memory: what passes here is what browsers and nginx take.
"""

import contextlib
import re
import ssl
from pathlib import Path

from vm_setup.base.tls import Dates

_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
# X509_V_ERR_CERT_HAS_EXPIRED and its like, of OpenSSL's x509_vfy.h.
_EXPIRED, _NOT_YET, _OTHER_NAME = 10, 9, 62
_MOST_STEPS = 10


class Unusable(Exception):
    """The pair can't be used; the text says why."""


def check(chain: Path, key: Path, name: str) -> Dates:
    """Return the dates of a certificate (the first of `chain`) that can serve under `name` now. Raises `Unusable`."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    text = _certificates(chain)
    try:
        server.load_cert_chain(chain, key, password=_no_password)
    except ssl.SSLError as error:
        raise Unusable(_words(error, text, key)) from error
    except OSError as error:
        raise Unusable(f"it can't be read ({error.strerror})") from error
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Whoever has issued it: the certificate itself is the anchor, so that only name, dates and use are judged.
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(cadata=text[: text.index(_END) + len(_END)])
    try:
        found = _shake_hands(server, client, name)
    except ssl.SSLCertVerificationError as error:
        raise Unusable(_verdict(error, name)) from error
    except (ssl.SSLError, ValueError) as error:
        raise Unusable(f"OpenSSL does not take it ({error})") from error
    return Dates(
        since=ssl.cert_time_to_seconds(str(found["notBefore"])), until=ssl.cert_time_to_seconds(str(found["notAfter"]))
    )


def is_trusted(chain: Path, key: Path, name: str) -> bool:
    """Whether this machine's own list of authorities has the issuer of a pair that was checked, as browsers' lists do.

    Not that of a test authority such as Let's Encrypt's staging, or a private one.
    """
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(chain, key)
    try:
        _shake_hands(server, ssl.create_default_context(), name)
    except ssl.SSLError:
        return False
    return True


def _certificates(chain: Path) -> str:
    """Return the chain's text. Raises `Unusable` when it is no list of whole certificates."""
    try:
        text = chain.read_text("ascii")
    except (OSError, ValueError) as error:
        raise Unusable("the certificate is no PEM file") from error
    if _BEGIN not in text:
        kind = "a web page" if "<html" in text.lower() or "<!doctype" in text.lower() else "no PEM file"
        raise Unusable(f"the certificate is {kind}")
    beside = re.sub(f"{_BEGIN}.*?{_END}", "", text, flags=re.DOTALL)
    if any(line.startswith("-") for line in beside.splitlines()):
        raise Unusable("the certificate ends in its middle")
    return text[text.index(_BEGIN) :]


def _no_password() -> bytes:
    return b""


def _words(error: ssl.SSLError, text: str, key: Path) -> str:
    """Say in words why OpenSSL can't load the two."""
    try:
        said = key.read_text("ascii")
    except (OSError, ValueError):
        return "the key is no PEM file"
    if "PRIVATE KEY-----" not in said:
        return "the key is no private key in PEM"
    if "ENCRYPTED" in said:
        return "the key is encrypted with a password; store it without one"
    if "MISMATCH" in str(error.reason):
        return "the key does not belong to the certificate"
    if said.count("-----BEGIN") != said.count("-----END"):
        return "the key ends in its middle"
    return f"OpenSSL can't read the {'certificate' if not _decodes(text) else 'key'} ({error.reason or error})"


def _decodes(text: str) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError):
        return False
    return True


def _verdict(error: ssl.SSLCertVerificationError, name: str) -> str:
    words = {
        _EXPIRED: "the certificate has expired",
        _NOT_YET: "the certificate is not good yet, or the machine's clock is wrong",
        _OTHER_NAME: f"the certificate is not for {name}",
    }
    return words.get(error.verify_code, f"the certificate can't serve a web site ({error.verify_message})")


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> dict[str, object]:
    """Shake hands in memory, and return the certificate as the client has verified it. Raises `ssl.SSLError`."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = server.wrap_bio(to_server, to_client, server_side=True)
    there = client.wrap_bio(to_client, to_server, server_hostname=name)
    waiting = [there, here]
    for _ in range(_MOST_STEPS):
        for side in list(waiting):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
                waiting.remove(side)
    return dict(there.getpeercert() or {})
