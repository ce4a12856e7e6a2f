"""The guest's side of the metadata server: follow what the app sets, and write guest attributes.

https://cloud.google.com/compute/docs/metadata/querying-metadata. A server that is silent or answers nonsense
changes nothing: the last that was read stays in force, and asking again waits longer each time.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import httpx

from vm_setup.host.messages import Message, encode
from vm_setup.host.reading import json_value, mapping
from vm_setup.host.tokens import audience

_LOG = logging.getLogger(__name__)
_CHANGE_SECONDS = 60
_ANSWER_LIMIT = 2_000_000
LONGEST_WAIT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Wait:
    """How long to wait before asking again; doubles with each failure."""

    first: float
    now: float

    def longer(self) -> "Wait":
        """Return the wait after one more failure."""
        return Wait(self.first, min(self.now * 2, LONGEST_WAIT_SECONDS))


class Metadata:
    """The metadata server at `url`, as the machine inside sees it. `pause` is the first wait in seconds."""

    def __init__(self, url: str, *, pause: float) -> None:
        self._pause = pause
        self._client = httpx.AsyncClient(
            base_url=url.rstrip("/") + "/computeMetadata/v1",
            headers={"Metadata-Flavor": "Google"},
            timeout=httpx.Timeout(5, read=_CHANGE_SECONDS + 15),
            trust_env=False,
        )

    async def close(self) -> None:
        """Let go of the connections."""
        await self._client.aclose()

    async def follow(self, changed: Callable[[Mapping[str, str], str], None]) -> None:
        """Call `changed(attributes, audience)` at once and after every change, for ever."""
        wait = Wait(self._pause, self._pause)
        name, etag = "", ""
        while True:
            try:
                name = name or await self._audience()
                attributes, new_etag = await self._attributes(etag)
            except (httpx.HTTPError, ValueError) as error:
                _LOG.warning("The metadata server failed (%s); going on with what is known.", error or type(error))
                await asyncio.sleep(wait.now)
                wait = wait.longer()
                continue
            wait = Wait(self._pause, self._pause)
            if not etag or new_etag != etag:
                changed(attributes, name)
            else:
                await asyncio.sleep(self._pause)
            etag = new_etag

    async def write(self, name: str, message: Message) -> bool:
        """Write one guest attribute; say whether that worked."""
        path = f"/instance/guest-attributes/comfyweb/{name}"
        try:
            answer = await self._client.put(path, content=encode(message), timeout=5)
        except httpx.HTTPError as error:
            _LOG.warning("The guest attribute %s was not written (%s).", name, error or type(error))
            return False
        return answer.is_success

    async def _audience(self) -> str:
        project = await self._text("/project/project-id")
        zone = await self._text("/instance/zone")
        return audience(project, zone.rpartition("/")[2], await self._text("/instance/name"))

    async def _text(self, path: str) -> str:
        answer = await self._client.get(path)
        return answer.raise_for_status().text.strip()

    async def _attributes(self, etag: str) -> tuple[dict[str, str], str]:
        query = {"recursive": "true", "alt": "json"}
        if etag:
            query |= {"wait_for_change": "true", "last_etag": etag, "timeout_sec": str(_CHANGE_SECONDS)}
        answer = await self._client.get("/instance/attributes/", params=query)
        found = mapping(json_value(answer.raise_for_status().text, limit=_ANSWER_LIMIT))
        if found is None:
            raise ValueError("the attributes are no JSON object")
        return {name: str(value) for name, value in found.items()}, answer.headers.get("etag", "")
