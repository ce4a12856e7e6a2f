"""What nginx lets through to ComfyUI and back, and what it says when somebody behind it is away."""

import asyncio
import gzip
import os
import re
import shutil
import ssl
import warnings
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from tests.demo.standin_machine import APP, SESSION, until
from tests.gate.comfyui import MARK
from tests.gate.front import Front, certificate, front, written
from vm_setup.base.tls import Tls
from vm_setup.keeper import cutting

HTML = {"Accept": "text/html,application/xhtml+xml"}


@pytest.fixture
async def plain(tmp_path: Path) -> AsyncGenerator[Front]:
    async with front(tmp_path) as made:
        yield made


@pytest.fixture(params=["http", "https"])
async def machine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Front]:
    tls = certificate(tmp_path) if request.param == "https" else Tls()
    async with front(tmp_path, tls=tls) as made:
        yield made


async def test_a_ticket_opens_comfyui_which_never_sees_a_cookie(machine: Front) -> None:
    browser = await machine.entered()
    value = browser.cookies["comfyweb_gate"]
    browser.cookies.set("other", "one")
    for method, path in (("GET", "/"), ("GET", "/view?filename=a%20b&x=%2F"), ("POST", "/api/prompt"), ("PUT", "/x")):
        answer = await browser.request(method, path, headers={"X-Mine": "yes"})
        assert (answer.status_code, answer.text) == (200, MARK)
        asked = machine.comfyui.asked[-1]
        assert asked.line == f"{method} {path} HTTP/1.1"
        assert asked.headers["host"] == f"localhost:{machine.port}"
        assert asked.headers["x-mine"] == "yes"
        assert asked.headers["x-forwarded-proto"] == ("https" if machine.https else "http")
    ear = await machine.websocket(browser)
    assert ear is not None
    ear.close()
    assert value not in str(machine.comfyui.asked)
    assert "cookie" not in str(machine.comfyui.asked).lower()


