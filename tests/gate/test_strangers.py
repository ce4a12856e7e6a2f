"""Strangers at the gate: whatever they ask for and however, not one byte of ComfyUI."""

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx
import pytest

from tests.demo.standin_machine import SESSION, App, until
from tests.gate.comfyui import MARK
from tests.gate.front import Front, certificate, front
from vm_setup.base.tls import Tls
from vm_setup.setup import web

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "BREW")
PATHS = (
    *(
        "/",
        "/prompt",
        "/api/prompt",
        "/queue",
        "/view?filename=x",
        "/ws",
        "/internal/logs",
        "/userdata/../../etc/passwd",
    ),
    *(
        "/_host/activity",
        "/_host/../prompt",
        "/_host/gate/../../prompt",
        "/_host/%2e%2e/prompt",
        "//prompt",
        "/./prompt",
    ),
    *("/.well-known/acme-challenge/../../prompt", "/.well-known/acme-challenge/x", "/.well-known/acme-challenge"),
    *("/_host/verify", "/_host/pages/warming.html", "/_host/pages/../../prompt", "/%5f%68ost/../prompt", "/\\prompt"),
    *("/prompt%00", "/?ticket=x", "/verify", "/enter", "/_HOST/gate", "/_host%2f..%2fprompt", "/" + "a" * 3000),
)


@pytest.fixture(params=["http", pytest.param("https", marks=pytest.mark.slow)])
async def machine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Front]:
    tls = certificate(tmp_path) if request.param == "https" else Tls()
    async with front(tmp_path, tls=tls) as made:
        yield made


def nothing_of_comfyui(machine: Front) -> None:
    assert machine.comfyui.lines == []


async def worthless_cookies(machine: Front) -> list[str]:
    """Cookies that were good, are nearly good, or are good for something else."""
    out = await machine.entered(sub="logged-out")
    old = await machine.entered(session_exp=time.time() + 1)
    good = await machine.entered()
    value = good.cookies["comfyweb_gate"]
    machine.gate.revoke("logged-out")
    await machine.gate.heard()
    machine.gate.clocks.moved = 2
    names = ["", f"comfyweb_gate={out.cookies['comfyweb_gate']}", f"comfyweb_gate={old.cookies['comfyweb_gate']}"]
    tampered = [value[:-1] + ("A" if value[-1] != "A" else "B"), value[1:], value + "A", value.swapcase(), "a" * 5000]
    names += [f"comfyweb_gate={each}" for each in tampered]
    return [*names, f"comfyweb-gate={value}", f"auth-token={value}", machine.gate.app.ticket(), "comfyweb_gate"]


@pytest.mark.parametrize("http2", [False, True])
async def test_every_path_and_method_without_a_cookie(machine: Front, *, http2: bool) -> None:
    stranger = machine.browser(http2=http2)
    for method, path in itertools.product(METHODS, PATHS):
        answer = await stranger.request(method, httpx.URL(machine.url).copy_with(raw_path=path.encode()))
        assert answer.status_code in {400, 401, 403, 404, 405, 411, 429, 501}, (method, path, answer.status_code)
        assert MARK[:20] not in answer.text
    nothing_of_comfyui(machine)


async def test_every_cookie_that_is_no_longer_or_never_was_good(machine: Front) -> None:
    stranger = machine.browser()
    for cookie in await worthless_cookies(machine):
        for method, path in (
            ("GET", "/"),
            ("POST", "/api/prompt"),
            ("GET", "/view?filename=x"),
            ("POST", "/_host/activity"),
        ):
            answer = await stranger.request(method, path, headers={"Cookie": cookie} if cookie else {})
            assert answer.status_code == 401, (cookie, path)
        assert await machine.websocket(stranger, **({"Cookie": cookie} if cookie else {})) is None
    nothing_of_comfyui(machine)
    assert machine.keeper.uses == 0


@pytest.mark.parametrize("path", ["/ws?clientId=1", "/", "/prompt", "/_host/status", "/_host/gate", "/_host/activity"])
async def test_a_stranger_s_websocket_is_refused_wherever_it_knocks(machine: Front, path: str) -> None:
    for headers in ({}, {"Cookie": "comfyweb_gate=x"}, {"Origin": machine.url}, {"Origin": "https://evil.example"}):
        assert await machine.websocket(machine.browser(), path, **headers) is None
    nothing_of_comfyui(machine)


