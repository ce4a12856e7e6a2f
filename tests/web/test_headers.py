"""What every answer carries, and to which names the app answers."""

from collections.abc import Mapping

import httpx
import pytest
from starlette.responses import HTMLResponse, JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from comfyweb.settings import Settings, load
from comfyweb.ui.headers import SecurityHeaders, page_policy
from comfyweb.ui.hosts import Hosts

REQUIRED = {
    "AUTH_PASSWORD": "a quiet river at dawn",
    "JWT_SECRET": "f8b1c2d3e4a5968778695a4b3c2d1e0f",
    "GCP_PROJECT": "demo-project",
}
HASH = "'sha256-7mu4H06fwDCjmnxxr/xNHyuQC6pLTHr4M2E4jXw5WZs='"


def settings(**more: str) -> Settings:
    return load(REQUIRED | more, None)


def policy(**more: str) -> dict[str, list[str]]:
    rules = (rule.split() for rule in page_policy(settings(**more), [HASH]).split(";"))
    return {name: sources for name, *sources in rules}


async def site(scope: Scope, receive: Receive, send: Send) -> None:
    page = scope["path"] in {"/", "/api/docs"}
    answer = HTMLResponse("page") if page else JSONResponse({"path": scope["path"]})
    await answer(scope, receive, send)


async def ask(app: SecurityHeaders | Hosts, url: str, method: str = "GET", host: str | None = None) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app)) as client:
        return await client.request(method, url, headers={} if host is None else {"host": host})


@pytest.mark.parametrize("path", ["/", "/api/docs", "/api/auth/check"])
async def test_every_answer_is_protected(path: str) -> None:
    answer = await ask(SecurityHeaders(site, settings(), [HASH]), f"http://localhost:3000{path}")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    assert "geolocation=()" in answer.headers["permissions-policy"]
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert len(answer.headers.get_list("content-security-policy")) == 1


async def test_what_is_no_page_may_load_nothing() -> None:
    answer = await ask(SecurityHeaders(site, settings(), [HASH]), "http://localhost:3000/api/auth/check")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")


def test_no_script_runs_but_ours() -> None:
    assert policy()["script-src"] == ["'self'", HASH]
    assert policy()["object-src"] == ["'none'"]
    assert policy()["base-uri"] == policy()["form-action"] == ["'self'"]


@pytest.mark.parametrize(
    ("more", "framed"),
    [
        ({}, ["'none'"]),
        ({"COMFYUI_URL": "http://203.0.113.7"}, ["'none'"]),
        ({"COMFYUI_URL": "http://localhost:3002"}, ["http://localhost:3002"]),
        ({"COMFYUI_DOMAIN": "comfy.example.com"}, ["https://comfy.example.com"]),
        ({"COMFYUI_DOMAIN": "comfy.example.com", "COMFYUI_URL": "https://t.example"}, ["https://t.example"]),
    ],
)
def test_comfyui_alone_may_be_framed_and_only_where_browsers_would(more: dict[str, str], framed: list[str]) -> None:
    assert policy(**more)["frame-src"] == framed
    assert policy(**more)["connect-src"][2:] == [origin for origin in framed if origin != "'none'"]


def test_the_page_may_open_its_own_websocket() -> None:
    assert policy(PUBLIC_URL="https://app.example.com:8443")["connect-src"] == ["'self'", "wss://app.example.com:8443"]


@pytest.mark.parametrize(
    ("url", "remembered"),
    [
        ("https://app.example.com", True),
        ("https://app.example.com:8443", True),
        ("https://10.example.com", True),
        ("http://app.example.com", False),
        ("https://localhost:8443", False),
        ("https://app.localhost", False),
        ("https://nas", False),
        ("https://127.0.0.1", False),
        ("https://192.168.1.5:8443", False),
        ("https://[2001:db8::1]", False),
    ],
)
async def test_https_is_remembered_of_a_name_of_its_own(url: str, *, remembered: bool) -> None:
    answer = await ask(SecurityHeaders(site, settings(PUBLIC_URL=url), []), url)
    assert answer.headers.get("strict-transport-security") == ("max-age=31536000" if remembered else None)