async def test_the_cookie_is_what_the_contract_says(machine: Front) -> None:
    answer = await machine.browser().get("/_host/gate", params={"ticket": machine.gate.app.ticket()})
    more = "HttpOnly; Secure; SameSite=None; Partitioned" if machine.https else "HttpOnly; SameSite=Lax"
    assert re.fullmatch(rf"comfyweb_gate=[\w-]{{43}}; Path=/; {more}", answer.headers["set-cookie"])
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"
    quiet = {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Site": "cross-site"}
    renewed = await machine.browser().get("/_host/gate", params={"ticket": machine.gate.app.ticket()}, headers=quiet)
    assert renewed.status_code == 204
    assert "set-cookie" in renewed.headers


async def test_a_revoke_by_the_app_ends_cookies_tickets_and_open_websockets(machine: Front) -> None:
    mine, other = await machine.entered(), await machine.entered(sub="another")
    early = machine.gate.app.ticket()
    ears = [await machine.websocket(mine), await machine.websocket(other)]
    assert all(ears)
    assert (await machine.call("POST", "/_host/revoke", {"session": SESSION})).status_code == 200
    assert ears[0] is not None
    assert ears[1] is not None
    await ears[0].listen_to_the_end()
    assert (await mine.get("/")).status_code == 401
    assert (await machine.browser().get("/_host/gate", params={"ticket": early})).status_code == 401
    assert (await other.get("/")).status_code == 200
    assert ears[1].code is None
    ears[1].close()


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ss") is None, reason="root ends connections, by ss (iproute2)")
async def test_a_revoke_cuts_off_what_its_session_has_under_way_and_nothing_of_others(machine: Front) -> None:
    mine, other = await machine.entered(), await machine.entered(sub="another")

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 1000
            await asyncio.sleep(0.02)

    async with mine.stream("GET", "/stream") as own, other.stream("GET", "/stream") as others:
        upload = asyncio.create_task(mine.post("/upload/image", content=endless()))
        heard, still = own.aiter_raw(), others.aiter_raw()
        await anext(heard)
        await until(lambda: asyncio.sleep(0, machine.comfyui.open == 3))
        machine.gate.revoke(SESSION)
        await machine.gate.heard()
        cutting.cut(SESSION, machine.comfyui.port)
        with pytest.raises(httpx.TransportError):
            async for _ in heard:
                pass
        await until(lambda: asyncio.sleep(0, machine.comfyui.open == 1))
        for _ in range(10):
            await anext(still)
        assert machine.comfyui.open == 1
        upload.cancel()  # nginx throws away for half a minute more what it goes on to send
        await asyncio.wait({upload})


@pytest.mark.parametrize("origin", ["https://evil.example.com", "null", APP, "http://localhost", "https://localhost:1"])
async def test_a_page_of_another_origin_is_refused_even_with_the_cookie(machine: Front, origin: str) -> None:
    browser = await machine.entered()
    for path in ("/", "/api/prompt", "/_host/activity", "/_host/drain"):
        for headers in ({"Origin": origin}, {"Origin": f"{machine.url} {origin}"}, {"Origin": f"{machine.url}x"}):
            assert (await browser.post(path, headers=headers)).status_code == 403
    assert await machine.websocket(browser, origin=origin) is None
    assert machine.comfyui.asked == []
    assert machine.keeper.uses == 0


async def test_comfyui_s_own_page_is_let_through(machine: Front) -> None:
    browser, own = await machine.entered(), {"Origin": machine.url, "Sec-Fetch-Site": "same-origin"}
    assert (await browser.post("/api/prompt", headers=own)).status_code == 200
    assert machine.comfyui.asked[-1].headers["sec-fetch-site"] == "same-origin"
    assert (await browser.post("/_host/activity", headers=own)).status_code == 204
    assert machine.keeper.uses == 1
    ear = await machine.websocket(browser, origin=machine.url)
    assert ear is not None
    ear.close()


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_from_another_site_or_name_only_the_page_itself_can_be_opened(plain: Front, site: str) -> None:
    browser = await plain.entered()
    cross = {"Sec-Fetch-Site": site}
    page = await browser.get("/", headers={**cross, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"})
    assert page.status_code == 200
    assert "sec-fetch-site" not in plain.comfyui.asked[-1].headers  # ComfyUI from 0.19 on would refuse it
    seen = len(plain.comfyui.asked)
    for method, path, mode in (
        ("GET", "/", "no-cors"),
        ("POST", "/", "navigate"),
        ("GET", "/view?filename=x", "navigate"),
        ("GET", "/view?filename=x", "no-cors"),
        ("GET", "/api/queue", "cors"),
        ("GET", "//", "no-cors"),
        ("GET", "/x/", "navigate"),
        ("POST", "/prompt", "navigate"),
    ):
        answer = await browser.request(method, path, headers={**cross, "Sec-Fetch-Mode": mode})
        assert answer.status_code == 403, path
    assert len(plain.comfyui.asked) == seen


async def test_a_large_upload_streams_through_as_it_comes(plain: Front) -> None:
    browser, piece = await plain.entered(), b"x" * (1 << 20)
    seen: list[int] = []

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(64):
            yield piece
            if number == 8:
                for _ in range(500):  # ComfyUI hears of it long before its end
                    if plain.comfyui.asked:
                        break
                    await asyncio.sleep(0.01)
                seen.append(len(plain.comfyui.asked))

    answer = await browser.post("/upload/image", content=pieces())
    assert answer.status_code == 200
    assert seen == [1]
    assert plain.comfyui.asked[-1].body == 64 << 20
    sized = await browser.post("/upload/image", content=piece * 150, headers={"Content-Type": "image/png"})
    assert sized.status_code == 200
    assert plain.comfyui.asked[-1].body == 150 << 20


async def test_answers_are_packed_for_who_can_unpack_them(plain: Front) -> None:
    browser = await plain.entered()
    async with browser.stream("GET", "/object_info", headers={"Accept-Encoding": "gzip"}) as answer:
        assert answer.headers["content-encoding"] == "gzip"
        raw = b"".join([part async for part in answer.aiter_raw()])
    assert gzip.decompress(raw).decode() == MARK
    unpacked = await browser.get("/object_info", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in unpacked.headers


async def test_only_the_app_may_frame_whatever_is_answered(machine: Front) -> None:
    browser, stranger = await machine.entered(), machine.browser()
    entering = {"ticket": machine.gate.app.ticket()}
    answers = [await browser.get("/"), await browser.get("/api/queue"), await stranger.get("/", headers=HTML)]
    answers += [await stranger.get("/_host/gate", params=entering), await stranger.get("/_host/gate")]
    for answer in answers:
        assert answer.headers.get_list("content-security-policy") == [f"frame-ancestors {APP}"]
        assert answer.headers["x-content-type-options"] == "nosniff"
    health = await stranger.get("/_host/health")
    assert health.headers["content-security-policy"] == "frame-ancestors 'none'"


async def test_code_in_comfyui_can_not_speak_for_nginx(plain: Front) -> None:
    browser = await plain.entered()
    plain.comfyui.extra = {
        "X-Accel-Redirect": "/_host/status",
        "Set-Cookie": "comfyweb_gate=mine; Path=/",
        "X-Frame-Options": "DENY",
        "X-Comfyweb-Parent": "https://evil.example.com",
        "Strict-Transport-Security": "max-age=31536000; includeSubDomains",
        "X-Comfyweb-Closed": "draining",
    }
    answer = await browser.get("/")
    assert (answer.status_code, answer.text) == (200, MARK)
    assert "set-cookie" not in answer.headers
    assert "x-frame-options" not in answer.headers
    assert "strict-transport-security" not in answer.headers
    assert answer.headers["content-security-policy"] == f"frame-ancestors {APP}"


async def test_code_in_comfyui_s_page_can_not_stay_in_the_browser(machine: Front) -> None:
    browser, seen = await machine.entered(), len(machine.comfyui.asked)
    worker = {"Service-Worker": "script", "Sec-Fetch-Dest": "serviceworker", "Sec-Fetch-Site": "same-origin"}
    for path in ("/sw.js", "/extensions/a/sw.js", "/_host/gate?ticket=x"):
        assert (await browser.get(path, headers=worker)).status_code == 403
    assert len(machine.comfyui.asked) == seen


async def test_while_comfyui_starts_people_get_a_page_and_programs_get_words(machine: Front) -> None:
    browser, stranger = await machine.entered(), machine.browser()
    machine.gate.say(ready=False)
    await machine.gate.heard()
    for who in (browser, stranger):
        page = await who.get("/", headers=HTML)
        assert (page.status_code, page.headers["retry-after"]) == (503, "2")
        assert page.headers["content-type"] == "text/html"
        assert "ComfyUI is starting" in page.text
        assert page.headers["cache-control"] == "no-store"
        said = await who.post("/api/prompt", json={})
        assert (said.status_code, said.headers["content-type"]) == (503, "application/json")
        assert "ComfyUI is starting" in said.json()["error"]
    assert await machine.websocket(browser) is None


async def test_while_comfyui_is_away_the_same_is_said_to_who_is_in_and_strangers_stay_out(tmp_path: Path) -> None:
    async with front(tmp_path) as machine:
        browser, stranger = await machine.entered(), machine.browser()
        machine.stop()
        machine.gate.comfyui.port = 1
        machine.site = replace(machine.site, comfyui=machine.gate.world.comfyui)
        await machine.start()
        page = await browser.get("/", headers=HTML)
        assert (page.status_code, page.headers["retry-after"]) == (503, "2")
        assert "ComfyUI is starting" in page.text
        assert (await browser.post("/api/prompt", json={})).status_code == 503
        assert (await stranger.get("/", headers=HTML)).status_code == 401


async def test_a_drain_refuses_new_prompts_with_words_in_comfyui_s_own_form(plain: Front) -> None:
    browser, stranger = await plain.entered(), plain.browser()
    for stays, words in ((False, "about to stop"), (True, "longest session")):
        plain.gate.say(draining=True, stays=stays)
        await plain.gate.heard()
        for path in ("/prompt", "/api/prompt"):
            answer = await browser.post(path, json={"prompt": "x" * 2_000_000})
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "60")
            assert words in answer.json()["error"]["message"]
            assert answer.json()["node_errors"] == {}
            assert (await stranger.post(path)).status_code == 401
        assert plain.comfyui.asked == []
    assert (await browser.get("/api/queue")).status_code == 200
    assert (await browser.post("/upload/image")).status_code == 200


async def test_while_the_gate_is_dead_nobody_gets_through_and_that_is_said(machine: Front) -> None:
    browser = await machine.entered()
    await machine.gate.kill()
    page = await browser.get("/", headers=HTML)
    assert (page.status_code, page.headers["retry-after"]) == (503, "2")
    assert "nobody is let in" in page.text
    assert page.headers["content-security-policy"] == "frame-ancestors 'none'"
    assert "nobody is let in" in (await browser.post("/api/prompt")).json()["error"]
    ticket = machine.gate.app.ticket()
    entering = await machine.browser().get("/_host/gate", params={"ticket": ticket}, headers=HTML)
    assert entering.status_code == 503
    assert "nobody is let in" in entering.text
    assert await machine.websocket(browser) is None
    assert machine.comfyui.asked == []
    assert (await machine.browser().get("/_host/health")).status_code == 200
    await machine.gate.start()
    assert (await browser.get("/")).status_code == 200
    assert (await machine.browser().get("/_host/gate", params={"ticket": ticket})).status_code == 303


async def test_while_the_keeper_is_dead_its_calls_say_so_and_who_is_in_works_on(plain: Front) -> None:
    browser = await plain.entered()
    plain.server.shutdown()
    plain.server.server_close()
    for answer in (await plain.browser().get("/_host/health"), await browser.post("/_host/activity")):
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert "keeper doesn't answer" in answer.json()["error"]
    assert (await browser.get("/")).status_code == 200


async def test_a_keeper_that_is_silent_for_long_lets_nobody_new_in(plain: Front) -> None:
    browser = await plain.entered()
    plain.gate.clocks.moved = 31
    entering = await plain.browser().get("/_host/gate", params={"ticket": plain.gate.app.ticket()}, headers=HTML)
    assert entering.status_code == 503
    assert (await browser.get("/")).status_code == 200


async def test_no_ticket_and_no_cookie_is_written_down_anywhere(machine: Front) -> None:
    tickets = [machine.gate.app.ticket() for _ in range(4)]
    stranger = machine.browser()
    browser = await machine.entered()
    await stranger.get("/_host/gate", params={"ticket": tickets[0]})
    await stranger.get("/_host/gate", params={"ticket": tickets[0]})
    await stranger.post("/_host/gate", params={"ticket": tickets[1]}, content=b"x" * 5000)
    await machine.gate.kill()
    await stranger.get("/_host/gate", params={"ticket": tickets[2]})
    await browser.get("/", headers={"Referer": f"{machine.url}/_host/gate?ticket={tickets[3]}"})
    for page in machine.site.pages.glob("silent.*"):
        page.unlink()
    await stranger.get("/_host/gate", params={"ticket": tickets[2]})
    for _ in range(80):
        await stranger.get("/_host/gate", params={"ticket": tickets[1]})
    texts = dict(written(machine))
    assert any("calls.sock failed" in text for text in texts.values()), "something must have gone wrong in the log"
    for path, text in texts.items():
        for secret in (*(each.rpartition(".")[2] for each in tickets[:3]), browser.cookies["comfyweb_gate"]):
            assert secret not in text, path


@pytest.mark.parametrize("trusted", [False, True])
async def test_only_with_a_certificate_that_is_trusted_browsers_are_held_to_https(
    tmp_path: Path, *, trusted: bool
) -> None:
    async with front(tmp_path, tls=certificate(tmp_path, trusted=trusted)) as machine:
        browser, stranger = await machine.entered(), machine.browser()
        for answer in (await browser.get("/"), await stranger.get("/"), await stranger.get("/_host/health")):
            expected = ["max-age=31536000"] if trusted else []
            assert answer.headers.get_list("strict-transport-security") == expected


async def test_browsers_speak_http2_and_tls_from_1_2_on(tmp_path: Path) -> None:
    async with front(tmp_path, tls=certificate(tmp_path)) as machine:
        browser = machine.browser(http2=True)
        entering = await browser.get("/_host/gate", params={"ticket": machine.gate.app.ticket()})
        assert (entering.status_code, entering.http_version) == (303, "HTTP/2")
        answer = await browser.post("/api/prompt", content=b"{}", headers={"Origin": machine.url})
        assert (answer.status_code, answer.http_version, answer.text) == (200, "HTTP/2", MARK)
        assert machine.comfyui.asked[-1].headers["host"] == f"localhost:{machine.port}"
        assert "cookie" not in machine.comfyui.asked[-1].headers
        stranger = machine.browser(http2=True)
        assert (await stranger.get("/")).status_code == 401
        for version, spoken in ((ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True)):
            assert await speaks(machine, version) is spoken


async def speaks(machine: Front, version: ssl.TLSVersion) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    try:
        _, writer = await asyncio.open_connection("localhost", machine.port, ssl=context)
    except (ssl.SSLError, ConnectionError):
        return False
    writer.close()
    return True


async def test_http_leads_to_https_and_answers_the_certificate_s_question_to_everybody(tmp_path: Path) -> None:
    nobody = "geo $comfyweb_visitor {\n  default 0;\n}\n"
    for tls in (certificate(tmp_path), Tls()):
        folder = tmp_path / tls.mode
        folder.mkdir()
        async with front(folder, tls=tls, visitors=nobody) as machine:
            question = machine.site.paths.state / "acme/.well-known/acme-challenge/question"
            question.parent.mkdir(parents=True)
            question.write_text("the answer")
            stranger = machine.browser()
            http = f"http://localhost:{machine.site.http}"
            answer = await stranger.get(f"{http}/.well-known/acme-challenge/question")
            assert (answer.status_code, answer.text) == (200, "the answer")
            assert (await stranger.get(f"{http}/.well-known/acme-challenge/../../secret")).status_code in {307, 403}
            for path in ("/", "/_host/health", "/_host/gate?ticket=x"):
                answer = await stranger.get(f"{machine.url}{path}")
                assert (answer.status_code, "not among those" in answer.text) == (403, True)
            if machine.https:
                answer = await stranger.get(f"{http}/view?filename=a%20b")
                assert answer.status_code == 307
                assert answer.headers["location"] == f"{machine.url}/view?filename=a%20b"


async def test_an_idle_websocket_is_not_ended_after_a_minute(plain: Front) -> None:
    assert "proxy_read_timeout 24h" in plain.config.read_text()  # ComfyUI sends no pings
    ear = await plain.websocket(await plain.entered())
    assert ear is not None
    ear.close()
