"""The metadata server, as the machine sees it: follow what the app sets, and write guest attributes.

https://cloud.google.com/compute/docs/metadata/querying-metadata. A server that is late, silent, forbids or answers
with a page changes nothing: the last that was read stays in force, and asking again waits longer each time.
"""

import logging
import threading
from collections.abc import Callable, Mapping

from vm_setup.base.asking import Answer, AskError, Request, ask
from vm_setup.host.messages import Message, encode
from vm_setup.host.reading import json_value, mapping, word
from vm_setup.host.tokens import audience

_LOG = logging.getLogger(__name__)
_ROOT = "/computeMetadata/v1"
_FLAVOR = {"Metadata-Flavor": "Google"}
_OK = 200
_LIMIT = 2_000_000
_CHANGE_SECONDS = 60
_SECONDS = 5.0
LONGEST_WAIT_SECONDS = 30.0
SILENT_SECONDS = 300.0


class Metadata:
    """The metadata server at `base`. `changed(attributes, audience)` is called at once and after every change.

    Until `over`; `pause` is the first wait, in seconds, after a failure.
    """

    def __init__(
        self,
        base: str,
        changed: Callable[[Mapping[str, object], str], None],
        *,
        now: Callable[[], float],
        over: threading.Event,
        pause: float = 1.0,
    ) -> None:
        self._base = base
        self._changed = changed
        self._now = now
        self._over = over
        self._pause = pause
        self._heard = now()
        self._thread = threading.Thread(target=self._follow, name="metadata", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def is_silent(self) -> bool:
        """Whether it has not been heard for minutes."""
        return self._now() - self._heard >= SILENT_SECONDS

    def _follow(self) -> None:
        name, etag, wait = "", "", self._pause
        while not self._over.is_set():
            try:
                name = name or self._audience()
                attributes, new_etag = self._attributes(etag)
                self._heard = self._now()
                if not etag or new_etag != etag:
                    self._changed(attributes, name)
            except (AskError, ValueError) as error:
                if wait == self._pause:
                    _LOG.warning("The metadata server failed (%s); going on with what is known.", error)
                self._over.wait(wait)
                wait = min(wait * 2, LONGEST_WAIT_SECONDS)
                continue
            if not new_etag or new_etag == etag:
                self._over.wait(self._pause)
            etag, wait = new_etag, self._pause

    def _audience(self) -> str:
        project, zone, instance = map(self._word, ("/project/project-id", "/instance/zone", "/instance/name"))
        return audience(project, zone.rpartition("/")[2], instance)

    def _word(self, path: str) -> str:
        said = word(self._get(path, _SECONDS).body.decode(errors="replace").strip(), limit=200)
        if said is None:
            raise ValueError(f"{path} is no word")
        return said

    def _attributes(self, etag: str) -> tuple[dict[str, object], str]:
        query = "?recursive=true&alt=json"
        if etag:
            query += f"&wait_for_change=true&last_etag={etag}&timeout_sec={_CHANGE_SECONDS}"
        answer = self._get(f"/instance/attributes/{query}", _SECONDS + (_CHANGE_SECONDS + 10 if etag else 0))
        found = mapping(json_value(answer.body, limit=_LIMIT))
        if found is None:
            raise ValueError("the attributes are no JSON object")
        return found, word(answer.headers.get("etag", ""), limit=100) or ""

    def _get(self, path: str, seconds: float) -> Answer:
        answer = ask(self._base, Request(path=_ROOT + path, headers=_FLAVOR, seconds=seconds, limit=_LIMIT))
        if answer.status != _OK:
            raise ValueError(f"{path.partition('?')[0]}: status {answer.status}")
        if answer.headers.get("metadata-flavor", "").lower() != "google":
            raise ValueError("something else answers in its place")
        return answer


class Writer:
    """Writes guest attributes in a thread of its own: a slow server delays nobody, and the newest value wins."""

    def __init__(self, base: str) -> None:
        self._base = base
        self._waiting: dict[str, Message] = {}
        self._failed: set[str] = set()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="guest attributes", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def write(self, name: str, message: Message) -> None:
        """Write this value soon, unless a newer one comes first."""
        with self._changed:
            self._waiting[name] = message
            self._changed.notify()

    def failed(self, name: str) -> bool:
        """Whether the last value under that name could not be written."""
        with self._changed:
            return name in self._failed

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                name, message = self._waiting.popitem()
            trouble = self._put(name, message)
            with self._changed:
                if trouble and name not in self._failed:
                    _LOG.warning("The guest attribute %s was not written (%s); it is tried again.", name, trouble)
                (self._failed.add if trouble else self._failed.discard)(name)

    def _put(self, name: str, message: Message) -> str:
        """Write a value; return what went wrong."""
        path = f"{_ROOT}/instance/guest-attributes/comfyweb/{name}"
        body = encode(message).encode()
        try:
            answer = ask(self._base, Request(method="PUT", path=path, body=body, headers=_FLAVOR, seconds=_SECONDS))
        except AskError as error:
            return str(error)
        return "" if answer.status == _OK else f"status {answer.status}"
