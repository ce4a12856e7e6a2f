"""Small files from where people keep them: `gs://` by the machine's service account, `https://` as anybody gets it."""

import os
import time
from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import quote, urljoin, urlsplit

from vm_setup.base.asking import Answer, AskError, AskTooLongError, Request, ask
from vm_setup.base.places import address
from vm_setup.host.reading import json_value, mapping, word
from vm_setup.setup.system import Trouble

_STORAGE = "https://storage.googleapis.com"
_TOKEN_PATH = "/computeMetadata/v1/instance/service-accounts/default/token"  # noqa: S105 - where it is asked for
_LIMIT = 256 * 1024
_SECONDS = 20.0
_MOST_PLACES = 10
_MOVED = frozenset({301, 302, 303, 307, 308})
_LONGEST_TOKEN = 8192


def fetch(url: str) -> bytes:
    """Return the file at a `gs://` or `https://` address. Raises `Trouble`, whose text says which and why."""
    return _stored(url) if url.startswith("gs://") else _get(url, url, {})


def _stored(url: str) -> bytes:
    """Read an object of Cloud Storage by its XML API (https://cloud.google.com/storage/docs/xml-api/get-object-download).

    STORAGE_EMULATOR_HOST in the environment is another place, as for Google's own client libraries.
    """
    bucket, _, name = url.removeprefix("gs://").partition("/")
    base = (os.environ.get("STORAGE_EMULATOR_HOST") or _STORAGE).rstrip("/")
    try:
        return _get(url, f"{base}/{bucket}/{quote(name)}", {"Authorization": f"Bearer {_token(url)}"})
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


def _get(url: str, place: str, headers: Mapping[str, str]) -> bytes:
    """Return what is at `place`, within a time and a size for all of it. `url` is how it is spoken of.

    A redirect is followed to https alone, and without the headers.
    """
    end = time.monotonic() + _SECONDS
    for _ in range(_MOST_PLACES):
        answer = _asked(url, place, headers, end - time.monotonic())
        if answer.status == HTTPStatus.OK:  # whatever else there is, is not the file
            return answer.body
        there = urljoin(place, answer.headers.get("location", ""))
        if answer.status not in _MOVED or urlsplit(there).scheme != "https":
            raise _Refused(url, answer.status)
        place, headers = there, {}
    raise Trouble(f"{url} leads from one address to the next")


def _asked(url: str, place: str, headers: Mapping[str, str], seconds: float) -> Answer:
    parts = urlsplit(place)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        return ask(place, Request(path=path, headers=headers, seconds=seconds, limit=_LIMIT))
    except AskTooLongError as error:
        raise Trouble(f"{url} is too long for a certificate") from error
    except AskError as error:
        raise Trouble(f"{url} can't be had ({error})") from error
