"""The main job, from a stranger's first look to a machine that has switched itself off, in Chromium.

Screenshots of every step are left in test-results/story, for eyes.
"""

import os
import re
import signal
from collections.abc import Generator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, FrameLocator, Page, expect

from comfyweb.ui.static import BUILT
from tests.launching import ROOT, Program, children, free_ports

PASSWORD = "a quiet river at dawn"
PICTURES = ROOT / "test-results/story"
SLOWLY = 60_000

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(not Path(BUILT).exists(), reason="needs the built page: make build"),
]


class Demo:
    """`make run`, wherever it runs: here, or in a container (`tests/container/test_story.py`)."""

    def __init__(self, port: int) -> None:
        self.url = f"http://localhost:{port}"
        self.cloud = f"http://localhost:{port + 1}"

    def fault(self, kind: str) -> None:
        """Let the next start go wrong."""
        httpx.post(f"{self.cloud}/control/fault", json={"kind": kind, "verb": "start"}).raise_for_status()

    def starts(self) -> int:
        """Count the starts that Compute Engine was asked for."""
        operations = httpx.get(f"{self.cloud}/control").json()["operations"]
        return sum(operation["operationType"] == "start" for operation in operations)


@pytest.fixture(scope="module")
def port() -> int:
    return free_ports(3)


@pytest.fixture(scope="module")
def program(port: int) -> Generator[Program]:
    environ = {"PORT": str(port), "AUTH_PASSWORD": PASSWORD}
    with Program("-m", "comfyweb.demo.launch", "--fast", environ=environ) as program:
        program.says("Ctrl-C")
        yield program


@pytest.fixture(scope="module")
def demo(port: int, program: Program) -> Demo:
    assert program.pid
    return Demo(port)


@pytest.fixture
def context(chromium: Browser) -> Generator[BrowserContext]:
    made = chromium.new_context(viewport={"width": 1440, "height": 900}, color_scheme="dark")
    yield made
    made.close()


