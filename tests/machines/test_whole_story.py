"""The whole of comfyweb as a person meets it: in Chromium, with the real app, and a machine that really boots.

Nothing is at its place by hand but what a person puts there: the settings, a name that leads to the machine's address,
and a proxy with a certificate in front of the page. Screenshots of every step are left in test-results/machine.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, FrameLocator, Page, expect, sync_playwright

from comfyweb.ui.static import BUILT
from tests.launching import ROOT
from tests.machines.installed import FIRST_BOOT_SECONDS, Host
from tests.machines.machine import Machine
from tests.machines.town import COMFYUI, ELSEWHERE, PAGE, PASSWORD, Town

PICTURES = ROOT / "test-results/machine"
LONG = 1000 * FIRST_BOOT_SECONDS  # milliseconds: the longest that anything here takes on two busy cores
DESK, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not Path(BUILT).exists(), reason="needs the built page: make build"),
]


@pytest.fixture(scope="module")
def town(clean_computer: None) -> Iterator[Town]:
    """A machine that has never been on, and the town around it."""
    with Machine() as machine:
        yield Town(machine)


@pytest.fixture
def host(town: Town) -> Iterator[Host]:
    """What will run on the machine, which is off, whatever the test before has left."""
    yield Host(town.machine)
    if town.machine.guest.leader() is not None:
        town.machine.power_cut()


def picture(page: Page, name: str) -> None:
    """Leave a screenshot of the desk and of the phone."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    for kind, size in (("phone", PHONE), ("desk", DESK)):
        page.set_viewport_size(size)  # pyright: ignore[reportArgumentType] - a dictionary of two sizes
        page.screenshot(path=PICTURES / f"{name}-{kind}.png", animations="disabled")


def shows(page: Page, phase: str) -> None:
    """Wait until the page shows this phase."""
    page.locator(f".page[data-phase={phase}]").wait_for(timeout=LONG)


def log_in(page: Page) -> None:
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")


def arrive(context: BrowserContext) -> Page:
    """Come to the page for the first time, and log in."""
    page = context.new_page()
    page.goto(f"https://{PAGE}/")
    page.wait_for_url("**/login")
    log_in(page)
    shows(page, "off")
    return page


def start(page: Page) -> None:
    page.get_by_role("button", name="Start", exact=True).click()


def framed(page: Page) -> FrameLocator:
    return page.frame_locator("iframe")


def apart(context: BrowserContext, page: Page, button: str) -> Page:
    """Open ComfyUI in a tab of its own."""
    with context.expect_page() as opened:
        page.get_by_role("button", name=button).click()
    return opened.value


def is_up(comfyui: FrameLocator | Page) -> None:
    """Wait until ComfyUI's page is there, and its websocket."""
    expect(comfyui.get_by_text("Stand-in for ComfyUI")).to_be_visible(timeout=LONG)
    expect(comfyui.locator("#connection")).to_have_text("connected", timeout=LONG)


def generate(comfyui: FrameLocator | Page) -> None:
    """Queue a job, and wait until there is one picture more."""
    done = comfyui.locator("#done li")
    before = done.count()
    comfyui.get_by_role("button", name="Queue", exact=True).click()
    expect(done).to_have_count(before + 1, timeout=LONG)


def nobody_gets_in(town: Town, *addresses: str) -> None:
    """Ask as a stranger for whatever ComfyUI and the host have."""
    for address in addresses:
        for path in ("/", "/prompt", "/ws", "/scripts/app.js", "/api/system_stats", "/_host/status", "/_host/activity"):
            status, text = town.fetch(f"{address}{path}")
            assert status in {307, 401, 403, 404}, (address, path, status, text)
            assert "Stand-in" not in text, (address, path)
            assert "system" not in text, (address, path)


