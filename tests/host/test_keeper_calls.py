"""The host's calls on loopback: who may ask what, and that no client is a trouble to another."""

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.host.keeping import Keeping, keeping
from tests.host.surroundings import until
from vm_setup.host import commands, tokens
from vm_setup.host.messages import Message
from vm_setup.keeper import daemon, words
from vm_setup.keeper.server import MOST_CONNECTIONS, Server

pytestmark = pytest.mark.slow

KEYS = json.loads((Path(__file__).parents[1] / "fixtures/host/status_ready.json").read_text()).keys()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Keeping]:
    with keeping(tmp_path, monkeypatch) as made:
        made.start()
        until(lambda: made.status().get("phase") == "ready" and made.call("GET", "/_host/status")[0] == 200)
        yield made


def test_anybody_learns_its_health_and_nothing_else(machine: Keeping) -> None:
    assert machine.call("GET", "/_host/health", token="") == (200, {"phase": "ready"})


def test_the_status_has_all_that_the_contract_names(machine: Keeping) -> None:
    assert machine.status().keys() == KEYS


def test_through_the_gate_the_status_needs_a_token(machine: Keeping) -> None:
    through = {"X-Forwarded-For": "203.0.113.7"}
    assert machine.call("GET", "/_host/status", token="", **through) == (401, {"error": "unauthorised"})
    assert machine.call("GET", "/_host/status", **through)[0] == 200


def test_the_address_is_the_one_that_the_client_wrote(machine: Keeping) -> None:
    def call(proto: str) -> int:
        url = "https://comfy.example.com/_host/status"
        digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        token = machine.app.token(purpose="host", htm="GET", htu=url, body_sha256=digest)
        said = {"Host": "comfy.example.com", "X-Forwarded-Proto": proto, "X-Forwarded-For": "203.0.113.7"}
        return machine.call("GET", "/_host/status", token=token, **said)[0]

    assert (call("https"), call("http")) == (200, 401)


COMMANDS: list[tuple[str, str, Any]] = [
    ("POST", "/_host/keep-alive", None),
    ("POST", "/_host/extend", {"minutes": 30}),
    ("POST", "/_host/drain", {"deadline_seconds": 600, "stay": True}),
    ("DELETE", "/_host/drain", None),
    ("POST", "/_host/revoke", {"session": "s-9"}),
]


@pytest.mark.parametrize(("method", "path", "body"), COMMANDS)
def test_a_command_needs_a_token_made_for_it(machine: Keeping, method: str, path: str, body: Any) -> None:
    for token in ("", "x", machine.app.ticket(), machine.app.command(method, path, body)):
        assert machine.call(method, path, body, token=token) == (401, {"error": "unauthorised"})
    before = machine.saved["idle"]["holds"]
    assert (machine.saved["drain"], before) == (None, {})
    status, told = machine.call(method, path, body)
    assert (status, told["phase"]) == (200, "draining" if method == "POST" and "drain" in path else "ready")


def test_commands_do_what_they_say_and_are_remembered_before_they_are_answered(machine: Keeping) -> None:
    machine.call("POST", "/_host/extend", {"minutes": 30})
    assert "extended" in machine.saved["idle"]["holds"]
    machine.call("POST", "/_host/drain", {"deadline_seconds": 600, "stay": True})
    assert machine.saved["drain"]["stay"] is True
    machine.call("DELETE", "/_host/drain")
    assert machine.saved["drain"] is None
    machine.call("POST", "/_host/revoke", {"session": "s-9"})
    assert list(machine.saved["tokens"]["revoked"]) == ["s-9"]


def test_a_token_is_good_once_also_after_a_restart(machine: Keeping) -> None:
    url = f"http://127.0.0.1:{machine.port}/_host/keep-alive"
    digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    token = machine.app.token(purpose="host", htm="POST", htu=url, body_sha256=digest)
    assert machine.call("POST", "/_host/keep-alive", token=token)[0] == 200
    assert machine.call("POST", "/_host/keep-alive", token=token)[0] == 401
    machine.stop()
    machine.start()
    until(lambda: machine.call("GET", "/_host/status")[0] == 200)
    assert machine.call("POST", "/_host/keep-alive", token=token)[0] == 401


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/_host/extend", {"minutes": -1}, 400),
        ("POST", "/_host/extend", ["minutes"], 400),
        ("POST", "/_host/poweroff", None, 400),
        ("DELETE", "/_host/keep-alive", None, 400),
        ("GET", "/_host/keep-alive", None, 404),
        ("GET", "/", None, 404),
        ("PUT", "/_host/drain", None, 501),
    ],
)
def test_what_is_no_call_is_refused(machine: Keeping, method: str, path: str, body: Any, status: int) -> None:
    assert machine.call(method, path, body)[0] == status