async def test_tickets_that_were_used_or_are_somebody_s_own(machine: Front) -> None:
    used = machine.gate.app.ticket()
    await machine.browser().get("/_host/gate", params={"ticket": used})
    forged = App(machine.gate.clocks, machine.gate.app.origin).ticket()
    stranger = machine.browser()
    for ticket in (used, forged, "", "x.y.z", machine.gate.app.ticket(aud="host:another/zone/machine")):
        answer = await stranger.get("/_host/gate", params={"ticket": ticket}, headers={"Accept": "text/html"})
        assert answer.status_code == 401
        assert "Please log in" in answer.text
        assert not stranger.cookies
    assert (await stranger.get("/")).status_code == 401
    nothing_of_comfyui(machine)


def request(line: str, *headers: str, then: str = "") -> str:
    """Return the bytes of a request after which the connection ends, and of what follows it."""
    kept = any(header.startswith("Connection") for header in headers)
    return "\r\n".join([line, "Host: x", *headers, *(() if kept else ("Connection: close",)), "", then])


ANOTHER = request("GET /prompt HTTP/1.1")
ODD = {
    "an old protocol": request("GET /prompt HTTP/1.0"),
    "a request for a proxy": request("GET http://127.0.0.1:8188/prompt HTTP/1.1"),
    "a tunnel": request("CONNECT 127.0.0.1:8188 HTTP/1.1"),
    "a fragment": request("GET /_host/health#/../prompt HTTP/1.1"),
    "a tab": request("POST /_host/acti\tvity HTTP/1.1"),
    "a blank of Python alone": request("POST /_host/activity\xa0 HTTP/1.1", "Content-Length: 0"),
    "a line's end of Python alone": request("POST /_host/activity\x85 HTTP/1.1", "Content-Length: 0"),
    "what nginx tells the keeper": request(
        "POST /_host/x/..;/activity HTTP/1.1", "Content-Length: 0", "X-Comfyweb-Entered: yes"
    ),
    "two lengths": request(
        "POST /prompt HTTP/1.1", "Content-Length: 5", "Transfer-Encoding: chunked", then="0\r\n\r\n" + ANOTHER
    ),
    "a request in a body": request("POST /_host/health HTTP/1.1", f"Content-Length: {len(ANOTHER)}", then=ANOTHER),
    "what nginx tells the gate": request(
        "GET / HTTP/1.1", "X-Original-URI: /", "X-Original-Method: GET", "X-Comfyweb-Closed: no"
    ),
    "what ComfyUI may tell nginx": request("GET / HTTP/1.1", "X-Accel-Redirect: /prompt"),
    "another protocol": request(
        "GET / HTTP/1.1",
        "Upgrade: h2c",
        "Connection: Upgrade, HTTP2-Settings, close",
        "HTTP2-Settings: AAMAAABkAAQAAP__",
    ),
    "a websocket of no version": request(
        "GET /ws HTTP/1.1", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 99", then=ANOTHER
    ),
    "TLS": "\x16\x03\x01\x00\xa5\x01\x00\x00",
    "HTTP/2 from the start": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("what", ODD)
async def test_what_no_browser_would_send(machine: Front, what: str) -> None:
    told = await machine.raw(ODD[what])
    assert MARK[:20] not in told
    assert " 101 " not in told
    nothing_of_comfyui(machine)
    assert machine.keeper.uses == 0


async def test_the_host_s_api_is_the_app_s_alone(machine: Front) -> None:
    browser = await machine.entered()
    ticket = {"Authorization": f"Bearer {machine.gate.app.ticket()}"}
    for path in ("/_host/status", "/_host/logs"):
        for headers in ({}, {"Authorization": "Bearer x"}, ticket, {"X-Forwarded-For": "127.0.0.1"}):
            assert (await browser.get(path, headers=headers)).status_code == 401
    for method, path in (("POST", "/_host/drain"), ("DELETE", "/_host/drain"), ("POST", "/_host/revoke")):
        assert (await browser.request(method, path, headers=ticket)).status_code == 401
    assert machine.keeper.commands == []
    assert (await machine.call("GET", "/_host/status")).json() == {"everything": True}
    assert (await machine.call("GET", "/_host/logs?lines=1")).text == "a line\n"
    assert (await machine.call("POST", "/_host/revoke", {"session": SESSION})).status_code == 200


async def test_strangers_learn_whether_it_starts_or_is_ready_and_nothing_else(machine: Front) -> None:
    stranger = machine.browser()
    assert (await stranger.get("/_host/health")).json() == {"phase": "ready"}
    answer = await stranger.get("/")
    assert "nginx/" not in answer.headers["server"]
    machine.gate.say(ready=False)
    await machine.gate.heard()
    assert (await stranger.get("/_host/health")).json() == {"phase": "warming"}


async def test_a_stranger_s_long_body_is_not_waited_for(machine: Front) -> None:
    head = "POST /upload/image HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\nConnection: close\r\n\r\n"
    assert (await machine.raw(head, whole=False)).startswith("HTTP/1.1 401")
    slow = "POST /_host/gate HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\nConnection: close\r\n\r\n"
    assert (await machine.raw(slow, whole=False)).startswith("HTTP/1.1 413")
    nothing_of_comfyui(machine)


async def test_a_stranger_who_calls_too_often_is_slowed_and_the_others_are_not(machine: Front) -> None:
    stranger = machine.browser()
    said = [(await stranger.get("/_host/gate", params={"ticket": "x"})).status_code for _ in range(80)]
    assert set(said) == {401, 429}
    assert (await stranger.get("/")).status_code == 401


async def test_who_has_many_addresses_of_ipv6_is_counted_as_one(tmp_path: Path) -> None:
    believing = f"set_real_ip_from 127.0.0.0/8;\nreal_ip_header CF-Connecting-IP;\n{web.EVERYBODY}"
    async with front(tmp_path, visitors=believing) as machine:
        stranger = machine.browser()

        async def said(address: str) -> int:
            asked = {"ticket": "x"}
            return (await stranger.get("/_host/gate", params=asked, headers={"CF-Connecting-IP": address})).status_code

        assert {await said(f"203.0.113.{number}") for number in range(80)} == {401}
        assert {await said(f"2001:db8:a0a:a0a:{number:x}::a0a") for number in range(80)} == {401, 429}
        assert await said("2001:db8:a0a:a0b::a0a") == 401


@pytest.mark.slow
async def test_a_request_that_does_not_get_on_is_ended_before_it_has_begun(machine: Front) -> None:
    began = "GET / HTTP/1.1\r\nHost: x\r\nX-And: "
    reader, writer = await asyncio.open_connection("localhost", machine.port)  # neither TLS nor a word
    waiting = (machine.raw(began), machine.raw(""), asyncio.wait_for(reader.read(), 20))
    for said in await asyncio.gather(*waiting, return_exceptions=True):
        assert not said or isinstance(said, ConnectionResetError)
    writer.close()
    assert "client_header_timeout 5s;" in machine.config.read_text()


async def test_what_strangers_do_wrong_is_not_written_down(machine: Front) -> None:
    before, piece = machine.log.read_text(), "x" * 1000
    for path in ("/", "/_host/status", "/_host/activity", "/_host/gate", "/_host/../x", f"/_host/{piece}"):
        for length in (100_000, 99_999_999_999):
            await machine.raw(request(f"POST {path} HTTP/1.1", f"Content-Length: {length}"), whole=False)
    await machine.browser().post("/_host/keep-alive", content=piece * 60)
    if machine.https:
        async with httpx.AsyncClient(trust_env=False) as plain:
            answer = await plain.post(f"http://localhost:{machine.site.http}/x", content=piece * 2000)
        assert answer.status_code == 307
    assert machine.log.read_text() == before


@pytest.mark.slow  # It has to be waited for.
async def test_a_stranger_can_hold_few_connections_with_slow_bodies_and_none_for_long(tmp_path: Path) -> None:
    slow = request("POST /_host/keep-alive HTTP/1.1", "Content-Length: 1000", then="x")
    async with front(tmp_path) as machine:
        asked = [asyncio.create_task(machine.raw(slow, whole=False)) for _ in range(40)]
        await until(lambda: asyncio.sleep(0, sum(each.done() for each in asked) == 8))
        assert {each.result() for each in asked if each.done()} == {"HTTP/1.1 429 Too Many Requests\r\n"}
        said = await asyncio.gather(*asked, return_exceptions=True)
        assert not any(isinstance(each, TimeoutError) for each in said)
        assert machine.keeper.commands == []
