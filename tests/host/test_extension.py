"""Our ComfyUI extension: loaded as ComfyUI loads it, and in a real browser around a page that stands for ComfyUI's."""

import importlib.util
import json
import sys
import threading
from collections.abc import Iterator
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest
from playwright.sync_api import Browser, Page

from tests.host.surroundings import until

EXTENSION = Path(__file__).parents[2] / "vm_setup/extension"


def load(monkeypatch: pytest.MonkeyPatch, **modules: object) -> Any:
    """Load it as ComfyUI does, from a folder that lies in no package."""
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, cast("ModuleType", module))
    spec = importlib.util.spec_from_file_location("custom_nodes_comfyweb", EXTENSION / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Routes:
    """Stands for ComfyUI's server and aiohttp, which come with ComfyUI alone."""

    def __init__(self) -> None:
        self.paths: dict[str, Any] = {}
        self.PromptServer = self.instance = self.routes = self.web = self
        self.Request = self.Response = object

    def get(self, path: str) -> Any:
        def register(answer: Any) -> Any:
            return self.paths.setdefault(path, answer)

        return register

    def json_response(self, value: object, headers: dict[str, str]) -> object:
        return value


async def test_comfyui_finds_its_page_and_the_apps_origin_is_answered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    routes = Routes()
    module = load(monkeypatch, server=routes, aiohttp=routes, comfy_execution=Progress())
    assert (EXTENSION / module.WEB_DIRECTORY).is_dir()
    assert module.NODE_CLASS_MAPPINGS == {}
    module.APP_ORIGIN = tmp_path / "app-origin"
    answer = routes.paths["/comfyweb/app-origin"]
    assert await answer(None) == {"origin": ""}
    module.APP_ORIGIN.write_text("https://app.example.com\n")
    assert await answer(None) == {"origin": "https://app.example.com"}
    module.APP_ORIGIN.write_bytes(b"\xff")
    assert await answer(None) == {"origin": ""}


class Progress:
    """Stands for `comfy_execution`, which comes with ComfyUI alone: one prompt, at one of its nodes."""

    NodeState = Enum("NodeState", ["Running", "Finished"])

    def __init__(self) -> None:
        self.progress = self
        self.prompt_id = "p-1"
        self.nodes: dict[str, dict[str, Any]] = {}

    @property
    def dynprompt(self) -> "Progress":
        return self

    def get_progress_state(self) -> "Progress":
        return self

    def get_node(self, node: str) -> dict[str, str]:
        return {"7": {"class_type": "KSampler"}}[node]


async def test_it_answers_which_prompt_runs_at_which_node_and_how_far_that_is(monkeypatch: pytest.MonkeyPatch) -> None:
    routes, progress = Routes(), Progress()
    load(monkeypatch, server=routes, aiohttp=routes, comfy_execution=progress)
    answer = routes.paths["/comfyweb/current"]
    assert await answer(None) == {}
    progress.nodes["3"] = {"state": Progress.NodeState.Finished, "value": 1.0, "max": 1.0}
    assert await answer(None) == {}
    progress.nodes["7"] = {"state": Progress.NodeState.Running, "value": 5.0, "max": 20.0}
    assert await answer(None) == {"prompt_id": "p-1", "node": "KSampler", "percent": 25.0}
    progress.nodes["7"]["max"] = 0
    assert await answer(None) == {"prompt_id": "p-1", "node": "KSampler", "percent": 500.0}
    progress.nodes["8"] = {"state": Progress.NodeState.Running, "value": 5.0, "max": 20.0}
    assert await answer(None) == {}


async def test_a_comfyui_that_keeps_it_elsewhere_tells_nothing_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    routes = Routes()
    load(monkeypatch, server=routes, aiohttp=routes, comfy_execution=Routes())
    assert await routes.paths["/comfyweb/current"](None) == {}


def test_in_another_comfyui_its_page_still_tells_the_host_of_input(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(monkeypatch, server=ModuleType("server"), aiohttp=ModuleType("aiohttp")).WEB_DIRECTORY == "./web"


APP_JS = "export const app = { registerExtension: (one) => one.setup() };"
API_JS = """
export const api = new EventTarget();
api.fetchApi = (path, options) => fetch(path, options);
window.comfyApi = api;
"""
PAGE = '<!doctype html><button>x</button><script type="module" src="/extensions/comfyweb/comfyweb.js"></script>'


class Site:
    """Two origins: ComfyUI's page with the extension, and a page that frames it. `origin` is what the host knows."""

    def __init__(self) -> None:
        site = self
        self.activity = 0
        self.origin = ""
        self.uploaded = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body, kind = site.page(self.path)
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.end_headers()
                self.wfile.write(body.encode())

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"] or 0))
                if self.path.startswith("/upload/"):
                    site.uploaded.wait(60)
                site.activity += self.path == "/_host/activity"
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        port = self.server.server_address[1]
        self.comfyui, self.app = f"http://127.0.0.1:{port}", f"http://localhost:{port}"

    def page(self, path: str) -> tuple[str, str]:
        script = "text/javascript"
        pages = {
            "/": (PAGE, "text/html"),
            "/scripts/app.js": (APP_JS, script),
            "/scripts/api.js": (API_JS, script),
            "/extensions/comfyweb/comfyweb.js": ((EXTENSION / "web/comfyweb.js").read_text(), script),
            "/comfyweb/app-origin": (json.dumps({"origin": self.origin}), "application/json"),
        }
        frame = f"""<!doctype html><script>window.heard = [];
            addEventListener("message", (e) => heard.push(e.data));</script><iframe src="{self.comfyui}/"></iframe>"""
        return pages.get(path, (frame, "text/html"))


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    made = chromium.new_page()
    yield made
    made.close()


def heard(page: Page) -> list[Any]:
    return cast("list[Any]", page.evaluate("heard"))


def kinds(page: Page) -> list[str]:
    return [message["kind"] for message in heard(page)]


def framed(page: Page, site: Site) -> Any:
    """Open the page that frames ComfyUI's, and return the frame once the extension is at work."""
    with page.expect_response("**/comfyweb/app-origin"):
        page.goto(f"{site.app}/frame")
    frame = page.frames[1]
    frame.wait_for_function("window.comfyApi")
    return frame


@pytest.mark.browser
def test_real_input_is_told_to_the_host_and_to_the_app_at_most_every_half_minute(page: Page, site: Site) -> None:
    site.origin = site.app
    frame = framed(page, site)
    until(lambda: "ready" in kinds(page))
    frame.locator("button").hover()
    frame.evaluate("document.querySelector('button').click()")
    frame.evaluate("window.dispatchEvent(new KeyboardEvent('keydown', { key: 'a' }))")
    assert (site.activity, kinds(page)) == (0, ["ready"])
    frame.locator("button").click()
    until(lambda: site.activity == 1)
    page.keyboard.press("a")
    frame.locator("button").click()
    assert kinds(page).count("input") == 1
    assert all(message["source"] == "comfyweb" for message in heard(page))
    assert site.activity == 1


@pytest.mark.browser
def test_an_upload_is_told_to_the_host_for_as_long_as_it_goes_on(page: Page, site: Site) -> None:
    page.clock.install()
    frame = framed(page, site)
    frame.evaluate(
        "{ window.upload = window.comfyApi.fetchApi('/upload/image', { method: 'POST', body: 'picture' }); undefined }"
    )
    until(lambda: site.activity == 1)
    for told in (2, 3):
        page.clock.run_for(30_000)
        until(lambda told=told: site.activity == told)
    site.uploaded.set()
    assert frame.evaluate("window.upload.then((answer) => answer.status)") == 204
    page.clock.run_for(90_000)
    frame.evaluate("window.comfyApi.fetchApi('/other', { method: 'POST' })")
    assert site.activity == 3


@pytest.mark.browser
def test_what_comfyui_does_is_told_to_the_app(page: Page, site: Site) -> None:
    site.origin = site.app
    frame = framed(page, site)
    until(lambda: "ready" in kinds(page))
    frame.evaluate(
        """() => {
            const say = (type, detail) => comfyApi.dispatchEvent(new CustomEvent(type, { detail }));
            say("status", { exec_info: { queue_remaining: 2 } });
            say("status", null);
            say("execution_start", { prompt_id: "p" });
            say("reconnecting");
        }"""
    )
    until(lambda: "reconnecting" in kinds(page))
    assert heard(page)[1:] == [
        {"source": "comfyweb", "kind": "queue", "remaining": 2},
        {"source": "comfyweb", "kind": "execution_start", "prompt_id": "p"},
        {"source": "comfyweb", "kind": "reconnecting"},
    ]


@pytest.mark.browser
@pytest.mark.parametrize("origin", ["https://elsewhere.example.com", "", "*", "javascript:alert(1)"])
def test_no_other_page_that_frames_it_hears_anything(page: Page, site: Site, origin: str) -> None:
    site.origin = origin
    frame = framed(page, site)
    frame.locator("button").click()
    until(lambda: site.activity == 1)
    assert heard(page) == []


def test_it_has_one_script_since_comfyuis_page_loads_every_one() -> None:
    assert [path.name for path in (EXTENSION / "web").rglob("*.js")] == ["comfyweb.js"]
