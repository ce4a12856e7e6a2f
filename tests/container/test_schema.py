"""Schemathesis against production's container, as in `tests/web/test_schema_served.py`."""

from collections.abc import Generator

import httpx
import pytest

from tests.container.docker import app, emulated, missing
from tests.web.test_schema_served import (
    Login,
    test_a_stranger_gets_what_the_document_says,
    test_who_is_logged_in_gets_what_the_document_says,
)

__all__ = [
    "test_a_stranger_gets_what_the_document_says",
    "test_who_is_logged_in_gets_what_the_document_says",
]

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing())]


@pytest.fixture(scope="module")
def somebody() -> Generator[Login]:
    with emulated() as (beside, port), app(beside, TRUSTED_PROXY_HOPS="1") as container:
        site = f"http://127.0.0.1:{port}"
        container.answers(f"{site}/readyz")
        # Docker's own proxy is the peer of everybody; so whoever logs in comes by one more, as behind a balancer.
        with httpx.Client(base_url=site, headers={"x-forwarded-for": "203.0.113.7"}) as http:
            yield Login(site, http)
        assert "Traceback" not in container.said