def picture(page: Page, name: str) -> None:
    """Leave a screenshot of the desk and of the phone."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}-desk.png", animations="disabled")
    page.set_viewport_size({"width": 390, "height": 844})
    page.screenshot(path=PICTURES / f"{name}-phone.png", animations="disabled")
    page.set_viewport_size({"width": 1440, "height": 900})


def shows(page: Page, phase: str) -> None:
    """Wait until the page shows this phase."""
    page.locator(f".page[data-phase={phase}]").wait_for(timeout=SLOWLY)


def logged_in(context: BrowserContext, demo: Demo) -> Page:
    page = context.new_page()
    page.goto(demo.url)
    page.wait_for_url("**/login")
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.locator(".page[data-phase]:not([data-phase=logged-out])").wait_for()
    return page


def another_tab(context: BrowserContext, demo: Demo) -> Page:
    page = context.new_page()
    page.goto(demo.url)
    page.locator(".page[data-phase]:not([data-phase=logged-out])").wait_for()
    return page


def comfyui(page: Page) -> FrameLocator:
    return page.frame_locator("iframe")


def stop(page: Page, button: str) -> None:
    page.get_by_role("button", name="Stop", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name=button, exact=True).click()


def test_log_in_start_work_and_let_it_stop_itself(context: BrowserContext, demo: Demo) -> None:
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.goto(demo.url)
    page.wait_for_url("**/login")
    picture(page, "01-login")
    page.get_by_label("Password").fill("not the password at all")
    page.keyboard.press("Enter")
    expect(page.get_by_text("That is not the password.")).to_be_visible()
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")

    shows(page, "off")
    expect(page.get_by_text("$0.54")).to_be_visible()
    picture(page, "02-off")
    page.get_by_role("button", name="Start", exact=True).click()
    shows(page, "ready")
    expect(comfyui(page).get_by_text("demo: stand-in for ComfyUI")).to_be_visible()
    expect(page.locator("iframe")).to_be_focused()
    picture(page, "03-ready")

    other = another_tab(context, demo)
    shows(other, "ready")
    comfyui(page).get_by_role("button", name="Queue", exact=True).click()
    expect(comfyui(page).get_by_text("comfyweb_00001_.png")).to_be_visible(timeout=SLOWLY)
    picture(page, "04-generated")
    other.close()

    comfyui(page).get_by_role("button", name=re.compile("Idle now")).click()
    expect(page.get_by_role("alert").filter(has_text="stops soon")).to_be_visible(timeout=SLOWLY)
    picture(page, "05-warning")
    page.get_by_role("button", name="Extend by 30 minutes").first.click()
    expect(page.get_by_role("alert").filter(has_text="stops soon")).to_be_hidden(timeout=SLOWLY)
    assert not complaints

    comfyui(page).get_by_role("button", name=re.compile("Idle now")).click()
    shows(page, "off")
    expect(page.get_by_text("It stopped by itself")).to_be_visible()
    picture(page, "06-off-because-idle")


def test_a_gentle_stop_waits_for_the_job_and_start_takes_it_back(context: BrowserContext, demo: Demo) -> None:
    page = logged_in(context, demo)
    page.get_by_role("button", name="Start", exact=True).click()
    shows(page, "ready")
    frame = comfyui(page)
    frame.get_by_label(re.compile("takes")).fill("60")
    frame.get_by_role("button", name="Queue", exact=True).click()
    expect(frame.get_by_text("1 in queue")).to_be_visible()
    page.locator("iframe").evaluate("frame => { frame.dataset.sameFrame = 'yes' }")

    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.get_by_role("dialog").get_by_text(re.compile("1 job"))).to_be_visible(timeout=SLOWLY)
    picture(page, "07-stop-dialog")
    page.get_by_role("dialog").get_by_role("button", name="Stop when it is done").click()
    shows(page, "draining")
    picture(page, "08-draining")
    page.get_by_role("button", name="Keep it running").first.click()
    shows(page, "ready")
    expect(page.locator("iframe")).to_have_attribute("data-same-frame", "yes")

    other = another_tab(context, demo)
    other.get_by_role("button", name="Stop", exact=True).click()
    other.get_by_role("dialog").get_by_role("button", name="Stop now").click()
    shows(page, "off")
    expect(page.get_by_text("Somebody pressed Stop now.")).to_be_visible()


def test_no_free_gpu_is_said_in_plain_words_and_the_next_try_works(context: BrowserContext, demo: Demo) -> None:
    page = logged_in(context, demo)
    shows(page, "off")
    demo.fault("stockout")
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.get_by_role("alert").filter(has_text="No free GPU right now")).to_be_visible(timeout=SLOWLY)
    expect(page.get_by_text("Starting.", exact=True)).to_be_hidden()
    picture(page, "09-no-free-gpu")
    before = demo.starts()
    other = another_tab(context, demo)
    page.get_by_role("button", name="Try again").click()
    other.locator(".page[data-phase=ready]").wait_for(timeout=SLOWLY)
    assert demo.starts() == before + 1
    stop(other, "Stop")
    shows(page, "off")


def test_log_out_everyone_reaches_every_tab_and_the_frame(
    context: BrowserContext, chromium: Browser, demo: Demo
) -> None:
    page = logged_in(context, demo)
    page.get_by_role("button", name="Start", exact=True).click()
    shows(page, "ready")
    expect(comfyui(page).get_by_text("demo: stand-in for ComfyUI")).to_be_visible()
    cookies = context.cookies(page.locator("iframe").get_attribute("src") or demo.url)
    elsewhere = chromium.new_context()
    other = logged_in(elsewhere, demo)
    other.get_by_role("button", name="Menu").click()
    other.get_by_role("button", name="Log out everyone…").click()
    other.get_by_role("dialog").get_by_role("button", name="Log out everyone").click()
    other.wait_for_url("**/login")
    shows(page, "logged-out")
    picture(page, "10-logged-out")
    gate = {str(c.get("name")): str(c.get("value")) for c in cookies if c.get("name") == "comfyweb_gate"}
    assert gate
    comfyui_url = f"http://localhost:{int(demo.cloud.rsplit(':', 1)[1]) + 1}/queue"
    for _ in range(100):
        if httpx.get(comfyui_url, cookies=gate).status_code == 401:
            break
        page.wait_for_timeout(100)
    assert httpx.get(comfyui_url, cookies=gate).status_code == 401
    elsewhere.close()


def test_a_killed_app_comes_back_and_its_tabs_with_it(context: BrowserContext, demo: Demo, program: Program) -> None:
    page = logged_in(context, demo)
    shows(page, "ready")
    httpx.get(f"{demo.url}/healthz").raise_for_status()
    (app,) = children(program.pid, "-m comfyweb")
    for process in [*children(app), app]:
        os.kill(process, signal.SIGKILL)
    expect(page.get_by_role("alert").filter(has_text=re.compile("onnection"))).to_be_visible(timeout=SLOWLY)
    picture(page, "11-connection-lost")
    program.says("starting the app again")
    expect(page.get_by_role("alert").filter(has_text=re.compile("onnection"))).to_be_hidden(timeout=SLOWLY)
    shows(page, "ready")
    stop(page, "Stop")
    shows(page, "off")
