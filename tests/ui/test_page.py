"""The built page in Chromium, with the product's own server and a made-up machine."""

import asyncio
import contextlib
import contextvars
import re
import shutil
import threading
from collections.abc import AsyncGenerator, Coroutine, Generator, Iterator
from pathlib import Path
from typing import Any, Self, cast

import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page, WebSocketRoute, expect, sync_playwright
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from comfyweb import comfyweb
from comfyweb.control import start
from comfyweb.control.services import Bound
from comfyweb.demo.listening import bound
from comfyweb.machine.model import Phase
from comfyweb.machine.snapshot import Snapshot
from comfyweb.settings import load
from comfyweb.ui.static import BUILT
from tests.ui import bodies, stand_ins
from tests.ui.stand_ins import PASSWORD, Clock, Machine

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
    pytest.mark.skipif(not Path(BUILT).exists(), reason="needs the built page: make build"),
]

COMFYUI = """<!doctype html><title>ComfyUI</title><input id=inside>
<script>window.loads = Number(sessionStorage.loads || 0) + 1; sessionStorage.loads = window.loads</script>"""


class Site:
    """The app, and what stands for ComfyUI on another port, served from a thread."""

    def __init__(self, hosts: tuple[str, str] = ("http://localhost", "http://localhost"), **tls: str) -> None:
        sockets = [bound(0) for _ in range(2)]
        ports = [opened.getsockname()[1] for opened in sockets]
        self.url, self.comfyui = (f"{host}:{port}" for host, port in zip(hosts, ports, strict=True))
        self._tls = tls
        self.gate_calls: list[str] = []
        self.machine = Machine(bodies.body("off"), gate=self.comfyui)
        self.sessions = stand_ins.sessions(Clock())
        self.settings = load(
            {
                "AUTH_PASSWORD": "long enough, and not used",
                "JWT_SECRET": "bf3c9d54e1a86720bf3c9d54e1a86721",
                "GCP_PROJECT": "demo-project",
                "PORT": str(ports[0]),
                "PUBLIC_URL": self.url,
                "COMFYUI_URL": self.comfyui,
            },
            None,
        )
        self._loop = asyncio.new_event_loop()
        self._sockets = sockets
        self._servers: list[uvicorn.Server] = []
        # Reflex keeps its states and handlers in a context variable, which a thread doesn't inherit.
        here = contextvars.copy_context()
        self._thread = threading.Thread(target=here.run, args=(self._run,), daemon=True)

    @contextlib.asynccontextmanager
    async def running(self, *_: Any) -> AsyncGenerator[Bound]:
        """Stand for `start.running`."""
        yield Bound(settings=self.settings, sessions=self.sessions, controller=cast("Any", self.machine))

    def __enter__(self) -> Self:
        self._thread.start()
        while not (self._servers and all(server.started for server in self._servers)):
            assert self._thread.is_alive()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.should_exit = True
        self._thread.join(10)

    def show(self, body: dict[str, Any]) -> None:
        """Publish a snapshot, as the loop does."""
        self._do(self.machine.publisher.publish(Snapshot(phase=Phase(body["phase"]), body=body)))

    def round(self) -> None:
        """Let the loop make a turn."""
        for call in self.machine.on_round:
            self._do(call())

    def token(self) -> str:
        """Log in elsewhere."""
        return self._do(self.sessions.login(PASSWORD, "192.0.2.1"))[0]

    def end_all_sessions(self) -> None:
        """Log everyone out elsewhere."""
        self._do(self.sessions.end_all())

    @contextlib.contextmanager
    def cable(self) -> Generator["Cable"]:
        """Reach the app by a connection that can be cut."""
        cable = Cable(int(self.url.rsplit(":", 1)[1]), self._loop)
        cable.mend()
        yield cable
        cable.cut()

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        apps = [comfyweb.serve(), Starlette(routes=self.routes())]
        self._servers = [
            uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="wsproto", lifespan=lifespan, **self._tls))  # pyright: ignore[reportArgumentType] - of TLS the texts alone
            for app, lifespan in zip(apps, ("on", "off"), strict=True)
        ]
        await asyncio.gather(
            *(server.serve([opened]) for server, opened in zip(self._servers, self._sockets, strict=True))
        )

    def routes(self) -> list[BaseRoute]:
        """Return what stands for ComfyUI and its gate."""
        return [Route("/_host/gate", self._gate), Route("/_host/health", self._health)]

    async def _gate(self, request: Request) -> Response:
        mode = request.headers.get("sec-fetch-mode", "")
        self.gate_calls.append(mode)
        return HTMLResponse(COMFYUI) if mode == "navigate" else Response(status_code=204)

    async def _health(self, _: Request) -> Response:
        return Response('{"phase": "ready"}')