def test_log_in_start_work_inside_the_page_and_let_it_stop_itself(town: Town, host: Host) -> None:
    machine = town.machine
    with town.app(IDLE_MINUTES="1"), sync_playwright() as playwright, town.browser(playwright) as browser:
        page = arrive(browser)
        picture(page, "01-off")
        start(page)
        shows(page, "booting")
        expect(page.get_by_text("ComfyUI is installed")).to_be_visible(timeout=LONG)
        picture(page, "02-first-boot")
        shows(page, "ready")
        is_up(framed(page))
        picture(page, "03-ready")
        tls = host.status()["tls"]
        assert (tls["mode"], tls["trusted"], tls["name"]) == ("letsencrypt", True, COMFYUI)

        generate(framed(page))
        machine.until(lambda: host.status()["activity"]["kind"] in {"input", "job"}, "the keeper's look at the job")
        picture(page, "04-generated")
        nobody_gets_in(town, f"https://{COMFYUI}", f"http://{COMFYUI}", f"http://{town.address}")

        own = apart(browser, page, "Open in a tab")
        is_up(own)
        other = browser.new_page()
        other.goto(f"https://{PAGE}/")
        shows(other, "ready")
        other.get_by_role("button", name="Menu").click()
        other.get_by_role("button", name="Log out", exact=True).click()
        other.wait_for_url("**/login")
        expect(own.locator("#connection")).to_have_text("reconnecting")  # closed from the machine's side
        own.reload()
        expect(own.get_by_text("Stand-in for ComfyUI")).to_have_count(0)
        picture(own, "05-comfyui-after-the-logout")
        page.wait_for_url("**/login")

        log_in(other)
        shows(other, "ready")
        is_up(framed(other))
        expect(other.get_by_role("alert").filter(has_text="stops soon")).to_be_visible(timeout=LONG)
        shows(other, "off")
        expect(other.get_by_text("It stopped by itself")).to_be_visible()
        picture(other, "06-off-because-idle")
        machine.wait_off()


@pytest.mark.parametrize("third_party_cookies", ["allowed", "blocked"])
def test_a_name_of_another_site_works_inside_the_page_or_in_a_tab_of_its_own(
    town: Town, host: Host, third_party_cookies: str
) -> None:
    mode = 1 if third_party_cookies == "blocked" else 0  # Chromium's own name: profile.cookie_controls_mode
    with (
        town.app(ELSEWHERE),
        sync_playwright() as playwright,
        town.browser(playwright, cookie_controls_mode=mode, block_third_party_cookies=bool(mode)) as browser,
    ):
        page = arrive(browser)
        start(page)
        shows(page, "ready")
        if third_party_cookies == "allowed":
            is_up(framed(page))
            generate(framed(page))
        else:
            expect(page.get_by_text("has not come up inside this page")).to_be_visible(timeout=LONG)
            own = apart(browser, page, "Open ComfyUI in its own tab")
            is_up(own)
            generate(own)
        picture(page, f"10-another-site-{third_party_cookies}")
        tls = host.status()["tls"]
        assert (tls["mode"], tls["name"]) == ("letsencrypt", ELSEWHERE)


def test_without_a_name_it_is_plain_http_in_a_tab_of_its_own_and_the_page_warns(town: Town, host: Host) -> None:
    town.forget_names()
    with town.app(""), sync_playwright() as playwright, town.browser(playwright) as browser:
        page = arrive(browser)
        start(page)
        shows(page, "ready")
        expect(page.get_by_text("plain http, so anybody on the way can read")).to_be_visible()
        picture(page, "20-plain-http")
        # A boot begins with the certificate of the boot before.
        town.machine.until(lambda: host.status()["tls"]["mode"] == "none", "plain http")
        own = apart(browser, page, "Open ComfyUI in its own tab")
        is_up(own)
        generate(own)
        picture(own, "21-plain-http-apart")
        assert own.url == f"http://{town.address}/"
        nobody_gets_in(town, f"http://{town.address}")
        page.get_by_role("button", name="Stop", exact=True).click()
        page.get_by_role("dialog").get_by_role("button", name="Stop", exact=True).click()
        shows(page, "off")
        town.machine.wait_off()
