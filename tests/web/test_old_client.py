"""The system before comfyweb had a front end of its own: whatever it asked is answered as it expects.

Paths, headers and shapes are those of docs/contract.md and MIGRATION.md. The app is whole and real, its cloud is the
demo's.
"""

import time
from collections.abc import Callable, Generator
from typing import Any

import httpx
import jwt
import pytest

from tests.launching import PATIENCE, REQUIRED, Program, free_ports
from tests.web.conftest import Serve

pytestmark = pytest.mark.slow
PASSWORD = {"password": REQUIRED["AUTH_PASSWORD"]}
ASKED = {"accept": "application/json, text/plain, */*"}
# What it sent with POST: nothing, nothing that says to be something (as axios does), or an empty object.
BODIES: list[dict[str, Any]] = [
    {},
    {"content": b"", "headers": {"content-type": "application/x-www-form-urlencoded"}},
    {"content": b"", "headers": {"content-type": "application/json"}},
    {"json": {}},
]


@pytest.fixture(scope="module")
def server(serve: Serve) -> Generator[str]:
    cloud = free_ports(2)
    url = f"http://127.0.0.1:{cloud}"
    with Program("-m", "comfyweb.demo", "--port", str(cloud), "--fast", environ={}) as program:
        program.answers(f"{url}/control")
        with serve(COMPUTE_ENDPOINT=url, COMFYUI_URL=f"http://localhost:{cloud + 1}") as port:
            yield f"http://localhost:{port}"


@pytest.fixture
def stranger(server: str) -> Generator[httpx.Client]:
    with httpx.Client(base_url=server, headers=ASKED, timeout=30) as client:
        yield client


@pytest.fixture
def client(stranger: httpx.Client) -> httpx.Client:
    """Be logged in as the old front end was: the token in `x-auth-token`."""
    stranger.headers["x-auth-token"] = str(stranger.post("/api/auth/login", json=PASSWORD).json()["token"])
    return stranger


def poll(client: httpx.Client, enough: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Ask for the status again and again, as its page did, until it is as wanted."""
    end = time.monotonic() + PATIENCE
    while not enough(told := client.get("/api/instance/status").json()):
        assert time.monotonic() < end, told
        time.sleep(0.1)
    return told


def done(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    assert set(told) == {"success", "message", "status"}
    assert told["success"] is True
    assert told["message"]
    return told


def refused(answer: httpx.Response, status: int) -> str:
    """Return the text that it shows: it reads `error` of whatever is no 2xx."""
    assert answer.status_code == status, answer.text
    return str(answer.json()["error"])


def test_a_day_of_the_old_client(client: httpx.Client) -> None:
    expires = jwt.decode(client.headers["x-auth-token"], options={"verify_signature": False})["exp"]
    assert time.time() < expires, "it looks at this by itself before it asks anything"
    assert client.get("/api/auth/check-alt").json()["authenticated"] is True
    off = poll(client, lambda told: told["status"] == "TERMINATED")
    assert (off["external_ip"], off["comfyui_url"]) == ("", "")
    assert "not ready" in refused(client.post("/api/instance/keep-alive"), 409)

    done(client.post("/api/instance/start"))
    on = poll(client, lambda told: told["status"] == "RUNNING" and bool(told["last_activity"]))
    assert on["external_ip"]
    assert on["comfyui_url"].startswith("http://localhost:")
    assert done(client.post("/api/instance/start"))["status"] == "RUNNING", "asking twice is no mistake"
    poll(client, lambda told: told["phase"] == "ready")
    for body in BODIES:
        assert done(client.post("/api/instance/keep-alive", **body))["status"] == "RUNNING"

    done(client.post("/api/instance/stop"))
    poll(client, lambda told: told["status"] == "TERMINATED")
    assert client.post("/api/auth/logout").json()["success"] is True
    assert refused(client.get("/api/auth/check"), 401)


@pytest.mark.parametrize("body", BODIES)
def test_it_sends_a_body_or_none(client: httpx.Client, body: dict[str, Any]) -> None:
    for path in ("/api/instance/stop", "/api/auth/logout"):
        assert client.post(path, **body).json()["success"] is True, path


@pytest.mark.parametrize("path", ["/api/auth/check", "/api/auth/check-alt"])
def test_it_asks_whether_it_is_logged_in_at_two_addresses(client: httpx.Client, server: str, path: str) -> None:
    cookie = {"auth-token": client.headers["x-auth-token"]}
    with httpx.Client(base_url=server, headers=ASKED, cookies=cookie) as browser:
        assert browser.get(path).json()["authenticated"] is True
    client.headers["x-auth-token"] = "one of yesterday"
    answer = client.get(path)
    assert refused(answer, 401)
    assert answer.json()["authenticated"] is False


def test_its_cookie_counts_on_our_own_pages(client: httpx.Client, server: str) -> None:
    cookie = {"auth-token": client.headers["x-auth-token"]}
    with httpx.Client(base_url=server, headers=ASKED, cookies=cookie) as browser:
        assert "status" in browser.get("/api/instance/status").json()
        done(browser.post("/api/instance/stop", headers={"origin": server}))
        done(browser.post("/api/instance/stop", headers={"sec-fetch-site": "same-origin"}))
        assert refused(browser.post("/api/instance/stop", headers={"origin": "https://evil.example"}), 403)
        assert refused(browser.post("/api/instance/stop"), 403)


def test_every_refusal_has_a_text_to_show(client: httpx.Client, server: str) -> None:
    with httpx.Client(base_url=server, headers=ASKED) as stranger:
        assert refused(stranger.post("/api/auth/login", json={"password": "guess"}), 401)
        assert refused(stranger.post("/api/auth/login", json={}), 422)
        for method, path in (
            ("GET", "/api/auth/check"),
            ("POST", "/api/auth/logout"),
            ("GET", "/api/instance/status"),
            ("POST", "/api/instance/start"),
            ("POST", "/api/instance/stop"),
            ("POST", "/api/instance/keep-alive"),
        ):
            assert refused(stranger.request(method, path), 401), path
    assert refused(client.get("/api/instance/reboot"), 404)
    assert refused(client.get("/api/instance/start"), 405)