class Cable:
    """Passes bytes on to the app, as long as it isn't cut."""

    def __init__(self, to: int, loop: asyncio.AbstractEventLoop) -> None:
        self._to, self._loop, self._port = to, loop, 0
        self._server: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        """Where it begins."""
        return f"http://localhost:{self._port}"

    def mend(self) -> None:
        """Take connections, always at the same port."""
        asyncio.run_coroutine_threadsafe(self._mend(), self._loop).result(10)

    def cut(self) -> None:
        """Break every connection, and take no more."""
        asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result(10)

    async def _mend(self) -> None:
        self._server = await asyncio.start_server(self._join, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _cut(self) -> None:
        if self._server is not None:
            self._server.close()
        for end in self._ends:
            end.transport.abort()
        self._ends.clear()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to)
        self._ends |= {writer, far_writer}
        await asyncio.gather(_pass_on(reader, far_writer), _pass_on(far_reader, writer))


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(65536):
            writer.write(piece)
        writer.close()


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Serve for all tests of this file."""
    with pytest.MonkeyPatch.context() as patch:
        site = Site()
        patch.setenv("__REFLEX_SKIP_COMPILE", "true")
        patch.setattr(start, "running", site.running)
        patch.setattr(comfyweb, "settings", lambda: site.settings)
        with site:
            yield site


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Open one Chromium for all tests of this file."""
    expect.set_options(timeout=15_000)  # a busy machine is slow, not wrong
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Browser, site: Site) -> Iterator[BrowserContext]:
    """Open a fresh profile, the machine being off."""
    site.show(bodies.body("off"))
    site.machine.asked.clear()
    site.machine.turned_away.clear()
    site.gate_calls.clear()
    with browser.new_context() as context:
        yield context


@pytest.fixture
def page(context: BrowserContext, site: Site) -> Iterator[Page]:
    """Open the machine's page, logged in, and at the end insist on a quiet console."""
    # Also run in the browser's own error page of a frame, which has no storage.
    context.add_init_script(f"try {{ localStorage['auth-token'] ||= '{site.token()}' }} catch {{}}")
    page, complaints = context.new_page(), list[str]()
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(site.url)
    expect(page.get_by_role("heading", level=1)).to_have_text("comfyui-gpu")
    yield page
    assert [complaint for complaint in complaints if "net::ERR" not in complaint and "WebSocket" not in complaint] == []


def test_a_stranger_is_led_to_the_login_and_the_password_opens_the_page(context: BrowserContext, site: Site) -> None:
    page = context.new_page()
    page.goto(site.url)
    page.wait_for_url("**/login")
    password = page.get_by_label("Password")
    expect(password).to_be_focused()
    password.fill("wrong")
    password.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("That is not the password.")
    password.fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("button", name="Start")).to_be_visible()
    page.reload()
    expect(page.get_by_role("button", name="Start")).to_be_visible()


def test_the_login_page_loads_nothing_of_the_machines_page(context: BrowserContext, site: Site) -> None:
    page, loaded = context.new_page(), list[str]()
    page.on("response", lambda response: loaded.append(response.url))
    page.goto(f"{site.url}/login")
    expect(page.get_by_label("Password")).to_be_visible()
    names = [url.rsplit("/", 1)[-1] for url in loaded]
    assert any(name.startswith("_login_") for name in names)
    assert not any(name.startswith(("_index", "page-")) for name in names)


def test_start_asks_once_and_the_news_reaches_every_tab(page: Page, context: BrowserContext, site: Site) -> None:
    other = context.new_page()
    other.goto(site.url)
    expect(other.get_by_role("button", name="Start")).to_be_visible()
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("status")).to_contain_text("Words about start.")
    assert site.machine.asked == ["start"]
    steps = [bodies.step("The system boots", "done"), bodies.step("ComfyUI starts", "running")]
    site.show(bodies.body("booting", boot={"began_at": bodies.at(-50), "expected_seconds": 100, "steps": steps}))
    for tab in (page, other):
        expect(tab).to_have_title("Booting · comfyweb")
        expect(tab.get_by_role("progressbar")).to_contain_text("usually 1:40")
        expect(tab.get_by_role("progressbar")).to_contain_text(re.compile(r"5\d %"))
        expect(tab.locator("[aria-current=step]")).to_contain_text("ComfyUI starts")


def test_a_start_without_an_estimate_says_so_and_counts_its_steps(page: Page, site: Site) -> None:
    steps = [bodies.step("one", "done"), bodies.step("two", "running"), bodies.step("three", "waiting")]
    site.show(bodies.body("booting", boot={"began_at": bodies.at(-50), "expected_seconds": None, "steps": steps}))
    expect(page.get_by_role("progressbar")).to_contain_text("no estimate yet")
    expect(page.get_by_role("progressbar")).to_contain_text("33 %")


def test_comfyui_appears_in_the_page_with_the_focus(page: Page, site: Site) -> None:
    site.show(bodies.ready(site.comfyui))
    expect(page.frame_locator("iframe").locator("#inside")).to_be_visible()
    expect(page.locator("iframe")).to_be_focused()
    assert site.machine.asked == ["ticket"]
    assert site.gate_calls == ["navigate"]
    frame = page.locator("iframe")
    expect(frame).to_have_attribute("referrerpolicy", "no-referrer")
    expect(frame).to_have_attribute("allow", re.compile("clipboard-read; clipboard-write; fullscreen"))


def loads(page: Page) -> int:
    """Return how often the frame's document was loaded."""
    return page.frames[-1].evaluate("window.loads")


