"""The stand-in's page in a real browser, framed by a page that plays the app."""

from collections.abc import AsyncGenerator
from typing import Any

import pytest
from playwright.async_api import Page, async_playwright
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from tests.conftest import CHROMIUM
from tests.demo.standin_machine import Machine, machine, serving, until
from tests.launching import free_ports

pytestmark = pytest.mark.browser
_FRAME = """<!doctype html><title>app</title><script>
window.heard = []; addEventListener("message", (event) => heard.push({origin: event.origin, ...event.data}));
</script><iframe src="{src}" width="1200" height="700"></iframe>"""


@pytest.fixture
async def framed() -> AsyncGenerator[tuple[Machine, Page]]:
    port, address = free_ports(), ""

    async def page(_: Request) -> Response:
        return HTMLResponse(_FRAME.replace("{src}", address))

    app = Starlette(routes=[Route("/", page)])
    async with machine(origin=f"http://localhost:{port}") as made, serving(app, port), async_playwright() as driver:
        address = f"{made.url}/_host/gate?ticket={made.app.ticket()}"
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = await browser.new_page(viewport={"width": 1280, "height": 800})
        await tab.goto(f"http://localhost:{port}/")
        await tab.frame_locator("iframe").get_by_role("button", name="Queue").wait_for()
        yield made, tab
        await browser.close()


async def heard(tab: Page) -> list[Any]:
    return await tab.evaluate("window.heard")


async def test_it_tells_the_page_around_it_that_it_is_ready_and_when_somebody_works(
    framed: tuple[Machine, Page],
) -> None:
    made, tab = framed

    async def told(*kinds: str) -> bool:
        return {*kinds} <= {message["kind"] for message in await heard(tab)}

    await until(lambda: told("ready", "queue"))
    assert not await told("input")
    await tab.frame_locator("iframe").get_by_role("textbox", name="Prompt", exact=True).click()
    await until(lambda: told("input"))
    assert {(message["source"], message["origin"]) for message in await heard(tab)} == {("comfyweb", made.url)}

    async def used() -> bool:
        status: Any = await made.status()
        return status["activity"]["kind"] == "input"

    await until(used)


async def test_control_enter_queues_a_prompt_whose_picture_appears(framed: tuple[Machine, Page]) -> None:
    _, tab = framed
    frame = tab.frame_locator("iframe")
    await frame.get_by_label("takes (seconds)").fill("0")
    await tab.keyboard.press("Control+Enter")
    await frame.get_by_role("img", name="Picture comfyweb_00001_.png").wait_for()
    await frame.get_by_role("button", name="Show comfyweb_00001_.png").wait_for()


async def test_idle_now_changes_nothing_while_a_prompt_runs(framed: tuple[Machine, Page]) -> None:
    made, tab = framed
    frame = tab.frame_locator("iframe")
    await frame.get_by_label("takes (seconds)").fill("600")
    await tab.keyboard.press("Control+Enter")
    await frame.get_by_text("1 in queue").wait_for()
    await frame.get_by_role("button", name="Idle now").click()
    await frame.get_by_text("not idle while a prompt runs").wait_for()
    status: Any = await made.status()
    assert status["activity"]["kind"] != "demo"


async def test_idle_now_leaves_twenty_seconds(framed: tuple[Machine, Page]) -> None:
    made, tab = framed
    await tab.frame_locator("iframe").get_by_role("button", name="Idle now").click()

    async def pretends() -> bool:
        status: Any = await made.status()
        return status["activity"]["kind"] == "demo"

    await until(pretends)
    made.clocks.moved = 21
    await until(made.is_off)