def test_the_journal_is_for_the_app(machine: Keeping) -> None:
    assert machine.call("GET", "/_host/logs", token="")[0] == 401
    assert machine.call("GET", "/_host/logs?lines=7") == (200, "a line of the journal\n")
    for asked, lines in (("?lines=99999", 2000), ("?lines=x", 200), ("", 200), ("?lines=%D9%A3", 200)):
        machine.call("GET", f"/_host/logs{asked}")
        assert f"--lines={lines} " in machine.programs.called[-1]


def test_without_a_verifier_commands_are_refused_and_the_page_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "verifier", lambda: None)
    with keeping(tmp_path, monkeypatch) as machine:
        machine.start()
        until(lambda: machine.status().get("phase") == "ready")
        assert machine.call("POST", "/_host/keep-alive")[0] == 401
        assert words.NO_CHECK in machine.status()["warnings"]


def raw(port: int, sent: bytes) -> str:
    """Send bytes and return the first line of the answer; nothing when the other side hangs up."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(sent)
        try:
            return client.recv(100).partition(b"\r\n")[0].decode()
        except ConnectionError:
            return ""


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"Content-Length: 65537\r\n", "413"),
        (b"Content-Length: -1\r\n", "411"),
        (b"Content-Length: x\r\n", "411"),
        (b"Content-Length: \xb2\r\n", "411"),
        (b"Transfer-Encoding: chunked\r\n", "411"),
        (b"X: " + b"x" * 70_000 + b"\r\n", "431"),
        (b"X: y\r\n" * 200, "431"),
    ],
)
def test_a_body_that_is_too_long_or_of_unknown_length_is_refused(machine: Keeping, head: bytes, status: str) -> None:
    assert status in raw(machine.port, b"POST /_host/activity HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n")
    assert machine.status()["phase"] == "ready"


@pytest.mark.parametrize(
    "sent", [b"\x00\xff\x16\x03\r\n\r\n", b"GET\r\n\r\n", b"\r\n" * 1000, b"X" * 70_000 + b"\r\n\r\n"]
)
def test_what_is_no_http_is_no_trouble(machine: Keeping, sent: bytes) -> None:
    assert "200" not in raw(machine.port, sent)
    assert machine.status()["phase"] == "ready"


@pytest.mark.parametrize("blank", ["\x85", "\xa0", "\x1c", "\t", " ", "\xa0x"])
def test_a_path_ends_where_nginx_has_ended_it(machine: Keeping, blank: str) -> None:
    sent = f"POST /_host/activity{blank} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    assert " 400 " in raw(machine.port, sent.encode("latin-1"))


def test_input_from_elsewhere_counts_when_the_gate_was_asked(machine: Keeping) -> None:
    through = {"X-Forwarded-For": "203.0.113.7"}
    assert machine.call("POST", "/_host/activity", token="", **through)[0] == 401
    assert machine.call("POST", "/_host/activity", token="", **through, **{"X-Comfyweb-Entered": "yes"})[0] == 204


class Nothing:
    """A host that has nothing to tell."""

    def health(self) -> Message:
        return {"phase": "ready"}

    status = health

    def journal(self, lines: int) -> bytes:
        return b""

    def check(self, token: str, request: tokens.Request) -> tokens.Claims | None:
        return None

    def obey(self, command: commands.Command, claims: tokens.Claims) -> None:
        raise AssertionError

    def used(self) -> None:
        raise AssertionError


def test_clients_that_are_slow_are_hung_up_on_and_too_many_are_turned_away() -> None:
    server = Server(Nothing(), port=0, longest=0.5)
    server.start()
    try:
        with ExitStack() as held:
            slow = [socket.create_connection(("127.0.0.1", server.port), 10) for _ in range(MOST_CONNECTIONS + 5)]
            for client in slow:
                held.enter_context(client)
                client.settimeout(20)
            slow[0].sendall(b"GET /_host/health HTTP/1.1\r\nX: ")
            assert [client.recv(1) for client in slow] == [b""] * len(slow)
        assert "200" in raw(server.port, b"GET /_host/health HTTP/1.0\r\n\r\n")
    finally:
        server.shutdown()
        server.server_close()