def test_no_status_change_reloads_the_frame(page: Page, site: Site) -> None:
    site.show(bodies.ready(site.comfyui))
    inside = page.frame_locator("iframe").locator("#inside")
    inside.fill("an unsaved workflow")
    drain = {"until": bodies.at(900), "remaining": 1}
    for news in (
        bodies.ready(site.comfyui, queue=bodies.queue(1, 2, 43.4), stops_at=""),
        bodies.ready(site.comfyui, fault=bodies.FAULT, notices=["something"]),
        bodies.ready(site.comfyui) | {"phase": "draining", "drain": drain},
        bodies.body("fault", fault=bodies.FAULT),  # the app was restarted and has not looked yet
        bodies.ready(site.comfyui, stops_at=bodies.at(100)),
    ):
        site.show(news)
        expect(page.locator(f".page[data-phase={news['phase']}]")).to_be_attached()
    expect(inside).to_have_value("an unsaved workflow")
    assert loads(page) == 1
    assert site.machine.asked == ["ticket"]


def test_another_run_gets_another_frame_and_a_stop_takes_it_away(page: Page, site: Site) -> None:
    site.show(bodies.ready(site.comfyui))
    page.frame_locator("iframe").locator("#inside").fill("old")
    site.show(bodies.body("stopping"))
    expect(page.locator("iframe")).to_have_count(0)
    expect(page.get_by_text("Stopping").first).to_be_visible()
    again = bodies.ready(site.comfyui)
    site.show(again | {"run": again["run"] | {"started_at": "2026-11-23T22:00:00Z"}})
    expect(page.frame_locator("iframe").locator("#inside")).to_have_value("")


def test_where_it_cannot_be_framed_the_page_says_why_and_opens_a_tab(
    page: Page, context: BrowserContext, site: Site
) -> None:
    site.show(bodies.ready(site.comfyui, embed=False, embed_words="Browsers would not show it here."))
    expect(page.get_by_text("Browsers would not show it here.")).to_be_visible()
    assert site.machine.asked == []
    with context.expect_page() as opened:
        page.get_by_role("button", name="Open ComfyUI in its own tab").click()
    expect(opened.value.locator("#inside")).to_be_visible()
    assert opened.value.evaluate("window.opener") is None
    expect(page.locator("iframe")).to_have_count(0)


def test_the_cookie_is_renewed_quietly_after_twenty_minutes(page: Page, site: Site) -> None:
    page.clock.install()
    site.show(bodies.ready(site.comfyui))
    expect(page.frame_locator("iframe").locator("#inside")).to_be_visible()
    with page.expect_response(re.compile("/_host/gate")):
        page.clock.fast_forward("21:00")
    assert site.gate_calls == ["navigate", "no-cors"]
    assert loads(page) == 1


def test_real_input_counts_as_use_and_no_more_than_twice_a_minute(page: Page, site: Site) -> None:
    site.show(bodies.ready(site.comfyui))
    expect(page.frame_locator("iframe").locator("#inside")).to_be_visible()
    page.evaluate("document.dispatchEvent(new PointerEvent('pointerdown', {bubbles: true}))")
    assert "keep-alive" not in site.machine.asked
    with page.expect_response(re.compile("/keep-alive$")):
        page.locator(".brand").click()
    page.locator(".brand").click()
    page.keyboard.press("a")
    assert site.machine.asked.count("keep-alive") == 1


def test_input_inside_comfyui_counts_when_comfyui_says_so_and_nobody_else(page: Page, site: Site) -> None:
    site.show(bodies.ready(site.comfyui))
    inside = page.frame_locator("iframe").locator("#inside")
    expect(inside).to_be_visible()
    message = {"source": "comfyweb", "kind": "input"}
    page.evaluate("message => window.postMessage(message, '*')", message)
    inside.evaluate("(_, message) => parent.postMessage({...message, source: 'else'}, '*')", message)
    inside.evaluate("(_, message) => parent.postMessage({...message, kind: 'queue'}, '*')", message)
    inside.evaluate("() => parent.postMessage(null, '*')")
    with page.expect_response(re.compile("/keep-alive$")):
        inside.evaluate("(_, message) => parent.postMessage(message, '*')", message)
    assert site.machine.asked.count("keep-alive") == 1


def test_the_idle_warning_comes_five_minutes_ahead_with_a_way_out(page: Page, site: Site) -> None:
    site.show(bodies.ready(site.comfyui, stops_at=bodies.at(320)))
    expect(page.locator(".warning")).to_be_hidden()
    site.show(bodies.ready(site.comfyui, stops_at=bodies.at(290)))
    expect(page.get_by_role("alert").get_by_text("The machine stops soon.")).to_be_visible()
    expect(page.locator(".warning cw-left")).to_have_text(re.compile(r"4:\d\d"))
    page.locator(".warning").get_by_role("button", name="Extend by 30 minutes").click()
    expect(page.get_by_text("Words about extend 30.")).to_be_visible()


def test_stop_now_says_first_how_many_jobs_die(page: Page, site: Site) -> None:
    site.show(bodies.ready(site.comfyui, queue=bodies.queue(1, 2)))
    page.get_by_role("button", name="Stop", exact=True).click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("1 running and 2 waiting")
    dialog.get_by_role("button", name="Stop now, lose 3 jobs").click()
    expect(dialog).to_be_hidden()
    expect(page.get_by_text("Words about stop now.")).to_be_visible()
    assert "stop now" in site.machine.asked


