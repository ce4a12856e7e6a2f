"""What Google's client raised, as a `CloudError`. Importing this imports Google's libraries: see `google_calls`.

The client wraps only what came as an HTTP error (`GoogleAPICallError`); a dead network, bad credentials and garbage
come as whatever requests, google-auth and protobuf raise. What Google meant is judged by its code strings alone.
"""

import re
import socket
from collections.abc import Iterator
from typing import cast

from google.api_core.exceptions import GoogleAPICallError
from google.auth.exceptions import (
    DefaultCredentialsError,
    GoogleAuthError,
    InvalidOperation,
    MalformedError,
    RefreshError,
    TransportError,
)
from requests import exceptions as http

from comfyweb.cloud.cloud_error import CloudError
from comfyweb.machine.faults import classify, named, plain
from comfyweb.machine.model import Fault

_CALL = re.compile(r"^[A-Z]+ \S+: ")  # The client writes its own request before Google's words.


def cloud_error(error: Exception) -> CloudError:
    """Return the `CloudError` for anything that a call raised."""
    if isinstance(error, CloudError):
        return error
    if isinstance(error, GoogleAPICallError):
        codes, message = said(error)
        fault = _classify(codes, message, status(error))
        return CloudError(fault, f"HTTP {status(error)} {'/'.join(codes)} {plain(message)}")
    return CloudError(named(_kind(error)), f"{type(error).__name__} {plain(str(error))}")


def status(error: GoogleAPICallError) -> int:
    """Return the HTTP status that Google answered with, 0 if there was none."""
    return int(error.code or 0)


def said(error: GoogleAPICallError) -> tuple[tuple[str, ...], str]:
    """Return the codes that Google gave, the most exact first, and its message."""
    entries = _entries(error)
    entry = entries[0] if entries else {}
    codes = (cast("object", error.reason), entry.get("reason"))
    message = entry.get("message")
    words = message if isinstance(message, str) else _CALL.sub("", str(cast("object", error.message)))
    return tuple(code for code in codes if isinstance(code, str) and code), words


def _classify(codes: tuple[str, ...], message: str, http_status: int) -> Fault:
    faults = [classify(code, message, http_status=http_status) for code in codes or ("",)]
    return next((fault for fault in faults if fault.code != "unknown"), faults[-1])


def _entries(error: GoogleAPICallError) -> list[dict[str, object]]:
    entries = cast("object", error.errors)
    if not isinstance(entries, list):
        return []
    return [cast("dict[str, object]", entry) for entry in cast("list[object]", entries) if isinstance(entry, dict)]


def _kind(error: Exception) -> str:
    """Return the row of the table for what is no answer of Google's."""
    match error:
        case InvalidOperation():  # A call without credentials, as to the demo, was answered with 401.
            return "credentials-refused"
        case DefaultCredentialsError() | MalformedError():
            return "credentials-missing"
        case TransportError():
            return _network(error)
        case RefreshError():
            return "unavailable" if cast("bool", error.retryable) else "credentials-refused"
        case GoogleAuthError():
            return "credentials-refused"
        case http.ChunkedEncodingError() | http.ContentDecodingError() | http.JSONDecodeError():
            return "bad-answer"
        case OSError():
            return _network(error)
        case _:
            return "bad-answer"


def _network(error: Exception) -> str:
    causes = list(_causes(error))
    if any(isinstance(cause, socket.gaierror) or type(cause).__name__ == "NameResolutionError" for cause in causes):
        return "network-name"
    if any(isinstance(cause, http.SSLError) for cause in causes):
        return "network-tls"
    if any(isinstance(cause, http.Timeout | TimeoutError) for cause in causes):
        return "network-timeout"
    return "network"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and all that is under it: urllib3 hands the cause on in `reason` and `args`."""
    waiting: list[object] = [error]
    seen: set[int] = set()
    while waiting:
        cause = waiting.pop()
        if isinstance(cause, BaseException) and id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            waiting += [cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args]
