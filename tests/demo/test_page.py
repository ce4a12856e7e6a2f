"""The page of the emulator: a person breaks the cloud with it."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.cloudbox import CloudBox

pytestmark = pytest.mark.browser


@pytest.fixture
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        failures: list[str] = []
        page.on("pageerror", lambda error: failures.append(str(error)))
        yield page
        browser.close()
    assert not failures


def test_a_person_breaks_the_next_start_sees_it_fail_and_reads_why_a_button_did_nothing(
    cloud: CloudBox, page: Page
) -> None:
    page.goto(f"http://localhost:{cloud.port}")
    expect(page.locator("#machines")).to_contain_text("TERMINATED")
    page.get_by_role("button", name="No capacity", exact=True).click()
    expect(page.locator("#faults")).to_contain_text("stockout at start: 1 more")
    page.get_by_role("button", name="Start it in the console").click()
    expect(page.locator("#operations")).to_contain_text("ZONE_RESOURCE_POOL_EXHAUSTED")
    page.get_by_role("button", name="Take the machine back").click()
    expect(page.get_by_role("status")).to_contain_text("only a running machine is preempted")
    page.get_by_role("button", name="Google unreachable for 30 s").click()
    expect(page.locator("#faults")).to_contain_text("unavailable at every call: until")
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#faults")).to_be_empty()
    expect(page.get_by_role("status")).to_be_empty()