def test_a_question_stays_open_while_the_status_changes(page: Page, site: Site) -> None:
    site.show(bodies.ready(site.comfyui, queue=bodies.queue(1, 1)))
    page.get_by_role("button", name="Stop", exact=True).click()
    site.show(bodies.ready(site.comfyui, queue=bodies.queue(0, 0)))
    expect(page.get_by_role("dialog")).to_contain_text("Nothing runs or waits")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_draining_says_how_long_and_can_be_called_off(page: Page, site: Site) -> None:
    site.show(bodies.ready(site.comfyui) | {"phase": "draining", "drain": {"until": bodies.at(900), "remaining": 3}})
    expect(page.locator(".until")).to_contain_text(re.compile(r"3 left · off within 1[45]:\d\d"))
    page.get_by_role("button", name="Keep it running").first.click()
    expect(page.get_by_text("Words about start.")).to_be_visible()


def test_a_fault_says_what_happened_and_what_to_do(page: Page, site: Site) -> None:
    site.show(bodies.body("off", fault=bodies.FAULT))
    alert = page.get_by_role("alert").filter(has_text="No T4 is free")
    expect(alert).to_contain_text("Try again in a few minutes.")
    expect(alert).to_contain_text("What to do Try again")
    expect(alert).to_contain_text("This passes by itself; comfyweb keeps trying.")
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("status")).to_contain_text("Words about start.")


def test_a_frame_that_cannot_be_reached_says_so_and_is_tried_again_with_a_new_ticket(page: Page, site: Site) -> None:
    page.route(f"{site.comfyui}/**", lambda route: route.abort())
    site.show(bodies.ready(site.comfyui))
    cover = page.locator(".cover")
    expect(cover).to_contain_text("ComfyUI cannot be reached from this browser just now.")
    expect(cover.get_by_role("button", name="Open in a tab")).to_be_visible()
    page.unroute(f"{site.comfyui}/**")
    cover.get_by_role("button", name="Try again").click()
    expect(cover).to_have_count(0)
    expect(page.frame_locator("iframe").locator("#inside")).to_be_visible()
    assert site.machine.asked.count("ticket") >= 2


def test_a_frame_that_cannot_be_reached_recovers_by_itself(page: Page, site: Site) -> None:
    page.route(f"{site.comfyui}/**", lambda route: route.abort())
    site.show(bodies.ready(site.comfyui))
    expect(page.locator(".cover")).to_contain_text("cannot be reached")
    page.unroute(f"{site.comfyui}/**")
    expect(page.locator(".cover")).to_have_count(0, timeout=15_000)
    expect(page.frame_locator("iframe").locator("#inside")).to_be_visible()


def test_an_error_page_is_not_taken_for_comfyui_when_that_can_be_reached_right_after(page: Page, site: Site) -> None:
    # As when the machine gets its certificate, or the network comes back, just then.
    away = [True]
    page.route(re.compile("/_host/health"), lambda route: route.abort() if away else route.continue_())
    page.route(re.compile("/_host/gate"), lambda route: route.abort() if away and away.pop() else route.continue_())
    site.show(bodies.ready(site.comfyui))
    expect(page.frame_locator("iframe").locator("#inside")).to_be_visible()
    expect(page.locator(".cover")).to_have_count(0)
    assert site.gate_calls == ["navigate"]


def test_a_comfyui_that_comes_into_reach_while_it_is_opened_is_kept(page: Page, site: Site) -> None:
    page.clock.install()
    away = [True]
    page.route(re.compile("/_host/health"), lambda route: route.abort() if away and away.pop() else route.continue_())
    site.show(bodies.ready(site.comfyui))
    inside = page.frame_locator("iframe").locator("#inside")
    expect(inside).to_be_visible()
    page.clock.run_for(2_500)
    expect(page.locator(".cover")).to_have_text("Opening ComfyUI…")
    inside.evaluate("() => parent.postMessage({source: 'comfyweb', kind: 'ready'}, '*')")
    expect(page.locator(".cover")).to_have_count(0)
    page.clock.run_for(30_000)
    assert loads(page) == 1


def test_a_comfyui_that_greeted_before_and_does_not_now_is_offered_to_be_loaded_again(page: Page, site: Site) -> None:
    page.clock.install()
    site.show(bodies.ready(site.comfyui))
    inside = page.frame_locator("iframe").locator("#inside")
    inside.evaluate("() => parent.postMessage({source: 'comfyweb', kind: 'ready'}, '*')")
    page.wait_for_function("localStorage['comfyui-greeted-at']")
    page.clock.run_for(20_500)
    expect(page.locator(".cover")).to_have_count(0)
    page.reload()  # and now the network changes while it loads
    expect(inside).to_be_visible()
    page.clock.run_for(20_500)
    cover = page.locator(".cover")
    expect(cover).to_contain_text("has not come up yet")
    cover.get_by_role("button", name="Try again").click()
    expect(cover).to_have_count(0)
    expect(inside).to_be_visible()
    assert loads(page) == 3
    page.clock.run_for(20_500)
    expect(cover).to_contain_text("has not come up yet")
    cover.get_by_role("button", name="Show it all the same").click()
    expect(cover).to_have_count(0)
    page.reload()
    expect(inside).to_be_visible()
    page.clock.run_for(20_500)
    expect(cover).to_have_count(0)


