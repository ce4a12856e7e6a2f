"""The renewal of ComfyUI's cookie, which nobody sees: in Chromium, over https, on one site and on two.

Third-party storage is blocked or allowed as in a browser's settings. Two sites and blocked is where no frame works.
"""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from playwright.sync_api import Page, Playwright, Route, expect, sync_playwright
from starlette import routing
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket

from comfyweb import comfyweb
from comfyweb.control import start
from comfyweb.settings_checks import host_of
from comfyweb.settings_checks import site as site_of
from comfyweb.ui import headers
from tests.ui import bodies
from tests.ui.test_page import CHROMIUM, Site, pytestmark

__all__ = ["pytestmark"]

APP, ONE_SITE, TWO_SITES = "app.alpha.test", "comfy.alpha.test", "comfy.beta.test"
BLOCKED, ALLOWED = 1, 0  # Chromium's profile.cookie_controls_mode
COOKIE = "comfyweb_gate"
GATE = re.compile("/_host/gate")
RENEWAL_SECONDS, LOOK_SECONDS = 20 * 60, 30  # of assets/js/frame.js
COMFYUI = """<!doctype html><title>ComfyUI</title><body style="background: #234"><h1 id=inside>A graph</h1>
<textarea id=prompt></textarea><script>
sessionStorage.clientId = "c"
const socket = new WebSocket(`wss://${location.host}/ws`)
socket.onmessage = ({data}) => { document.body.dataset.heard = data }
socket.onclose = () => { document.body.dataset.closed = "yes" }
socket.onopen = () => parent.postMessage({source: "comfyweb", kind: "ready"}, "*")
window.ask = async () => (await fetch("/cookie")).text()
window.echo = words => socket.send(words)
</script>"""


class SecureSite(Site):
    """The app and ComfyUI on names of their own, over https, with the contract's cookie at the gate."""

    def __init__(self, folder: Path) -> None:
        certificate, key = made(folder)
        super().__init__((f"https://{APP}", f"https://{ONE_SITE}"), ssl_certfile=str(certificate), ssl_keyfile=str(key))
        self.sockets_opened = 0
        self.documents = 0

    def routes(self) -> list[BaseRoute]:
        return [
            routing.Route("/_host/gate", self._cookie),
            routing.Route("/_host/health", self._health),
            routing.Route("/cookie", self._which),
            routing.Route("/", self._document),
            WebSocketRoute("/ws", self._socket),
        ]

    async def _cookie(self, request: Request) -> Response:
        mode = request.headers.get("sec-fetch-mode", "")
        self.gate_calls.append(mode)
        answer = RedirectResponse("/", 303) if mode == "navigate" else Response(status_code=204)
        value = f"{COOKIE}=ticket-{request.query_params['ticket']}"
        answer.headers["set-cookie"] = f"{value}; Path=/; HttpOnly; Secure; SameSite=None; Partitioned"
        return answer

    async def _document(self, request: Request) -> Response:
        if COOKIE not in request.cookies:
            return PlainTextResponse("nobody comes in without a cookie", 401)
        self.documents += 1
        return HTMLResponse(COMFYUI)

    async def _which(self, request: Request) -> Response:
        return PlainTextResponse(request.cookies.get(COOKIE, "none"))

    async def _socket(self, socket: WebSocket) -> None:
        if COOKIE not in socket.cookies:
            await socket.close()
            return
        self.sockets_opened += 1
        await socket.accept()
        async for words in socket.iter_text():
            await socket.send_text(words)


def made(folder: Path) -> tuple[Path, Path]:
    """Make a certificate that nobody checks."""
    key, name, now = (
        ec.generate_private_key(ec.SECP256R1()),
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "t")]),
        datetime.now(UTC),
    )
    built = x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
    certificate = built.sign(key, hashes.SHA256())
    files = folder / "chain.pem", folder / "key.pem"
    files[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureSite]:
    with pytest.MonkeyPatch.context() as patch:
        site = SecureSite(tmp_path_factory.mktemp("tls"))
        patch.setenv("__REFLEX_SKIP_COMPILE", "true")
        patch.setattr(start, "running", site.running)
        patch.setattr(comfyweb, "settings", lambda: site.settings)
        # A process serves one app, and an app frames one ComfyUI: this one is framed by either of its names.
        both = [site.comfyui, site.comfyui.replace(ONE_SITE, TWO_SITES)]
        patch.setattr(headers, "_framed", lambda *_: both)  # pyright: ignore[reportUnknownLambdaType]
        with site:
            yield site


