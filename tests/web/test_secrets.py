"""From login to logout, with every mistake on the way: no secret is in what the app, the host and the cloud print."""

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from simple_websocket import Client

from comfyweb.demo.launch import app_environment
from comfyweb.ui.live import TAB
from tests.launching import ROOT, Program, free_ports

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / ".web/build/client/index.html").exists(), reason="the page is not built"),
]
PASSWORD = "marked-password-of-the-owner"
WRONG = "marked-password-of-a-stranger"
SIGNS = "marked-jwt-secret-0123456789abcdef"
SEED = base64.b64encode(b"marked-gate-key-with-32-bytes-ok").decode()
WATCHES = "marked-metrics-token-0123456789abcdef"
TAB_ID = "marked-reflex-token"
STARTS = "the-request-that-starts"
READY_WITHIN = 60.0


def until(ready: Callable[[], Any]) -> Any:
    end = time.monotonic() + READY_WITHIN
    while not (found := ready()):
        assert time.monotonic() < end
        time.sleep(0.1)
    return found


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_secret_is_printed(tmp_path: Path, form: str) -> None:
    port = free_ports(3)
    secrets = {
        "JWT_SECRET": SIGNS,
        "GATE_PRIVATE_KEY": SEED,
        "COMFYWEB_ENV_FILE": "",
        "LOG_FORMAT": form,
        "METRICS_TOKEN": WATCHES,
    }
    environ = app_environment({}, port=port, password=PASSWORD, folder=tmp_path) | secrets
    with (
        Program("-m", "comfyweb.demo", "--port", str(port + 1), "--fast", environ={}) as cloud,
        Program("-m", "comfyweb", environ=environ) as app,
        httpx.Client(base_url=f"http://localhost:{port}", timeout=30) as http,
    ):
        cloud.answers(f"http://localhost:{port + 1}/control")
        app.answers(f"http://localhost:{port}/healthz")
        found = _lead_a_life(http, port)
        for token in found:
            http.get(f"/api/{token}", headers={"x-auth-token": token})
    printed = "\n".join([*app.lines, *cloud.lines])
    assert "serving http://localhost" in printed
    for secret in [PASSWORD, WRONG, SIGNS, SEED, WATCHES, "marked", *found]:
        assert secret not in printed, secret
    if form == "json":
        _tell_one_story([json.loads(line) for line in app.lines])


def _tell_one_story(records: list[dict[str, Any]]) -> None:
    """Every line is an object, and from the request that asked for a start one finds the calls that came of it."""
    assert all(record.keys() >= {"time", "level", "logger", "message"} for record in records)
    [asked] = [record for record in records if record.get("request_id") == STARTS]
    calls = [record for record in records if "calling Compute Engine: start" in record["message"]]
    assert [call["intent_id"] for call in calls] == [asked["intent_id"]]
    assert all(call["attempt_request_id"] for call in calls)


def _lead_a_life(http: httpx.Client, port: int) -> list[str]:
    """Log in, start, enter ComfyUI, log out; and go wrong wherever one can. Return the tokens that came of it."""
    login, json_type = "/api/auth/login", {"content-type": "application/json"}
    assert http.post(login, json={"password": WRONG}).status_code == 401
    assert http.post(login, content=f'{{"password": "{PASSWORD}"', headers=json_type).status_code == 422
    assert http.post(login, json={"password": [PASSWORD]}).status_code == 422
    assert http.post(login, params={"password": PASSWORD}).status_code == 422
    token = str(http.post(login, json={"password": PASSWORD}).json()["token"])
    mine = {"x-auth-token": token}
    assert PASSWORD not in http.get(f"/nowhere/{WRONG}").text
    assert http.get("/api/auth/check", headers={"authorization": f"Bearer {token}x"}).status_code == 401
    assert http.post("/api/comfyui/ticket", headers=mine).status_code == 409
    _talk(port, token)
    started = http.post("/api/instance/start", headers=mine | {"X-Request-Id": STARTS})
    assert (started.status_code, started.headers["x-request-id"]) == (200, STARTS)
    until(lambda: http.get("/api/instance/status", headers=mine).json()["phase"] == "ready")
    url = str(until(lambda: http.post("/api/comfyui/ticket", headers=mine).json().get("url")))
    ticket = parse_qs(urlsplit(url).query)["ticket"][0]
    entered = httpx.get(url, headers={"sec-fetch-mode": "navigate"})
    assert entered.status_code == 303
    assert httpx.get(url).status_code in {401, 403}, "a ticket works once"
    unused = str(http.post("/api/comfyui/ticket", headers=mine).json()["url"])
    assert http.get("/metrics", headers={"authorization": f"Bearer {WATCHES}x"}).status_code == 401
    told = http.get("/metrics", headers={"authorization": f"Bearer {WATCHES}"}).text
    assert 'comfyweb_machine_phase{phase="ready"} 1.0' in told
    assert 'comfyweb_compute_engine_calls_total{method="start",outcome="ok"} 1.0' in told
    assert "comfyweb_sessions 1.0" in told
    assert http.post("/api/auth/logout", headers=mine).status_code == 200
    assert http.get("/api/auth/check", headers=mine).status_code == 401
    until(lambda: httpx.get(f"http://localhost:{port + 2}/", cookies=entered.cookies).status_code in {401, 403})
    assert httpx.get(unused).status_code in {401, 403}, "a ticket made before the logout is dead after it"
    return [token, ticket, parse_qs(urlsplit(unused).query)["ticket"][0], *dict(entered.cookies).values()]


def _talk(port: int, token: str) -> None:
    """Be a tab that is logged in, types a wrong password, and then talks nonsense."""
    socket = Client(
        f"ws://localhost:{port}/_event/?EIO=4&transport=websocket&token={TAB_ID}",
        headers={"Cookie": f"auth-token={token}", "x-auth-token": token},  # pyright: ignore[reportArgumentType] - its default is None
    )
    at = {"pathname": "/login", "asPath": "/login", "query": {}}
    hydrate = {"name": f"{TAB.rpartition('.')[0]}.hydrate_and_load", "router_data": at}
    hydrate |= {"payload": {"vars": {f"{TAB}.token_rx_state_": token}}}
    wrong = {"name": f"{TAB}.login", "payload": {"form": {"password": WRONG}}, "router_data": at}
    socket.receive(timeout=10)
    socket.send("40/_event," + json.dumps({"event": hydrate}))
    socket.send("42/_event," + json.dumps(["event", wrong]))
    until(lambda: "not the password" in str(socket.receive(timeout=10)))
    socket.send("42/_event," + json.dumps(["event", {"name": token, "payload": {"x": PASSWORD}}]))
    socket.receive(timeout=1)
