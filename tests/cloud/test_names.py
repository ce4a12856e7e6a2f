"""Where a name leads, asked of a name server on loopback; and who answers behind a proxy, over a real connection."""

import asyncio
import gzip
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_network
from typing import cast

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import httpx
import pytest

from comfyweb.cloud import names
from comfyweb.cloud.names import Names
from tests.cloud.wire import RESET, SILENCE, Request, answer, wire

NAME = "comfy.example.com"
PROXIES = [ip_network("104.16.0.0/13"), ip_network("2606:4700::/32")]
Reply = Callable[[dns.message.Message], bytes | None]


class NameServer(asyncio.DatagramProtocol):
    """Answers as a test says, or not at all."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self.asked = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.asked += 1
        if (raw := self._reply(dns.message.from_wire(data))) is not None:
            self.transport.sendto(raw, addr)


def zone(*addresses: str) -> Reply:
    """Answer with these for the one name; whatever else is asked doesn't exist."""

    def reply(query: dns.message.Message) -> bytes:
        question = query.question[0]
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        if question.name.to_text() != f"{NAME}.":
            response.set_rcode(dns.rcode.NXDOMAIN)
            return response.to_wire()
        kind = "A" if question.rdtype == dns.rdatatype.A else "AAAA"
        own = [address for address in addresses if (":" in address) is (kind == "AAAA")]
        if own:
            response.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, *own))
        return response.to_wire()

    return reply


def broken(query: dns.message.Message) -> bytes:
    response = dns.message.make_response(query)
    response.set_rcode(dns.rcode.SERVFAIL)
    return response.to_wire()


class Through(httpx.AsyncHTTPTransport):
    """Makes every connection to a server of the test's: nobody but Cloudflare can stand at Cloudflare's addresses."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = httpx.URL(url)
        self.asked: list[str] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(str(request.url))
        request.url = request.url.copy_with(scheme="http", host=self._url.host, port=self._url.port)
        return await super().handle_async_request(request)


@asynccontextmanager
async def asking(reply: Reply, http: httpx.AsyncClient | None = None) -> AsyncGenerator[Names]:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: NameServer(reply), local_addr=("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]
    asked = Names(PROXIES, nameservers=["127.0.0.1"], port=port, http=http)
    try:
        yield asked
    finally:
        await asked.close()
        transport.close()


@pytest.mark.parametrize("addresses", [("93.184.216.34",), ("2606:2800:21f::1", "93.184.216.34", "93.184.216.35")])
async def test_a_name_leads_to_all_of_its_addresses_of_both_kinds(addresses: tuple[str, ...]) -> None:
    async with asking(zone(*addresses)) as asked:
        seen = await asked.look(NAME)
    assert seen.addresses == tuple(sorted(addresses))
    assert seen.reached is None, "only behind a proxy anybody is asked"


async def test_a_name_that_does_not_exist_has_no_address_and_one_without_records_neither() -> None:
    async with asking(zone("93.184.216.34")) as asked:
        assert (await asked.look("other.example.com")).addresses == ()
    async with asking(zone()) as asked:
        assert (await asked.look(NAME)).addresses == ()


def dead(_: dns.message.Message) -> None:
    return None


def mad(_: dns.message.Message) -> bytes:
    return b"nonsense"


@pytest.mark.parametrize("reply", [broken, dead, mad])
async def test_a_dead_or_mad_name_server_says_nothing_of_it(reply: Reply, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "TIMEOUT_SECONDS", 0.3)
    async with asking(reply) as asked:
        assert (await asked.look(NAME)).addresses is None


async def test_one_that_answers_for_half_of_a_name_is_believed_only_where_that_half_has_an_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(names, "TIMEOUT_SECONDS", 0.3)

    def half(reply: Reply, kind: dns.rdatatype.RdataType = dns.rdatatype.A) -> Reply:
        return lambda query: reply(query) if query.question[0].rdtype == kind else None

    async with asking(half(zone("93.184.216.34"))) as asked:
        assert (await asked.look(NAME)).addresses == ("93.184.216.34",)
    for reply in (half(zone()), half(zone("2606:2800:21f::1"), dns.rdatatype.AAAA)):
        async with asking(reply) as asked:
            assert (await asked.look(NAME)).addresses is None, "machines have IPv4"


@pytest.mark.parametrize(
    ("said", "reached", "words"),
    [
        (answer(200, {"phase": "ready"}), True, ""),
        (answer(200, {"phase": "warming"}), True, ""),
        (answer(522), False, "it answers with error 522"),
        (answer(530), False, "it answers with error 530"),
        (answer(200, b"<html>a parked domain"), False, "something else answers there (200)"),
        (answer(404), False, "something else answers there (404)"),
        (answer(302, Location="https://elsewhere.test/"), False, "something else answers there (302)"),
        (answer(403), None, ""),
        (answer(429), None, ""),
        (RESET, None, ""),
        (SILENCE, None, ""),
    ],
)
async def test_behind_a_proxy_our_host_is_asked_whether_it_is_there(
    said: bytes,
    reached: bool | None,  # noqa: FBT001 - a table's column
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(names, "TIMEOUT_SECONDS", 0.5)
    async with wire(said) as server:
        through = Through(server.url)
        async with asking(zone("104.16.1.1"), httpx.AsyncClient(transport=through)) as asked:
            seen = await asked.look(NAME)
    assert (seen.reached, seen.reached_words) == (reached, words)
    assert through.asked == [f"https://{NAME}/_host/health"]
    assert all("authorization" not in request.headers for request in server.requests)


async def test_what_is_packed_is_not_unpacked() -> None:
    packed = answer(200, gzip.compress(b'{"phase": "ready"}'), **{"Content-Encoding": "gzip"})
    async with (
        wire(packed) as server,
        asking(zone("104.16.1.1"), httpx.AsyncClient(transport=Through(server.url))) as asked,
    ):
        assert (await asked.look(NAME)).reached is False
    assert server.requests[0].headers["accept-encoding"] == "identity"


async def test_an_endless_answer_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(_: Request) -> bytes:
        return answer(200, b"x" * 1_000_000)

    async with (
        wire(endless) as server,
        asking(zone("104.16.1.1"), httpx.AsyncClient(transport=Through(server.url))) as asked,
    ):
        assert (await asked.look(NAME)).reached is False
