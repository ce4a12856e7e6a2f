"""For all tests: the browser; and where nothing may be left out, a test that can't run here has failed."""

import gc
import os
import shutil
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from playwright.sync_api import Browser, sync_playwright

from tests.memory import memory
from tests.parsing import one_at_a_time

EVERYTHING = bool(os.environ.get("COMFYWEB_REQUIRE_ALL"))
# A busy computer is no failure, so nothing is timed. For `make test-fast`, properties that don't say how often they are
# tried are tried this often, not 100 times.
settings.register_profile("whole", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("inner-loop", settings.get_profile("whole"), max_examples=20)
settings.load_profile("whole")
one_at_a_time()
MACHINES = Path(__file__).parent / "machines"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


class OutOfReach(pytest.skip.Exception):
    """Raised to skip a test whose need lies on somebody else's server, which no installation here can mend."""


def pytest_configure(config: pytest.Config) -> None:
    """Keep what tests write in memory; but for booted machines, whose disks are too large for it."""
    ignored = {Path(each).resolve() for each in config.getoption("ignore") or ()}
    asked = [Path(each.partition("::")[0]).resolve() for each in config.args]
    boots = MACHINES not in ignored and any(
        each.is_relative_to(MACHINES) or MACHINES.is_relative_to(each) for each in asked
    )
    if not boots and (folder := memory()):
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", folder)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None]:
    """Look for no garbage among a million things that stay until the end: neither while they are made, nor later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out what needs a browser where there is none, before Playwright is started for it."""
    if CHROMIUM is None and item.get_closest_marker("browser"):
        pytest.skip("Chromium is not installed")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    out_of_reach = call.excinfo is not None and isinstance(call.excinfo.value, OutOfReach)
    if EVERYTHING and report.skipped and not out_of_reach and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
    return report


@pytest.fixture(scope="module")
def chromium() -> Generator[Browser]:
    """Start the Chromium that is installed. It keeps an event loop, so no coroutine can be tested while it lives."""
    sandbox = [] if os.getuid() else ["--no-sandbox"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*sandbox, "--disable-dev-shm-usage"])
        yield browser
        browser.close()
