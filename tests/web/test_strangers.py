"""What strangers send to the websocket of the running app: nothing of it is in the log, and the log hardly grows."""

import json
from pathlib import Path

import pytest
from simple_websocket import Client, ConnectionClosed

from comfyweb.ui.live import TAB
from tests.launching import REQUIRED, ROOT, Program, free_ports

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / ".web/build/client/index.html").exists(), reason="the page is not built"),
]
SECRET = "hunter2-planted"
FORGED = "x\n2026-01-01 00:00:00,000 WARNING comfyweb.access: FORGED \x1b[31m"
HEADERS = {"Cookie": f"auth-token={SECRET}", "Authorization": f"Bearer {SECRET}", "x-auth-token": SECRET}
MOST_BYTES = 8_000


def event(*data: object) -> str:
    return "42/_event," + json.dumps(["event", *data])


GARBAGE = [
    event(FORGED),
    event([SECRET]),
    event(),
    event({}, {}),
    event({"name": FORGED, "payload": {"form": {"password": SECRET}}, "router_data": {}}),
    event({"name": f"{TAB}.no_such", "payload": {"form": {"password": SECRET}}, "router_data": {}}),
    event({"name": f"{TAB}.login", "payload": SECRET, "router_data": {}}),
    event({"name": f"{TAB}.login", "payload": {"form": SECRET, "x": 1}, "router_data": {}}),
    event({"name": f"{TAB}.join", "payload": {}, "router_data": {"pathname": {"a": SECRET}}}),
    event({"name": f"{TAB}.join", "payload": {"a" * 50_000: SECRET}, "router_data": {}}),
    "42/_event," + json.dumps(["client_error", {"error_type": "x", "message": FORGED + SECRET}]),
    "42/_event,{{{",
    "42/_event," + "[" * 20_000,
    "9",
]


def say(port: int, message: str, *, boot: object = None) -> None:
    """Connect as a page does, say something, and wait until it is answered or the connection is ended."""
    socket = Client(f"ws://localhost:{port}/_event/?EIO=4&transport=websocket&token={SECRET}", headers=HEADERS)  # pyright: ignore[reportArgumentType] - its default is None
    try:
        socket.receive(timeout=10)
        socket.send("40/_event," + ("" if boot is None else json.dumps({"event": boot})))
        socket.receive(timeout=10)
        socket.send(message)
        socket.receive(timeout=0.3)
        socket.close()
    except ConnectionClosed:
        pass


def test_nothing_that_a_stranger_says_is_printed(tmp_path: Path) -> None:
    port = free_ports()
    environ = REQUIRED | {
        "PORT": str(port),
        "DATABASE_URL": f"sqlite:///{tmp_path / 'c.db'}",
        "COMPUTE_ENDPOINT": "http://127.0.0.1:1",
    }
    with Program("-m", "comfyweb", environ=environ) as program:
        program.answers(f"http://localhost:{port}/healthz")
        before = len("\n".join(program.lines))
        for message in GARBAGE * 5:
            say(port, message)
        say(port, "9", boot=FORGED + SECRET)
        program.answers(f"http://localhost:{port}/healthz")
    printed = "\n".join(program.lines)
    assert SECRET not in printed
    assert not [line for line in program.lines if line.startswith("2026-01-01")]
    assert "\x1b" not in printed
    assert len(printed) - before < MOST_BYTES, printed
