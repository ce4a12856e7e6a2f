"""The stand-in's gate: nothing of ComfyUI without a cookie, nothing of the host without a token."""

import time
from collections.abc import AsyncGenerator

import pytest

from tests.demo.standin_machine import APP, SESSION, Machine, machine, websocket

COMFYUI_PATHS = ["/", "/api/queue", "/prompt", "/page/main.js", "/view?filename=x", "/nowhere"]


@pytest.fixture
async def ready() -> AsyncGenerator[Machine]:
    async with machine() as made:
        yield made


async def test_a_ticket_opens_the_page(ready: Machine) -> None:
    async with ready.browser() as browser:
        answer = await browser.get("/_host/gate", params={"ticket": ready.app.ticket()})
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith("comfyweb_gate=")
        assert cookie.endswith("; Path=/; HttpOnly; SameSite=Lax")
        page = await browser.get("/")
        assert page.status_code == 200
        assert "stand-in for ComfyUI" in page.text


@pytest.mark.parametrize("path", COMFYUI_PATHS)
async def test_a_stranger_gets_no_byte_of_comfyui(ready: Machine, path: str) -> None:
    async with ready.browser() as stranger:
        for method in ("GET", "POST"):
            answer = await stranger.request(method, path)
            assert answer.status_code == 401
            assert "Please log in" in answer.text
        assert await websocket(stranger) is None


async def test_a_ticket_opens_once(ready: Machine) -> None:
    ticket = ready.app.ticket()
    async with ready.browser() as first, ready.browser() as second:
        assert (await first.head("/_host/gate", params={"ticket": ticket})).status_code == 405
        assert (await first.get("/_host/gate", params={"ticket": ticket})).status_code == 303
        assert (await second.get("/_host/gate", params={"ticket": ticket})).status_code == 401


@pytest.mark.parametrize("ticket", ["", "x.y.z", "é" * 100, "a" * 9000])
async def test_a_ticket_that_is_none_opens_nothing(ready: Machine, ticket: str) -> None:
    async with ready.browser() as stranger:
        answer = await stranger.get("/_host/gate", params={"ticket": ticket})
        assert answer.status_code == 401
        assert "set-cookie" not in answer.headers


async def test_a_frame_renews_its_cookie_quietly(ready: Machine) -> None:
    async with ready.browser() as browser:
        query = {"ticket": ready.app.ticket()}
        answer = await browser.get("/_host/gate", params=query, headers={"Sec-Fetch-Mode": "no-cors"})
        assert answer.status_code == 204
        assert (await browser.get("/")).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example.com", "null", "http://localhost:1", APP])
async def test_a_page_of_another_origin_is_refused_even_with_the_cookie(ready: Machine, origin: str) -> None:
    async with ready.entered() as browser:
        for path in ("/", "/_host/activity", "/api/prompt", "/demo/idle"):
            assert (await browser.post(path, headers={"Origin": origin})).status_code == 403
        assert await websocket(browser, origin=origin) is None


async def test_comfyuis_own_page_is_let_through(ready: Machine) -> None:
    async with ready.entered() as browser:
        answer = await browser.post("/_host/activity", headers={"Origin": ready.url})
        assert answer.status_code == 204
        ear = await websocket(browser, origin=ready.url)
        assert ear is not None
        ear.close()


async def test_only_the_app_may_frame_what_is_answered(ready: Machine) -> None:
    async with ready.entered() as browser, ready.browser() as stranger:
        for answer in (await browser.get("/"), await browser.get("/api/queue"), await stranger.get("/")):
            assert f"frame-ancestors {APP}" in answer.headers["content-security-policy"]


async def test_the_page_runs_nothing_but_its_own_files(ready: Machine) -> None:
    async with ready.entered() as browser:
        policy = (await browser.get("/")).headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'" in policy
        assert "unsafe" not in policy


