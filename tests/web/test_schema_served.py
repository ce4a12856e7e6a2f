"""Schemathesis against the running process, with every check it has: as a stranger, and logged in in each way there is.

In-process there is `tests/api/test_schema.py`, for the inner loop. Here stand the server and all layers in front too.
"""

from collections.abc import Callable, Generator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case
from schemathesis.specs.openapi.checks import ignored_auth

from comfyweb.api.app import create_api
from tests.launching import REQUIRED, ROOT, Program, free_ports

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / ".web/build/client/index.html").exists(), reason="the page is not built"),
]

# The event stream has no end; tests/api/test_events.py reads it.
schema: Any = schemathesis.openapi.from_dict(create_api().openapi()).exclude(path="/api/instance/events")
bounded = settings(
    max_examples=8, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
WAYS: dict[str, Callable[[str], dict[str, str]]] = {
    "header": lambda token: {"x-auth-token": token},
    "bearer": lambda token: {"Authorization": f"Bearer {token}"},
    "cookie": lambda token: {"Cookie": f"auth-token={token}", "Sec-Fetch-Site": "same-origin"},
}


class Login:
    """Somebody who logs in again whenever a call has logged everybody out.

    `http` comes from another address than the calls, since the wrong passwords in them count for theirs.
    """

    def __init__(self, site: str, http: httpx.Client) -> None:
        self.site = site
        self._token = ""
        self._http = http

    def token(self) -> str:
        """Return a token that is good now."""
        if not self._token or self._http.get("/api/auth/check", headers=WAYS["bearer"](self._token)).is_error:
            answer = self._http.post("/api/auth/login", json={"password": REQUIRED["AUTH_PASSWORD"]})
            self._token = answer.json()["token"]
        return self._token


@pytest.fixture(scope="module")
def somebody() -> Generator[Login]:
    """Run the demo, so that a machine is there to be started and stopped."""
    port = free_ports(3)
    environ = {"PORT": str(port), "AUTH_PASSWORD": REQUIRED["AUTH_PASSWORD"]}
    with Program("-m", "comfyweb.demo.launch", "--fast", environ=environ) as program:
        program.says("Ctrl-C")
        site, elsewhere = f"http://127.0.0.1:{port}", httpx.HTTPTransport(local_address="127.0.0.2")
        with httpx.Client(base_url=site, transport=elsewhere) as http:
            yield Login(site, http)
    assert not [line for line in program.lines if "Traceback" in line], "\n".join(program.lines)


@schema.parametrize()
@bounded
def test_a_stranger_gets_what_the_document_says(somebody: Login, case: Case[Any]) -> None:
    case.call_and_validate(base_url=somebody.site)


@pytest.mark.parametrize("way", WAYS)
@schema.parametrize()
@bounded
def test_who_is_logged_in_gets_what_the_document_says(somebody: Login, way: str, case: Case[Any]) -> None:
    login = WAYS[way](somebody.token())
    case.call_and_validate(base_url=somebody.site, headers=login, excluded_checks=[ignored_auth])