def test_a_frame_whose_comfyui_says_hello_needs_no_probe(page: Page, site: Site) -> None:
    page.route(f"{site.comfyui}/_host/health", lambda route: route.abort())
    site.show(bodies.ready(site.comfyui))
    expect(page.locator(".cover")).to_contain_text("cannot be reached")
    message = {"source": "comfyweb", "kind": "ready"}
    page.evaluate("message => window.postMessage(message, '*')", message)
    expect(page.locator(".cover")).to_have_count(1)
    hello = """<script>parent.postMessage({source: 'comfyweb', kind: 'ready'}, '*')</script>"""
    page.route(re.compile("/_host/gate"), lambda route: route.fulfill(body=hello + COMFYUI, content_type="text/html"))
    expect(page.locator(".cover")).to_have_count(0, timeout=15_000)


def test_where_a_browser_keeps_the_storage_of_other_sites_away_the_page_says_so_and_offers_a_tab(
    page: Page, context: BrowserContext, site: Site
) -> None:
    page.clock.install()
    site.show(bodies.ready(site.comfyui, same_site=False))
    expect(page.frame_locator("iframe").locator("#inside")).to_be_visible()
    cover = page.locator(".cover")
    expect(cover).to_have_count(0)
    page.clock.run_for(20_500)
    expect(cover).to_contain_text("seems to block the storage of other sites")
    with context.expect_page() as opened:
        cover.get_by_role("button", name="Open ComfyUI in its own tab").click()
    expect(opened.value.locator("#inside")).to_be_visible()
    cover.get_by_role("button", name="Show it all the same").click()
    expect(cover).to_have_count(0)
    assert loads(page) == 1


def test_a_comfyui_of_another_site_that_comes_up_is_not_doubted(page: Page, site: Site) -> None:
    page.clock.install()
    site.show(bodies.ready(site.comfyui, same_site=False))
    inside = page.frame_locator("iframe").locator("#inside")
    expect(inside).to_be_visible()
    page.clock.run_for(20_500)
    expect(page.locator(".cover")).to_contain_text("seems to block")
    inside.evaluate("() => parent.postMessage({source: 'comfyweb', kind: 'ready'}, '*')")  # it was slow
    expect(page.locator(".cover")).to_have_count(0)
    site.show(bodies.body("off"))
    site.show(bodies.ready(site.comfyui, same_site=False))
    inside.evaluate("() => parent.postMessage({source: 'comfyweb', kind: 'ready'}, '*')")
    page.clock.run_for(20_500)
    expect(page.locator(".cover")).to_have_count(0)


def test_a_frame_that_does_not_load_within_twenty_seconds_is_given_up(page: Page, site: Site) -> None:
    page.clock.install()
    held: list[Any] = []
    page.route(re.compile("/_host/gate"), lambda route: held.append(route))  # noqa: PLW0108 - Playwright marks the function
    with page.expect_request(re.compile("/_host/gate")):
        site.show(bodies.ready(site.comfyui))
    expect(page.locator(".cover")).to_have_text("Opening ComfyUI…")
    page.route(re.compile("/_host/health"), lambda route: route.abort())
    page.clock.run_for(20_500)
    expect(page.locator(".cover")).to_contain_text("cannot be reached")
    page.unroute(re.compile("/_host/health"))
    for route in held:
        route.continue_()
    expect(page.locator(".cover")).to_have_count(0)


def test_a_frame_that_loads_slowly_from_a_gate_that_answers_is_waited_for(page: Page, site: Site) -> None:
    page.clock.install()
    held: list[Any] = []
    page.route(re.compile("/_host/gate"), lambda route: held.append(route))  # noqa: PLW0108 - as above
    with page.expect_request(re.compile("/_host/gate")):
        site.show(bodies.ready(site.comfyui))
    expect(page.locator(".cover")).to_have_text("Opening ComfyUI…")
    page.clock.run_for(20_500)
    expect(page.locator(".cover")).to_contain_text("still loads")
    expect(page.locator(".cover").get_by_role("button", name="Open in a tab")).to_be_visible()
    page.clock.run_for(170_000)
    expect(page.locator(".cover")).to_contain_text("still loads")
    assert len(held) == 1
    for route in held:
        route.continue_()
    expect(page.locator(".cover")).to_have_count(0)


def ends(seconds: float) -> dict[str, Any]:
    """Return a run that Compute Engine ends in so many seconds."""
    return {"started_at": bodies.at(-3600), "ready_at": bodies.at(-3500), "ours": True, "ends_at": bodies.at(seconds)}


@pytest.mark.parametrize("stops_at", [bodies.at(1500), ""])
def test_near_the_end_of_a_session_nothing_is_offered_that_cannot_help(stops_at: str, page: Page, site: Site) -> None:
    site.show(bodies.ready(site.comfyui, stops_at=stops_at, run=ends(250)))
    warning = page.locator(".warning")
    expect(warning).to_contain_text(re.compile(r"This run ends at .*\d+:\d\d.*: the longest session is over\."))
    expect(warning.get_by_text("Nobody seems to be here.")).to_be_hidden()
    expect(warning.get_by_role("button")).to_have_count(0)


