"""The page of the API in a real browser, under the headers that production sends."""

import shutil

import pytest
from playwright.async_api import ConsoleMessage, async_playwright, expect

from tests.api.conftest import World

CHROMIUM = shutil.which("chromium")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
]


async def test_the_page_shows_every_call_and_makes_it_as_who_is_logged_in_without_breaking_the_policy(
    world: World, served: str
) -> None:
    complaints: list[str] = []
    foreign: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        if message.type == "error":
            complaints.append(message.text)

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = await browser.new_page()
        page.on("console", hear)
        page.on("request", lambda request: None if request.url.startswith(served) else foreign.append(request.url))
        await page.goto(f"{served}/healthz")
        await page.evaluate("token => localStorage.setItem('auth-token', token)", await world.token())
        await page.goto(f"{served}/api/docs")
        await expect(page.locator(".opblock")).to_have_count(15)
        start = page.locator("#operations-Machine-start")
        await start.locator(".opblock-summary").click()
        await start.get_by_role("button", name="Execute").click()
        await expect(start.locator(".live-responses-table td.response-col_status:not(.col_header)")).to_contain_text(
            "200"
        )
        await browser.close()
    assert world.controller.asked == [("start",)]
    assert complaints == []
    assert [url for url in foreign if not url.startswith(("data:", "blob:"))] == []
