"""What answers at an address: the time it is there, the certificate it shows, the start-up script it holds.

For `python -m comfyweb doctor`. Nothing is sent but the question, and no more is read than is needed. What fails raises
`NoAnswer`, with words for people.
"""

import asyncio
import ssl
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import httpx
from cryptography import x509
from cryptography.x509.oid import NameOID

from comfyweb.machine.model import Certificate
from comfyweb.machine.reach import covers

TIMEOUT_SECONDS = 6.0
LONGEST_SCRIPT_BYTES = 512 * 1024
HTTPS = 443
_STORAGE = "https://storage.googleapis.com/"


class NoAnswer(Exception):
    """Nothing usable answered. `str` says why, in words for people."""


async def time_at(url: str) -> datetime:
    """Return the time by the `Date` of an answer, whatever it says (RFC 9110, 6.6.1: in whole seconds)."""
    try:
        async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS) as http, http.stream("GET", url) as answer:
            return parsedate_to_datetime(answer.headers["date"]).replace(tzinfo=UTC)
    except (httpx.HTTPError, OSError) as error:
        raise NoAnswer(f"{httpx.URL(url).host} gave no answer ({type(error).__name__}).") from error
    except (KeyError, ValueError) as error:
        raise NoAnswer(f"{httpx.URL(url).host} does not say what time it is.") from error


async def certificate_at(name: str, *, host: str = "", port: int = HTTPS) -> Certificate:
    """Return the certificate that is shown for `name`; `mode` is its signer. `host` is asked instead, if given.

    Of its names the one that is good for `name` is told, else the first. It is trusted when this computer trusts it.
    """
    try:
        return _read(await _shown(name, host or name, port, ssl.create_default_context()), name, trusted=True)
    except ssl.SSLError:
        pass  # It is read all the same, to say what is wrong with it.
    anything = ssl.create_default_context()
    anything.check_hostname = False
    anything.verify_mode = ssl.CERT_NONE
    try:
        return _read(await _shown(name, host or name, port, anything), name, trusted=False)
    except ssl.SSLError as error:
        raise NoAnswer(f"{name} speaks no TLS that can be used ({error.reason}).") from error


async def script_at(url: str) -> str:
    """Return the beginning of what is stored there, as far as everybody may read it.

    `gs://` is asked for by its public address: the machine reads it by an account of its own, which we aren't.
    """
    public = url.startswith("gs://")
    address = _STORAGE + url.removeprefix("gs://") if public else url
    raw = b""
    try:
        async with (
            httpx.AsyncClient(timeout=TIMEOUT_SECONDS, follow_redirects=True) as http,
            http.stream("GET", address) as answer,
        ):
            status = answer.status_code
            async for piece in answer.aiter_bytes():
                raw += piece
                if len(raw) > LONGEST_SCRIPT_BYTES:
                    raise NoAnswer("What is there is far too long for a start-up script.")
    except (httpx.HTTPError, OSError) as error:
        raise NoAnswer(f"{httpx.URL(address).host} gave no answer ({type(error).__name__}).") from error
    if status != HTTPStatus.OK:
        private = " The bucket may be private: the machine's account reads it then, and only that." if public else ""
        raise NoAnswer(f"{httpx.URL(address).host} answers {status}.{private}")
    return raw.decode(errors="replace")


async def _shown(name: str, host: str, port: int, context: ssl.SSLContext) -> x509.Certificate:
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            _, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=name)
    except ssl.SSLError:
        raise
    except TimeoutError as error:
        raise NoAnswer(f"{name} does not answer on port {port}.") from error
    except OSError as error:
        raise NoAnswer(f"{name} can't be reached on port {port} ({error.strerror or type(error).__name__}).") from error
    try:
        connection: ssl.SSLObject = writer.get_extra_info("ssl_object")
        raw = connection.getpeercert(binary_form=True)
        if raw is None:
            raise NoAnswer(f"{name} shows no certificate.")
        return x509.load_der_x509_certificate(raw)
    except ValueError as error:
        raise NoAnswer(f"{name} shows a certificate that can't be read.") from error
    finally:
        writer.close()


def _read(found: x509.Certificate, name: str, *, trusted: bool) -> Certificate:
    try:
        alternatives = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = alternatives.get_values_for_type(x509.DNSName)
    except (x509.ExtensionNotFound, ValueError):
        names = []
    by = next((str(part.value) for part in found.issuer.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)), "")
    return Certificate(
        mode=by or found.issuer.rfc4514_string(),
        trusted=trusted,
        name=next((each for each in names if covers(each, name)), names[0] if names else ""),
        until=found.not_valid_after_utc,
    )
