"""Asks where a name leads, and who answers there: the DNS, and the one call of the host that is for everybody.

The name servers are asked themselves, past this computer's own list of hosts: what counts is what browsers are told.
"""

import asyncio
from collections.abc import Sequence

import dns.asyncresolver
import dns.exception
import dns.name
import dns.rdatatype
import dns.resolver
import httpx

from comfyweb.cloud.host_answer import LARGEST_BYTES, message
from comfyweb.machine.model import NameSeen
from comfyweb.machine.reach import Networks, hidden

TIMEOUT_SECONDS = 4.0
MOST_ADDRESSES = 16
_PHASES = frozenset({"warming", "ready"})
_OK = 200
_PLAIN = {"Accept-Encoding": "identity"}  # who answers may be anybody: a few bytes could unpack to any length
# Cloudflare's own, when the machine behind it doesn't answer as it should (its page "Cloudflare 5xx errors").
_CLOUDFLARE_FAILED = range(520, 531)
# Somebody turns us away: that says nothing of who is behind.
_TURNED_AWAY = frozenset({401, 403, 429})


class Names:
    """Looks names up. `look` never raises, and takes twice `TIMEOUT_SECONDS` at most.

    `nameservers` are addresses, or `address` and `port` of others than this computer's own.
    """

    def __init__(
        self,
        proxies: Networks,
        *,
        nameservers: Sequence[str] = (),
        port: int = 53,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        self._proxies = proxies
        self._nameservers = nameservers
        self._port = port
        self._http = http or httpx.AsyncClient(timeout=TIMEOUT_SECONDS, trust_env=False)

    async def look(self, name: str) -> NameSeen:
        """Return where the name leads; behind a proxy also whether our host answers by it."""
        addresses = await self._addresses(name)
        if not addresses or not hidden(addresses, self._proxies):
            return NameSeen(name=name, addresses=addresses)
        reached, words = await self._reached(name)
        return NameSeen(name=name, addresses=addresses, reached=reached, reached_words=words)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _addresses(self, name: str) -> tuple[str, ...] | None:
        try:
            resolver = dns.asyncresolver.Resolver(configure=not self._nameservers)
        except dns.exception.DNSException:
            return None  # this computer names no name server
        if self._nameservers:
            resolver.nameservers = list(self._nameservers)
            resolver.port = self._port
        resolver.lifetime = TIMEOUT_SECONDS
        kinds = (dns.rdatatype.A, dns.rdatatype.AAAA)
        four, six = await asyncio.gather(*(_ask(resolver, name, kind) for kind in kinds))
        if four is None or (not four and six is None):
            return None
        return tuple(sorted({*four, *(six or ())}))[:MOST_ADDRESSES]

    async def _reached(self, name: str) -> tuple[bool | None, str]:
        try:
            async with (
                asyncio.timeout(TIMEOUT_SECONDS),
                self._http.stream(
                    "GET", f"https://{name}/_host/health", headers=_PLAIN, follow_redirects=False
                ) as response,
            ):
                status, raw = response.status_code, b""
                async for piece in response.aiter_raw():
                    raw += piece
                    if len(raw) > LARGEST_BYTES:
                        break
        except (TimeoutError, httpx.HTTPError, OSError, ValueError):
            return None, ""
        if status == _OK and (message(raw) or {}).get("phase") in _PHASES:
            return True, ""
        if status in _CLOUDFLARE_FAILED:
            return False, f"it answers with error {status}"
        if status in _TURNED_AWAY:
            return None, ""
        return False, f"something else answers there ({status})"


async def _ask(resolver: dns.asyncresolver.Resolver, name: str, kind: dns.rdatatype.RdataType) -> set[str] | None:
    """Return the addresses of one kind; none where the name has none, None where nobody could say."""
    try:
        absolute = dns.name.from_text(name)
        answer = await resolver.resolve(absolute, kind, raise_on_no_answer=False, search=False)
    except dns.resolver.NXDOMAIN:
        return set()
    except (dns.exception.DNSException, OSError, ValueError):
        return None
    return {str(record) for record in answer}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType] - dnspython leaves its iterators untyped