@pytest.fixture(params=[ONE_SITE, TWO_SITES], ids=["one-site", "two-sites"])
def comfyui(request: pytest.FixtureRequest, site: SecureSite) -> str:
    """Return ComfyUI's address, from which the tickets are too."""
    url = site.comfyui.replace(ONE_SITE, request.param)
    site.machine._gate = url
    return url


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    expect.set_options(timeout=15_000)
    with sync_playwright() as started:
        yield started


@pytest.fixture(params=[BLOCKED, ALLOWED], ids=["blocked", "allowed"])
def page(request: pytest.FixtureRequest, playwright: Playwright, site: SecureSite, tmp_path: Path) -> Iterator[Page]:
    """Open the page in a profile of its own, which has that setting."""
    settings = tmp_path / "Default/Preferences"
    settings.parent.mkdir()
    settings.write_text(json.dumps({"profile": {"cookie_controls_mode": request.param}}))
    site.gate_calls.clear()
    site.machine.asked.clear()
    site.sockets_opened = site.documents = 0
    site.show(bodies.body("off"))
    context = playwright.chromium.launch_persistent_context(
        tmp_path,
        executable_path=CHROMIUM,
        args=["--no-sandbox", "--disable-background-networking", "--host-resolver-rules=MAP *.test 127.0.0.1"],
        ignore_https_errors=True,
    )
    context.add_init_script(f"try {{ localStorage['auth-token'] ||= '{site.token()}' }} catch {{}}")
    page = context.pages[0]
    page.clock.install()
    page.goto(site.url)
    expect(page.get_by_role("heading", level=1)).to_have_text("comfyui-gpu")
    yield page
    context.close()


def test_a_renewal_of_the_cookie_does_not_show_in_the_frame(
    page: Page, site: SecureSite, comfyui: str, request: pytest.FixtureRequest
) -> None:
    one_site = site_of(host_of(comfyui)) == site_of(APP)
    assert one_site is ("one-site" in request.node.name)
    # Far from its stop: the warning of an idle stop would rightly lie over the frame.
    site.show(bodies.ready(comfyui, same_site=one_site, stops_at=bodies.at(24 * 3600)))
    if not one_site and "blocked" in request.node.name:
        expect(page.locator("comfy-frame iframe")).to_be_attached()
        expect(page.locator(".cover")).to_have_count(0)
        page.clock.run_for(20_500)
        expect(page.locator(".cover")).to_contain_text("seems to block the storage of other sites")
        return
    frame = page.frame_locator("iframe")
    expect(frame.locator("#inside")).to_be_visible()
    inside = page.frames[-1]
    inside.wait_for_function("socket.readyState === 1")
    inside.evaluate("window.unsaved = 'a workflow'")
    assert inside.evaluate("ask()") == "ticket-1"
    expect(page.locator(".cover")).to_have_count(0)
    frame.locator("#prompt").press_sequentially("a photo of")
    page.evaluate(
        "window.changes = 0; new MutationObserver(seen => changes += seen.length)"
        ".observe(document.querySelector('comfy-frame'), {subtree: true, childList: true, attributes: true})"
    )
    during: list[tuple[str, bytes]] = []

    def renewal(route: Route) -> None:
        during.append((inside.evaluate("ask()"), picture(page)))
        route.continue_()

    page.route(GATE, renewal)
    before = picture(page)
    for ticket in ("ticket-2", "ticket-3"):
        with page.expect_response(GATE):
            pass_time(page)
        assert inside.evaluate("ask()") == ticket
        assert picture(page) == before, "the same pixels afterwards"
    assert during == [("ticket-1", before), ("ticket-2", before)], "and while the new cookie is under way"
    assert site.gate_calls == ["navigate", "no-cors", "no-cors"]
    page.keyboard.type(" a cat")
    expect(frame.locator("#prompt")).to_have_value("a photo of a cat")
    assert inside.evaluate("window.unsaved") == "a workflow", "the same document"
    inside.evaluate("echo('still here')")
    expect(frame.locator("body")).to_have_attribute("data-heard", "still here")
    assert frame.locator("body").get_attribute("data-closed") is None, "the same websocket"
    assert (site.documents, site.sockets_opened) == (1, 1)
    assert page.evaluate("window.changes") == 0, "nothing around it moved"


def picture(page: Page) -> bytes:
    """Return what is seen where ComfyUI is, with all that lies over it; without the blinking caret."""
    return page.locator("comfy-frame").screenshot(caret="hide")


def pass_time(page: Page) -> None:
    """Let the time of a renewal come.

    Only the date leaps: timers that leap with it would end the page's own connection, which hears from the server in
    real time, and "Connection lost" would lie over the frame.
    """
    page.clock.set_system_time(page.evaluate("Date.now()") / 1000 + RENEWAL_SECONDS)
    page.clock.fast_forward(LOOK_SECONDS * 1000)