def test_an_announced_end_is_told_with_its_time_and_can_not_be_taken_back(page: Page, site: Site) -> None:
    ending = {"reason": "session-cap", "at": bodies.at(500), "words": "The longest session is nearly over."}
    drain = {"until": bodies.at(500), "remaining": 0}
    site.show(bodies.ready(site.comfyui) | {"phase": "draining", "drain": drain, "ending": ending})
    expect(page.get_by_role("alert").get_by_text("The longest session is nearly over.")).to_be_visible()
    expect(page.locator(".announced")).to_contain_text(re.compile(r"8:\d\d"))
    expect(page.get_by_role("button", name="Keep it running")).to_have_count(0)
    site.show(bodies.ready(site.comfyui) | {"phase": "draining", "drain": drain})
    expect(page.get_by_role("button", name="Keep it running").first).to_be_visible()
    expect(page.locator(".announced")).to_have_count(0)


def test_extend_is_offered_in_the_bar_only_where_it_wins_a_minute(page: Page, site: Site) -> None:
    extend = page.locator(".until").get_by_role("button")
    site.show(bodies.ready(site.comfyui, stops_at=bodies.at(1000), run=ends(1030)))
    expect(page.locator(".until")).to_be_visible()
    expect(extend).to_have_count(0)
    site.show(bodies.ready(site.comfyui, stops_at=bodies.at(1000), run=ends(2000)))
    expect(extend).to_have_count(1)


@pytest.mark.parametrize("phase", ["ready", "draining"])
def test_a_silent_host_is_never_taken_for_an_idle_one(phase: str, page: Page, site: Site) -> None:
    drain = {"until": bodies.at(900), "remaining": None}
    site.show(
        bodies.ready(site.comfyui, queue=None) | {"phase": phase, "drain": drain if phase == "draining" else None}
    )
    page.get_by_role("button", name="Stop", exact=True).click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Nobody can say just now what runs or waits")
    expect(dialog).to_contain_text("at most 30 minutes")
    expect(dialog).not_to_contain_text("Nothing runs")
    expect(dialog.get_by_role("button", name="Stop", exact=True)).to_have_count(1 if phase == "ready" else 0)
    dialog.get_by_role("button", name="Stop now", exact=True).click()
    expect(page.get_by_text("Words about stop now.")).to_be_visible()


def test_stop_now_is_in_reach_while_it_drains_even_with_nothing_left(page: Page, site: Site) -> None:
    drain = {"until": bodies.at(900), "remaining": 0}
    site.show(bodies.ready(site.comfyui) | {"phase": "draining", "drain": drain})
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.get_by_role("dialog").get_by_role("button", name="Stop now", exact=True)).to_be_visible()


def test_before_the_first_look_the_page_is_calm(page: Page, site: Site) -> None:
    fault = bodies.FAULT | {"code": "not-looked-yet"}
    site.show(bodies.body("fault", status="", fault=fault))
    expect(page.get_by_role("heading", name="Looking for the machine…")).to_be_visible()
    expect(page).to_have_title("Looking · comfyweb")
    expect(page.locator(".panel").get_by_role("button")).to_have_count(0)
    expect(page.get_by_text("Trouble")).to_have_count(0)
    expect(page.locator(".fault")).to_have_count(0)


@pytest.mark.parametrize(
    ("status", "offered"),
    [
        ("TERMINATED", 1),
        ("STOPPED", 1),
        ("REPAIRING", 1),
        ("SUSPENDED", 0),
        ("SUSPENDING", 0),
        ("DEPROVISIONING", 0),
        ("", 0),
    ],
)
def test_trouble_offers_a_start_only_where_one_can_work(status: str, offered: int, page: Page, site: Site) -> None:
    site.show(bodies.body("fault", status=status, fault=bodies.FAULT))
    expect(page.get_by_text("No T4 is free")).to_be_visible()
    expect(page.locator(".panel").get_by_role("button")).to_have_count(offered)


def test_a_start_that_waits_for_trouble_to_pass_can_be_called_off(page: Page, site: Site) -> None:
    site.show(bodies.body("fault", status="SUSPENDING", wanted="on", fault=bodies.FAULT))
    expect(page.get_by_text("It will be started as soon as that is possible.")).to_be_visible()
    page.get_by_role("button", name="Cancel the start").click()
    expect(page.get_by_text("Words about stop drain.")).to_be_visible()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"passes": True, "retry": True}, "This passes by itself; comfyweb keeps trying."),
        ({"passes": True, "retry": False}, "This passes with time. comfyweb does not try again by itself."),
        ({"passes": False, "retry": False}, "This does not pass by itself."),
        ({"passes": True, "retry": True, "retry_at": bodies.at(7199)}, "comfyweb tries again in 1:"),
        ({"passes": False, "retry": False, "retry_at": bodies.at(7199)}, "comfyweb tries again in 1:"),
    ],
)
def test_a_fault_says_who_has_to_try_again(changes: dict[str, Any], words: str, page: Page, site: Site) -> None:
    site.show(bodies.body("off", fault=bodies.FAULT | changes))
    expect(page.locator(".fault")).to_contain_text(words)


