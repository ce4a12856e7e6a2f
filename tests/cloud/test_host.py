"""The client of the host, on the wire: what it sends, and how little it takes from what comes back."""

import asyncio
import functools
import json
import socket
import ssl
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from comfyweb.cloud import host as host_module
from comfyweb.cloud.host import HostClient, HostRefused, HostSilent
from comfyweb.cloud.host_answer import LARGEST_BYTES
from tests.cloud.wire import RESET, SILENCE, answer, wire

FIXTURES = Path(__file__).parent.parent / "fixtures" / "host"
READY = json.loads((FIXTURES / "status_ready.json").read_text())
HTML = answer(200, b"<html>Welcome to nginx</html>", Content_Type="text/html")

Say = Callable[[HostClient, str], Coroutine[Any, Any, Any]]
CALLS: dict[str, Say] = {
    "status": lambda host, url: host.status(url),
    "keep-alive": lambda host, url: host.keep_alive(url),
    "extend": lambda host, url: host.extend(url, 30),
    "drain": lambda host, url: host.drain(url, timedelta(minutes=30)),
    "cancel-drain": lambda host, url: host.cancel_drain(url),
    "revoke": lambda host, url: host.revoke(url, "session-1"),
}


def sign(method: str, url: str, body: bytes) -> str:
    return f"token-for-{method}-{len(url)}-{len(body)}"


authorities = functools.cache(ssl.create_default_context)


@pytest.fixture(autouse=True)
def _authorities_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each client reads the certificates of the world, which takes longer than everything else here."""
    monkeypatch.setattr(ssl, "create_default_context", authorities)


async def ask(url: str, name: str = "status") -> Any:
    host = HostClient(sign=sign)
    try:
        return await CALLS[name](host, url)
    finally:
        await host.close()


@pytest.mark.parametrize(
    ("name", "method", "path", "body"),
    [
        ("status", "GET", "/_host/status", None),
        ("keep-alive", "POST", "/_host/keep-alive", {}),
        ("extend", "POST", "/_host/extend", {"minutes": 30}),
        ("drain", "POST", "/_host/drain", {"deadline_seconds": 1800, "stay": False}),
        ("cancel-drain", "DELETE", "/_host/drain", None),
        ("revoke", "POST", "/_host/revoke", {"session": "session-1"}),
    ],
)
async def test_each_call_is_signed_for_its_method_address_and_body(
    name: str, method: str, path: str, body: dict[str, Any] | None
) -> None:
    async with wire(answer(200, READY)) as machine:
        await ask(machine.url + "/", name)
    (sent,) = machine.requests
    assert (sent.method, sent.path) == (method, path)
    assert (json.loads(sent.body) if sent.body else None) == body
    token = sign(method, machine.url + path, sent.body)
    assert sent.headers["authorization"] == f"Bearer {token}"


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    "raw",
    [
        RESET,
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        HTML,
        answer(200, b""),
        answer(200, b"\xff\xfe"),
        answer(200, b"[" * 60_000),
        answer(200, b'{"a": "' + b"x" * LARGEST_BYTES + b'"}'),
        answer(302, READY, Location="/_host/elsewhere"),
        answer(404, b"nothing here"),
        answer(500, READY),
        answer(502, b"<html>Bad Gateway</html>"),
        answer(503, READY),
    ],
)
async def test_whatever_else_answers_is_silence(name: str, raw: bytes) -> None:
    async with wire(raw) as machine:
        with pytest.raises(HostSilent) as caught:
            await ask(machine.url, name)
    assert str(caught.value).endswith(".")
    assert len(machine.requests) == 1


@pytest.mark.parametrize("url", ["", "nonsense", "ftp://a", "http://", "http://[", "http://a b", "http://:99999999"])
async def test_an_address_that_is_none_is_silence(url: str) -> None:
    with pytest.raises(HostSilent):
        await ask(url)


async def test_a_machine_that_nobody_listens_on_is_silence() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with pytest.raises(HostSilent, match="can't be reached"):
            await ask(f"http://127.0.0.1:{nobody.getsockname()[1]}")


async def test_no_answer_and_half_an_answer_end_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module, "TIMEOUT_SECONDS", 0.1)
    async with wire(SILENCE) as machine:
        with pytest.raises(HostSilent, match="in time"):
            await ask(machine.url)


async def test_an_answer_that_never_ends_is_cut() -> None:
    async def pour(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
        try:
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
        except ConnectionError:
            pass

    server = await asyncio.start_server(pour, "127.0.0.1", 0)
    with pytest.raises(HostSilent, match="not its host"):
        await ask(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    server.close()


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("name", CALLS)
async def test_a_refusal_bears_the_host_s_words_or_ours(name: str, status: int) -> None:
    async with wire(answer(status, {"detail": "This token is <b>old</b>."})) as machine:
        with pytest.raises(HostRefused) as caught:
            await ask(machine.url, name)
    assert (caught.value.status, caught.value.words) == (status, "This token is old .")
    async with wire(answer(status, b"<html>no</html>")) as machine:
        with pytest.raises(HostRefused) as caught:
            await ask(machine.url, name)
    assert caught.value.words.startswith("The machine")


@pytest.mark.parametrize("name", [name for name in CALLS if name != "status"])
async def test_an_empty_204_is_consent(name: str) -> None:
    async with wire(answer(204)) as machine:
        assert await ask(machine.url, name) is None


async def test_no_cookie_is_kept_not_even_by_a_client_of_somebody_else() -> None:
    async with wire(answer(200, READY, Set_Cookie="gate=abc; Path=/")) as machine, httpx.AsyncClient() as http:
        host = HostClient(sign=sign, http=http)
        await host.status(machine.url)
        await host.status(machine.url)
        assert not http.cookies
    assert "cookie" not in machine.requests[1].headers


async def test_a_certificate_that_can_not_be_verified_is_said() -> None:
    refused = httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")

    def refuse(_request: httpx.Request) -> httpx.Response:
        raise refused

    async with httpx.AsyncClient(transport=httpx.MockTransport(refuse)) as http:
        with pytest.raises(HostSilent, match="certificate"):
            await HostClient(sign=sign, http=http).status("https://comfy.example.com")


async def test_after_closing_it_is_silence() -> None:
    host = HostClient(sign=sign)
    await host.close()
    with pytest.raises(HostSilent):
        await host.status("http://127.0.0.1:9")
