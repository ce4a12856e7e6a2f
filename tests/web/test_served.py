"""The app as it is served: what exists in it, what a stranger gets, and the page in a browser at other addresses."""

import json
import re
from collections.abc import Generator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect
from starlette.routing import Mount, Route

from tests.launching import REQUIRED, free_ports
from tests.web.conftest import Serve
from tests.web.forwarding import Forward, certificate

pytestmark = pytest.mark.slow
OPEN = {"/healthz", "/readyz", "/api/auth/login"}


def reflex_paths() -> list[str]:
    """Return what Reflex itself would answer."""
    from comfyweb.comfyweb import app  # noqa: PLC0415 - the whole app; not while tests are being collected

    app.add_all_routes_endpoint()
    routes = app._api.routes if app._api else []
    return [route.path for route in routes if isinstance(route, Route | Mount)]


def test_of_reflex_nothing_is_reached_but_its_websocket(site: str) -> None:
    paths = reflex_paths()
    assert {"/ping", "/_health", "/_all_routes", "/_event"} <= set(paths)
    for path in [*paths, "/_upload", "/_upload/x", "/auth-codespace", "/_event/"]:
        for method in ("GET", "POST"):
            assert httpx.request(method, site + path).status_code in {404, 405}, path


def test_every_route_of_the_api_is_closed_to_strangers_but_the_named(site: str) -> None:
    paths = httpx.get(f"{site}/api/openapi.json").json()["paths"]
    assert len(paths) > 8
    for path, methods in paths.items():
        for method in methods:
            if path not in OPEN:
                assert httpx.request(method, site + path, json={}).status_code == 401, path


@pytest.mark.parametrize("path", ["/", "/login", "/api/docs", "/nowhere", "/api/instance/status", "/style.css"])
def test_every_answer_is_protected(site: str, path: str) -> None:
    headers = httpx.get(site + path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "'unsafe-eval'" not in headers["content-security-policy"]
    assert "script-src 'self' 'unsafe-inline'" not in headers["content-security-policy"]
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    ("origin", "path", "status"),
    [
        ("{site}", "/_event/", 101),
        (None, "/_event/", 101),
        ("http://evil.example", "/_event/", 400),
        ("http://localhost:1", "/_event/", 400),
        ("null", "/_event/", 400),
        ("{site}", "/other", 403),
    ],
)
def test_a_websocket_is_opened_for_our_own_page_alone(site: str, origin: str | None, path: str, status: int) -> None:
    headers = {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    headers |= {} if origin is None else {"origin": origin.format(site=site)}
    query = "?EIO=4&transport=websocket&token=t"
    with httpx.stream("GET", f"{site}{path}{query}", headers=headers) as answer:
        assert (answer.status_code == 101) is (status == 101)


def test_the_login_page_is_light(site: str) -> None:
    """165 KB in all is the promise; this counts the bodies, headers are some 10 KB more."""
    with httpx.Client(base_url=site, headers={"accept-encoding": "br"}) as client:
        sizes: dict[str, int] = {}
        waiting = ["/login"]
        while waiting:
            path = waiting.pop()
            with client.stream("GET", path) as answer:
                sizes[path] = len(b"".join(answer.iter_raw()))
                encoding, kind = answer.headers["content-encoding"], answer.headers["content-type"]
            assert encoding == "br", path
            if kind.startswith("text/html"):
                text = client.get(path, headers={"accept-encoding": "identity"}).text
                found = re.findall(r'(?:href|src)="(/[^"]+\.(?:js|css|svg))"', text)
                waiting += [address for address in found if address not in sizes]
    assert len(sizes) > 8
    assert sum(sizes.values()) < 155_000, json.dumps(sizes, indent=1)


@pytest.fixture
def page(chromium: Browser) -> Generator[Page]:
    context = chromium.new_context(ignore_https_errors=True)
    page = context.new_page()
    troubles: list[str] = []
    page.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: troubles.append(str(error)))
    yield page
    context.close()
    assert not [trouble for trouble in troubles if "404" not in trouble]


def log_in(page: Page, address: str) -> None:
    """Log in over the page's own websocket, see the machine's page, and leave before what serves it does."""
    page.goto(f"{address}/login")
    page.get_by_label("Password").fill(REQUIRED["AUTH_PASSWORD"])
    page.keyboard.press("Enter")
    page.wait_for_url(f"{address}/")
    expect(page.locator(".page")).to_have_attribute("data-phase", re.compile("fault|missing"))
    page.goto("about:blank")


@pytest.mark.browser
def test_the_page_works_where_it_was_built_for(site: str, page: Page) -> None:
    log_in(page, site)


@pytest.mark.browser
def test_the_page_works_on_a_port_that_was_published_elsewhere(site: str, page: Page) -> None:
    port = free_ports()
    with Forward(port, int(site.rpartition(":")[2])):
        log_in(page, f"http://localhost:{port}")


@pytest.mark.browser
def test_by_address_it_leads_to_localhost(site: str, page: Page) -> None:
    page.goto(site.replace("localhost", "127.0.0.1") + "/login")
    assert page.url == f"{site}/login"


@pytest.mark.browser
def test_the_page_works_over_https_on_a_port_of_its_own(serve: Serve, page: Page, tmp_path: Path) -> None:
    public = free_ports()
    with (
        serve(PUBLIC_URL=f"https://localhost:{public}") as port,
        Forward(public, port, certificate(tmp_path)),
    ):
        log_in(page, f"https://localhost:{public}")


@pytest.mark.browser
def test_the_api_page_works_without_the_internet(site: str, page: Page) -> None:
    page.goto(f"{site}/api/docs")
    expect(page.locator(".opblock").first).to_be_visible()


@pytest.mark.browser
def test_a_page_that_does_not_exist_says_so(site: str, page: Page) -> None:
    answer = page.goto(f"{site}/nowhere")
    assert answer is not None
    assert answer.status == 404
    expect(page.get_by_role("heading", name="Nothing here")).to_be_visible()