def test_an_outage_in_use_covers_nothing_and_stays_away_until_it_is_another_one(page: Page, site: Site) -> None:
    site.show(bodies.ready(site.comfyui, fault=bodies.FAULT))
    band = page.locator("cw-band")
    expect(band).to_contain_text("No T4 is free")
    below, top = band.bounding_box(), page.locator("comfy-frame").bounding_box()
    assert below is not None
    assert top is not None
    assert below["y"] + below["height"] <= top["y"] + 1
    band.get_by_text("No T4 is free").click()
    expect(band.get_by_text("What to do")).to_be_visible()
    band.get_by_role("button", name="Dismiss").click()
    expect(band).to_be_hidden()
    site.show(bodies.ready(site.comfyui, fault=bodies.FAULT, queue=bodies.queue(1)))
    expect(page.get_by_text("Working")).to_be_visible()
    expect(band).to_be_hidden()
    site.show(bodies.ready(site.comfyui, fault=bodies.FAULT | {"code": "unavailable"}))
    expect(band).to_be_visible()


def test_the_figures_of_the_bar_have_names(page: Page, site: Site) -> None:
    site.show(bodies.ready(site.comfyui))
    for name in ("On for", "Cost so far, about"):
        expect(page.locator(f".bar [title='{name}']")).to_contain_text(name)


def test_words_of_a_click_do_not_show_at_the_login(page: Page) -> None:
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("status")).to_contain_text("Words about start.")
    page.get_by_role("button", name="Menu").click()
    page.get_by_role("button", name="Log out", exact=True).click()
    page.wait_for_url("**/login")
    expect(page.get_by_label("Password")).to_be_visible()
    expect(page.get_by_text("Words about start.")).to_have_count(0)


@pytest.mark.parametrize("width", [390, 1440])
def test_notices_cover_neither_the_panel_nor_what_is_said_in_comfyuis_place(width: int, page: Page, site: Site) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    notices = [f"{number}: {'a long notice of what is wrong and of what to do ' * 4}" for number in range(3)]

    def below(words: str) -> bool:
        return page.evaluate(
            "words => { const of = q => [...document.querySelectorAll(q)].find(e => e.checkVisibility());"
            "return of('.notices').getBoundingClientRect().bottom <= of(words).getBoundingClientRect().top }",
            words,
        )

    site.show(bodies.body("off", notices=notices))
    expect(page.get_by_role("listitem")).to_have_count(3)
    assert below(".panel")
    site.show(bodies.ready(site.comfyui, embed=False, embed_words="In a tab.", notices=notices))
    expect(page.locator(".cover p")).to_be_visible()
    assert below(".cover p")


def test_a_notice_can_be_put_away(page: Page, site: Site) -> None:
    site.show(bodies.ready(site.comfyui, notices=["one notice", "another notice"]))
    page.get_by_role("listitem").filter(has_text="one notice").get_by_role("button").click()
    expect(page.get_by_text("one notice")).to_have_count(0)
    expect(page.get_by_text("another notice")).to_be_visible()


def test_who_would_lock_himself_out_is_told_before_the_machine_is_started(
    page: Page, context: BrowserContext, site: Site
) -> None:
    words = "You would lock yourself out: your address, 127.0.0.1, is not in ALLOWED_IP."
    site.machine.turned_away["127.0.0.1"] = words
    stranger = context.browser.new_context() if context.browser else context
    other = stranger.new_page()
    other.goto(f"{site.url}/login")
    expect(other.get_by_label("Password")).to_be_visible()
    expect(other.get_by_text("lock yourself out")).to_have_count(0)
    stranger.close()
    page.reload()
    expect(page.get_by_role("listitem").filter(has_text=words)).to_be_visible()
    expect(page.get_by_role("button", name="Start")).to_be_visible()
    page.get_by_role("listitem").filter(has_text=words).get_by_role("button").click()
    expect(page.get_by_text(words)).to_have_count(0)
    page.reload()
    expect(page.get_by_text(words)).to_be_visible()
    site.end_all_sessions()
    site.round()
    expect(page.get_by_role("heading", name="You are logged out")).to_be_visible()
    expect(page.get_by_text(words)).to_have_count(0)


def test_which_certificate_the_machine_has_and_what_an_upload_may_have_are_in_the_menu(page: Page, site: Site) -> None:
    certificate = {"mode": "letsencrypt", "trusted": True, "words": "Let's Encrypt, until 22 February 2027"}
    site.show(bodies.ready(site.comfyui, certificate=certificate, upload_limit_mb=100))
    page.get_by_role("button", name="Menu").click()
    menu = page.locator("#menu")
    expect(menu.get_by_text("Let's Encrypt, until 22 February 2027")).to_be_visible()
    expect(menu.get_by_text("up to 100 MB each, Cloudflare's limit on small plans")).to_be_visible()
    site.show(bodies.ready(site.comfyui))
    expect(menu.get_by_text("Certificate")).to_have_count(0)
    expect(menu.get_by_text("Uploads")).to_have_count(0)
    site.show(bodies.body("off", upload_limit_mb=100))
    expect(page.locator(".facts")).to_contain_text("up to 100 MB each")


