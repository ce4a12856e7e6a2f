"""Our software on the machine, as the app reaches it: by HTTPS, and where that is silent by Google's guest attributes.

Whatever comes back, a caller gets a `HostSeen` or one of two exceptions: `HostSilent` when nothing that is our host
answered in time, `HostRefused` when our host said no.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from http.cookiejar import DefaultCookiePolicy

import httpx

from comfyweb.cloud.host_answer import LARGEST_BYTES, Message, acks, count, host_seen, message, moment, part, word
from comfyweb.machine.model import HostSeen

TIMEOUT_SECONDS = 2.0

Sign = Callable[[str, str, bytes], str]
"""Makes the token for one call: `sign(method, url, body)`."""

_SUCCESS = range(200, 300)
_NO_CONTENT = 204
_UNREACHED = "The machine can't be reached."
_REFUSALS = {
    401: "The machine did not believe the app's token: their clocks or keys differ.",
    403: "The machine turned the app away: is the app's own address among those that may reach it?",
}
# Any program on the machine can write guest attributes: a time further ahead of ours than clocks differ is a lie.
_CLOCKS_DIFFER = timedelta(minutes=1)
_FURTHEST_STOP = timedelta(days=8)


class HostSilent(Exception):
    """Nothing that is our host answered. `str` says why, in words for people."""


class HostRefused(Exception):
    """Our host answered and said no, with this HTTP status and these words for people."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status
        self.words = words


class HostClient:
    """Speaks `/_host/` of contract.md. Every method raises `HostSilent` or `HostRefused`, and nothing else.

    `url` is ComfyUI's address. Each call is signed by `sign` and has 2 seconds in all. No redirect is followed (it
    would take the token elsewhere), no cookie is kept, and no more than 64 KB are read.
    """

    def __init__(self, *, sign: Sign, http: httpx.AsyncClient | None = None) -> None:
        self._sign = sign
        self._http = http or httpx.AsyncClient(timeout=TIMEOUT_SECONDS)
        self._http.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))

    async def status(self, url: str) -> HostSeen:
        """Ask for everything that the host has to tell."""
        seen = host_seen(await self._call("GET", url, "status"), by_https=True)
        if seen is None:
            raise HostSilent("What answered at the machine's address is not its host.")
        return seen

    async def keep_alive(self, url: str) -> None:
        """Count this moment as use."""
        await self._call("POST", url, "keep-alive", {})

    async def extend(self, url: str, minutes: float) -> None:
        """Ask for that many minutes more than now foreseen."""
        await self._call("POST", url, "extend", {"minutes": minutes})

    async def drain(self, url: str, deadline: timedelta, *, stay: bool = False) -> None:
        """Let no new prompt in, and power off when the others are done, at the latest after `deadline`.

        With `stay` only then: somebody may still be saving what he has.
        """
        seconds = max(0, round(deadline.total_seconds()))
        await self._call("POST", url, "drain", {"deadline_seconds": seconds, "stay": stay})

    async def cancel_drain(self, url: str) -> None:
        """Go on working after all."""
        await self._call("DELETE", url, "drain")

    async def revoke(self, url: str, session: str) -> None:
        """Kill the cookies and the open websockets of a session."""
        await self._call("POST", url, "revoke", {"session": session})

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _call(self, method: str, url: str, path: str, body: Mapping[str, object] | None = None) -> Message:
        target = f"{url.rstrip('/')}/_host/{path}"
        content = b"" if body is None else json.dumps(body).encode()
        token = self._sign(method, target, content)
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                status, raw = await self._send(method, target, content, token)
        except (TimeoutError, httpx.TimeoutException) as error:
            raise HostSilent("The machine gave no answer in time.") from error
        except httpx.ConnectError as error:
            bad_certificate = "CERTIFICATE" in str(error).upper()
            words = "The machine's certificate could not be verified." if bad_certificate else _UNREACHED
            raise HostSilent(words) from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, RuntimeError) as error:
            # RuntimeError: the client was closed; ValueError: an address that is none.
            raise HostSilent(_UNREACHED) from error
        said = message(raw)
        if status in _REFUSALS:
            raise HostRefused(status, _words(said) or _REFUSALS[status])
        if status not in _SUCCESS or (said is None and status != _NO_CONTENT):
            raise HostSilent(f"What answered at the machine's address is not its host, or is in trouble ({status}).")
        return said or {}

    async def _send(self, method: str, target: str, content: bytes, token: str) -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json", "Accept-Encoding": "identity"}
        if content:
            headers["Content-Type"] = "application/json"
        request = self._http.build_request(method, target, content=content, headers=headers)
        response = await self._http.send(request, stream=True, follow_redirects=False)
        raw = b""
        try:
            async for piece in response.aiter_raw():
                raw += piece
                if len(raw) > LARGEST_BYTES:
                    break
        finally:
            await response.aclose()
        return response.status_code, raw


def from_guest_attributes(values: Mapping[str, str], at: datetime) -> HostSeen | None:
    """Return what the host wrote as guest attributes, read at `at`; None when there is nothing that makes sense.

    `phase` says most; `heartbeat` is written more often, and counts where it is newer and of the same boot. Any program
    on the machine can write them: they inform, and what is implausible is dropped.
    """
    phase = _not_ahead(host_seen(message(values.get("phase", "")) or {}, by_https=False), at)
    beat = _not_ahead(_heartbeat(message(values.get("heartbeat", "")) or {}), at)
    if phase is None or beat is None:
        seen = phase or beat
    elif beat.boot_id != phase.boot_id:
        seen = max(phase, beat, key=lambda one: one.at)
    elif beat.at <= phase.at:
        seen = replace(phase, acks=beat.acks)
    else:
        seen = replace(
            phase,
            at=beat.at,
            queue_running=beat.queue_running,
            queue_pending=beat.queue_pending,
            stops_at=beat.stops_at,
            acks=beat.acks,
        )
    if seen is None or seen.stops_at is None or abs(seen.stops_at - at) <= _FURTHEST_STOP:
        return seen
    return replace(seen, stops_at=None)


def _heartbeat(said: Message) -> HostSeen | None:
    at, boot_id = moment(said.get("at")), word(said.get("boot_id"))
    if at is None or not boot_id:
        return None
    queue = part(said, "queue")
    return HostSeen(
        at=at,
        boot_id=boot_id,
        phase="",
        by_https=False,
        queue_running=count(queue.get("running")),
        queue_pending=count(queue.get("pending")),
        stops_at=moment(said.get("stops_at")),
        acks=acks(said),
    )


def _not_ahead(seen: HostSeen | None, at: datetime) -> HostSeen | None:
    return seen if seen is not None and seen.at <= at + _CLOCKS_DIFFER else None


def _words(said: Message | None) -> str:
    """Return what a problem+json answer says for people."""
    return word((said or {}).get("detail"), 200)
