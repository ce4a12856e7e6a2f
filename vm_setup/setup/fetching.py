"""Small files from where people keep them: `gs://` by the machine's service account, `https://` as anybody gets it."""

import os
import time
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPMessage
from typing import IO
from urllib.parse import quote, urlsplit

from vm_setup.host.reading import json_value, mapping, word
from vm_setup.keeper.asking import AskError, Request, ask
from vm_setup.keeper.metadata import address
from vm_setup.setup.system import Trouble

_STORAGE = "https://storage.googleapis.com"
_TOKEN_PATH = "/computeMetadata/v1/instance/service-accounts/default/token"  # noqa: S105 - where it is asked for
_LIMIT = 256 * 1024
_SECONDS = 20.0
_LONGEST_TOKEN = 8192


def fetch(url: str) -> bytes:
    """Return the file at a `gs://` or `https://` address. Raises `Trouble`, whose text says which and why."""
    return _stored(url) if url.startswith("gs://") else _get(urllib.request.Request(url), url)  # noqa: S310 - https


def _stored(url: str) -> bytes:
    """Read an object of Cloud Storage by its XML API (https://cloud.google.com/storage/docs/xml-api/get-object-download).

    STORAGE_EMULATOR_HOST in the environment is another place, as for Google's own client libraries.
    """
    bucket, _, name = url.removeprefix("gs://").partition("/")
    base = (os.environ.get("STORAGE_EMULATOR_HOST") or _STORAGE).rstrip("/")
    request = urllib.request.Request(f"{base}/{bucket}/{quote(name)}")  # noqa: S310 - the administrator's choice
    request.add_unredirected_header("Authorization", f"Bearer {_token(url)}")
    try:
        return _get(request, url)
    except _Refused as refused:
        if refused.status in {401, 403}:
            raise Trouble(
                f"The machine may not read {url}: give its service account the role Storage Object Viewer on the "
                "bucket, and the machine the access scope storage-ro (or cloud-platform)"
            ) from refused
        raise


def _token(url: str) -> str:
    """Return an access token of the machine's service account."""
    try:
        answer = ask(address(), Request(path=_TOKEN_PATH, headers={"Metadata-Flavor": "Google"}, seconds=10.0))
    except AskError as error:
        raise Trouble(f"{url} was not read: the metadata server gives no token ({error})") from error
    if answer.status == 404:  # noqa: PLR2004 - as Compute Engine answers without one
        raise Trouble(f"{url} can't be read: the machine has no service account")
    token = word((mapping(json_value(answer.body, limit=_LIMIT)) or {}).get("access_token"), limit=_LONGEST_TOKEN)
    if token is None or answer.headers.get("metadata-flavor", "").lower() != "google":
        raise Trouble(f"{url} was not read: the metadata server gives no token (status {answer.status})")
    return token


class _Refused(Trouble):
    """The server answered with another status than 200."""

    def __init__(self, url: str, status: int) -> None:
        super().__init__(f"there is nothing at {url}" if status == 404 else f"{url} answers {status}")  # noqa: PLR2004
        self.status = status


class _OnlySafe(urllib.request.HTTPRedirectHandler):
    """Follows a redirect from https to https alone."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        """Return the next request, or none where it would leave https."""
        if urlsplit(newurl).scheme != "https":
            return None
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _get(request: urllib.request.Request, url: str) -> bytes:
    """Read an answer to its end, within a time and a size for all of it."""
    end = time.monotonic() + _SECONDS
    parts: list[bytes] = []
    try:
        with urllib.request.build_opener(_OnlySafe()).open(request, timeout=_SECONDS / 2) as answer:
            while part := answer.read1(65536):
                parts.append(part)
                if sum(map(len, parts)) > _LIMIT:
                    raise Trouble(f"{url} is too long for a certificate")
                if time.monotonic() > end:
                    raise Trouble(f"{url} comes too slowly")
            if answer.length:
                raise Trouble(f"{url} ended in its middle")
    except urllib.error.HTTPError as error:
        error.close()
        raise _Refused(url, error.code) from error
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise Trouble(f"{url} can't be had ({reason})") from error
    return b"".join(parts)