def test_a_tab_whose_login_has_ended_says_so_and_shows_nothing_else(page: Page, site: Site) -> None:
    site.show(bodies.ready(site.comfyui))
    expect(page.frame_locator("iframe").locator("#inside")).to_be_visible()
    site.end_all_sessions()
    site.round()
    expect(page.get_by_role("heading", name="You are logged out")).to_be_visible()
    expect(page.locator("iframe")).to_have_count(0)
    expect(page.get_by_text("us-central1-a")).to_have_count(0)
    expect(page).to_have_title("Logged out · comfyweb")


def test_a_login_or_logout_in_one_tab_reaches_the_others_of_the_browser(
    page: Page, context: BrowserContext, site: Site
) -> None:
    site.show(bodies.ready(site.comfyui))
    inside = page.frame_locator("iframe").locator("#inside")
    inside.fill("an unsaved workflow")
    other = context.new_page()
    other.goto(f"{site.url}/404")
    other.evaluate("token => localStorage.setItem('auth-token', token)", site.token())
    site.show(bodies.ready(site.comfyui, queue=bodies.queue(1, 0)))
    expect(page.get_by_text("Working")).to_be_visible()
    expect(inside).to_have_value("an unsaved workflow")
    site.end_all_sessions()
    site.round()
    expect(page.get_by_role("heading", name="You are logged out")).to_be_visible()
    other.evaluate("token => localStorage.setItem('auth-token', token)", site.token())
    expect(page.get_by_text("Working")).to_be_visible()
    other.evaluate("localStorage.setItem('auth-token', '')")
    page.wait_for_url("**/login")


@pytest.mark.parametrize("path", ["/", "/login", "/404"])
def test_a_tab_that_is_still_coming_up_does_not_undo_a_newer_login(
    page: Page, context: BrowserContext, site: Site, path: str
) -> None:
    held: list[str | bytes] = []
    tabs: list[WebSocketRoute] = []

    def hold_the_login(tab: WebSocketRoute) -> None:
        tabs.append(tab)
        tab.connect_to_server().on_message(
            lambda message: held.append(message) if held or "token_rx_state_" in str(message) else tab.send(message)
        )

    other = context.new_page()
    other.route_web_socket("**/_event/**", hold_the_login)
    other.goto(f"{site.url}{path}")
    while not held:
        other.wait_for_timeout(10)
    newer = site.token()
    page.evaluate("token => localStorage.setItem('auth-token', token)", newer)
    other.wait_for_function("newer => localStorage['auth-token'] === newer", arg=newer)
    while held:
        tabs[0].send(held.pop(0))
        other.wait_for_timeout(10)
    assert page.evaluate("localStorage['auth-token']") == newer


def test_logging_out_leads_to_the_login_and_empties_the_storage(page: Page) -> None:
    page.get_by_role("button", name="Menu").click()
    page.get_by_role("button", name="Log out", exact=True).click()
    page.wait_for_url("**/login")
    assert page.evaluate("localStorage['auth-token']") == ""


def test_a_lost_connection_is_told_and_the_truth_comes_back(page: Page, site: Site) -> None:
    with site.cable() as cable:
        page.goto(cable.url)
        expect(page.get_by_role("button", name="Start")).to_be_enabled()
        cable.cut()
        expect(page.get_by_role("alert").filter(has_text="Connection lost.")).to_be_visible()
        expect(page.get_by_role("button", name="Start")).to_be_disabled()
        site.show(bodies.body("stopping"))
        cable.mend()
        expect(page).to_have_title("Stopping · comfyweb")
        expect(page.get_by_role("alert").filter(has_text="Connection lost.")).to_have_count(0)


def test_the_page_works_by_keyboard_alone(page: Page, site: Site) -> None:
    page.get_by_role("button", name="Menu").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Log out", exact=True)).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Menu")).to_be_focused()
    page.get_by_role("button", name="Start").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("Words about start.")


def test_on_a_phone_nothing_is_cut_off_and_everything_is_big_enough(page: Page, site: Site) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    drain = {"until": bodies.at(900), "remaining": 3}
    for shown in (
        bodies.body("off", fault=bodies.FAULT),
        bodies.ready(site.comfyui, queue=bodies.queue(1, 2, 43.4), notices=["a notice " * 12]),
        bodies.ready(site.comfyui, stops_at=bodies.at(200)),
        bodies.ready(site.comfyui) | {"phase": "draining", "drain": drain},
    ):
        site.show(shown)
        expect(page.locator(f".page[data-phase={shown['phase']}]")).to_be_attached()
        assert page.evaluate("document.scrollingElement.scrollWidth") <= 390
        small = page.evaluate(
            "[...document.querySelectorAll('button, a')].filter(e => e.checkVisibility() && "
            "e.getBoundingClientRect().height < 44).map(e => e.outerHTML)"
        )
        assert small == []
        cut = page.evaluate(
            "[...document.querySelectorAll('.bar *')].filter(e => e.checkVisibility() && !e.closest('.unseen, dt') && "
            "e.getBoundingClientRect().right > 390).map(e => e.outerHTML)"
        )
        assert cut == []
    page.get_by_role("button", name="Menu").click()
    expect(page.get_by_role("button", name="Keep it running").last).to_be_visible()