async def test_a_refused_websocket_is_answered_with_the_same_headers() -> None:
    async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.close", "code": 1008})

    sent = await _handshake(refusing, {"websocket.http.response": {}})
    assert [message["type"] for message in sent] == ["websocket.http.response.start", "websocket.http.response.body"]
    assert sent[0]["status"] == 403
    assert {name for name, _ in sent[0]["headers"]} >= {b"x-content-type-options", b"content-security-policy"}


async def test_a_websocket_that_was_let_in_is_closed_as_such() -> None:
    async def ending(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 1008})

    for extensions in ({"websocket.http.response": {}}, {}):
        sent = await _handshake(ending, extensions)
        assert [message["type"] for message in sent] == ["websocket.accept", "websocket.close"]


async def _handshake(app: ASGIApp, extensions: Mapping[str, object]) -> list[Message]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {"type": "websocket", "path": "/_event/", "headers": [], "extensions": extensions}
    await SecurityHeaders(app, settings(), [])(scope, _nothing, send)
    return sent


@pytest.mark.parametrize(
    ("host", "location"),
    [
        ("127.0.0.1:8080", "http://localhost:8080/login?a=%2f"),
        ("[::1]:3000", "http://localhost:3000/login?a=%2f"),
        ("127.0.0.1", "http://localhost/login?a=%2f"),
    ],
)
async def test_a_page_asked_for_by_address_is_sent_to_localhost(host: str, location: str) -> None:
    answer = await ask(Hosts(site, settings()), "http://x/login?a=%2f", host=host)
    assert (answer.status_code, answer.headers["location"]) == (307, location)


@pytest.mark.parametrize("path", ["/api/auth/login", "/healthz", "/readyz"])
async def test_programs_are_not_sent_elsewhere(path: str) -> None:
    assert (await ask(Hosts(site, settings()), f"http://x{path}", "POST", "127.0.0.1:3000")).status_code == 200


@pytest.mark.parametrize("host", ["localhost", "localhost:3000", "LOCALHOST:8080"])
async def test_localhost_is_answered_on_whatever_port_it_was_published(host: str) -> None:
    assert (await ask(Hosts(site, settings()), "http://x/", host=host)).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "evil.example:3000",
        "192.168.1.5:3000",
        "",
        "localhost:",
        "a@localhost",
        "127.0.0.1.nip.io",
        "localhost:3000:3000",
        "localhost:999999",
        " localhost",
    ],
)
async def test_another_name_is_refused_while_the_app_is_local(host: str) -> None:
    for path in ("/", "/api/auth/check", "/healthz"):
        assert (await ask(Hosts(site, settings()), f"http://x{path}", host=host)).status_code == 421


async def test_two_hosts_are_none() -> None:
    sent: list[int] = []

    async def send(message: object) -> None:
        assert isinstance(message, dict)
        sent.extend([message["status"]] if "status" in message else [])

    hosts = [(b"host", b"localhost:3000"), (b"host", b"evil.example")]
    scope: Scope = {"type": "http", "path": "/", "method": "GET", "query_string": b"", "headers": hosts}
    await Hosts(site, settings())(scope, _nothing, send)
    assert sent == [421]


@pytest.mark.parametrize(("host", "reached"), [(b"localhost:3000", True), (b"evil.example", False), (b"", False)])
async def test_a_websocket_to_another_name_is_closed(host: bytes, *, reached: bool) -> None:
    seen: list[str] = []

    async def inside(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append("inside")

    async def send(message: object) -> None:
        assert isinstance(message, dict)
        seen.append(message["type"])

    scope: Scope = {"type": "websocket", "path": "/_event/", "headers": [(b"host", host)]}
    await Hosts(inside, settings())(scope, _nothing, send)
    assert seen == (["inside"] if reached else ["websocket.close"])


async def test_a_public_app_answers_to_the_names_its_proxy_uses() -> None:
    hosts = Hosts(site, settings(PUBLIC_URL="https://app.example.com"))
    assert (await ask(hosts, "http://x/", host="10.0.0.7:3000")).status_code == 200


async def _nothing() -> dict[str, object]:
    raise AssertionError("nothing to receive")