async def test_a_browser_at_the_number_is_sent_to_the_name(ready: Machine) -> None:
    async with ready.browser() as browser:
        answer = await browser.get(ready.url.replace("localhost", "127.0.0.1") + "/api/queue?x=1")
        assert answer.status_code == 307
        assert answer.headers["location"] == f"{ready.url}/api/queue?x=1"


async def test_anyone_may_ask_for_the_health_and_hears_nothing_else(ready: Machine) -> None:
    async with ready.browser() as stranger:
        assert (await stranger.get("/_host/health")).json() == {"phase": "ready"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/_host/status"),
        ("GET", "/_host/logs"),
        ("POST", "/_host/keep-alive"),
        ("POST", "/_host/extend"),
        ("POST", "/_host/drain"),
        ("DELETE", "/_host/drain"),
        ("POST", "/_host/revoke"),
        ("POST", "/_host/nothing"),
    ],
)
async def test_the_hosts_api_is_the_apps_alone(ready: Machine, method: str, path: str) -> None:
    ticket = {"Authorization": f"Bearer {ready.app.ticket()}"}
    async with ready.entered() as browser:
        for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": "Basic eDp5"}, ticket):
            assert (await browser.request(method, path, headers=headers)).status_code == 401


async def test_a_body_that_is_too_long_is_not_read_to_its_end(ready: Machine) -> None:
    async with ready.browser() as browser:
        answer = await ready.app.call(browser, "POST", "/_host/extend", {"minutes": 30, "x": "x" * 70000})
        assert answer.status_code == 401


async def test_a_command_with_wrong_values_is_refused_with_words(ready: Machine) -> None:
    async with ready.browser() as browser:
        answer = await ready.app.call(browser, "POST", "/_host/extend", {"minutes": "all day"})
        assert answer.status_code == 400
        assert "values" in answer.json()["error"]


async def test_a_revoke_kills_cookies_tickets_and_open_websockets_of_its_session(ready: Machine) -> None:
    early = ready.app.ticket()
    async with ready.entered() as browser:
        ear = await websocket(browser)
        assert ear is not None
        assert (await ready.app.call(browser, "POST", "/_host/revoke", {"session": SESSION})).status_code == 200
        assert await ear.listen_to_the_end() == 1008
        ear.close()
        assert (await browser.get("/")).status_code == 401
        assert (await browser.get("/_host/gate", params={"ticket": early})).status_code == 401
        other = await browser.get("/_host/gate", params={"ticket": ready.app.ticket(sub="another")})
        assert other.status_code == 303


async def test_a_websocket_ends_with_its_session(ready: Machine) -> None:
    async with ready.browser() as browser:
        ticket = ready.app.ticket(session_exp=time.time() + 1000)
        await browser.get("/_host/gate", params={"ticket": ticket})
        ear = await websocket(browser)
        assert ear is not None
        ready.clocks.moved = 1000
        assert await ear.listen_to_the_end() == 1008
        ear.close()


async def test_an_open_websocket_keeps_its_cookie_alive(ready: Machine) -> None:
    async with ready.browser() as browser:
        await browser.get("/_host/gate", params={"ticket": ready.app.ticket(session_exp=time.time() + 86400)})
        ear = await websocket(browser)
        assert ear is not None
        for hour in range(1, 4):
            ready.clocks.moved = hour * 3500
            await ready.settled()
        assert (await browser.get("/api/queue")).status_code == 200
        ear.close()


async def test_the_log_shows_its_newest_lines_and_no_secret(ready: Machine) -> None:
    ticket = ready.app.ticket()
    async with ready.browser() as browser:
        await browser.get("/_host/gate", params={"ticket": ticket})
        await browser.get("/_host/gate", params={"ticket": ticket})
        full = await ready.app.call(browser, "GET", "/_host/logs")
        one = await ready.app.call(browser, "GET", "/_host/logs?lines=1")
        odd = await ready.app.call(browser, "GET", "/_host/logs?lines=all")
    assert "ticket refused: repeated" in one.text
    assert one.text.count("\n") == 1
    assert full.text == odd.text
    assert ticket not in full.text
