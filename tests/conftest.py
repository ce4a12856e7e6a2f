"""For all tests: where nothing may be left out, a test that can't run has failed."""

import os
from collections.abc import Generator

import pytest

EVERYTHING = bool(os.environ.get("COMFYWEB_REQUIRE_ALL"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if EVERYTHING and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
    return report
