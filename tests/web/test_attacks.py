"""What strangers do to the running server: sockets by the thousand, slow and broken requests, raw frames, odd paths."""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Generator
from contextlib import ExitStack

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simple_websocket import Client, ConnectionClosed

from comfyweb.__main__ import HEAD_WITHIN_MILLISECONDS
from comfyweb.access.throttle import ATTEMPTS
from comfyweb.ui.crowd import OF_ONE_NETWORK
from tests.launching import REQUIRED, ROOT, Program, free_ports

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / ".web/build/client/index.html").exists(), reason="the page is not built"),
]
SOCKETS = 3000
LOGIN = {"password": REQUIRED["AUTH_PASSWORD"]}
HANDSHAKE = (
    b"GET /_event/?EIO=4&transport=websocket&token=t HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
    b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
IDLE = [b"", b"GET / HT", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", HANDSHAKE]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[int, Program]]:
    """Serve; afterwards nothing of what was sent may have ended in a traceback."""
    port = free_ports()
    environ = {"PORT": str(port), "COMPUTE_ENDPOINT": "http://127.0.0.1:1"}
    environ["DATABASE_URL"] = f"sqlite:///{tmp_path_factory.mktemp('app') / 'c.db'}"
    with Program("-m", "comfyweb", environ=REQUIRED | environ) as program:
        program.answers(f"http://localhost:{port}/healthz")
        yield port, program
    printed = "\n".join(program.lines)
    assert "Traceback" not in printed, printed[:5000]
    assert len(printed) < 20_000, "strangers can't fill the log"


def test_the_owner_gets_in_beside_thousands_of_idle_sockets(app: tuple[int, Program]) -> None:
    port, _ = app
    with ExitStack() as opened:
        held: list[socket.socket] = []
        for number in range(SOCKETS):
            source = (f"127.0.1.{number % 5}", 0)
            held.append(opened.enter_context(socket.create_connection(("127.0.0.1", port), 10, source)))
            held[-1].sendall(IDLE[number % len(IDLE)])
        with httpx.Client(base_url=f"http://localhost:{port}", timeout=30) as owner:
            assert owner.get("/login").status_code == 200
            token = owner.post("/api/auth/login", json=LOGIN).json()["token"]
            assert owner.get("/api/instance/status", headers={"x-auth-token": token}).status_code == 200
        page = Client(f"ws://localhost:{port}/_event/?EIO=4&transport=websocket&token=o")
        page.send("40/_event,")
        assert any("/_event" in str(page.receive(timeout=10)) for _ in range(2))
        page.close()
        end = time.monotonic() + 3 * HEAD_WITHIN_MILLISECONDS / 1000
        while (left := sum(_is_open(one) for one in held)) > 5 * OF_ONE_NETWORK:
            assert time.monotonic() < end, f"{left} idle connections are still there"
            time.sleep(0.5)


def _is_open(connection: socket.socket) -> bool:
    connection.settimeout(0)
    try:
        while connection.recv(65536):
            pass
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


SLOW = {
    "head": b"GET / HTTP/1.1\r\nX-A: ",
    "body": b"POST /api/auth/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999\r\n\r\n",
    "chunks": b"POST /api/auth/login HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
    "http/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    "a handshake that goes no further": HANDSHAKE,
    "a request to the page that promises a body": b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999\r\n\r\n",
}


async def test_whoever_sends_slowly_is_cut_off(app: tuple[int, Program]) -> None:
    async def drip(begin: bytes) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", app[0])
        writer.write(begin)
        gone = asyncio.create_task(reader.read())
        with contextlib.suppress(ConnectionError):
            while not gone.done():
                await asyncio.wait([gone], timeout=2)
                writer.write(b"a" if b"PRI" not in begin and begin is not HANDSHAKE else b"")
        writer.close()

    async with asyncio.timeout(60):
        await asyncio.gather(*(drip(begin) for begin in SLOW.values()))


BROKEN = [
    b"\x00" * 100 + b"\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 1000 + b"\r\n",
    b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n",
    b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200 + b"garbage\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer \xff\xfe\r\nCookie: auth-token=\xff\r\n\r\n",
]


@pytest.mark.parametrize("request_", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_request_hurts_nobody(app: tuple[int, Program], request_: bytes) -> None:
    with socket.create_connection(("127.0.0.1", app[0]), 10) as connection, contextlib.suppress(OSError):
        connection.sendall(request_)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass
    assert httpx.get(f"http://localhost:{app[0]}/healthz").status_code == 200


PATHS = [
    "/..%2f..%2fetc/passwd",
    "/%2e%2e/%2e%2e/etc/passwd",
    "/assets/../../../comfyweb/settings.py",
    "/assets/..%5c..%5c.env",
    "/.env",
    "/comfyweb.db",
    "//evil.example/%2e%2e",
    "/index.html%00.js",
    "/%00",
    "/api%2fauth/check",
    "/api/%2e%2e/healthz",
    "/__spa-fallback",
    "/404",
    "/" + "a" * 8000,
    "/%ff%fe",
    "/assets",
]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path[:30])
def test_no_path_leads_elsewhere(app: tuple[int, Program], path: str) -> None:
    with socket.create_connection(("127.0.0.1", app[0]), 10) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.split(b" ", 2)[1] in {b"401", b"404"}, answer[:200]
    assert b"root:" not in answer
    assert b"content-security-policy" in answer


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "PATCH", "PROPFIND", "GETT"])
def test_no_other_method_does_anything(app: tuple[int, Program], method: str) -> None:
    with httpx.Client(base_url=f"http://localhost:{app[0]}") as http:
        token = http.post("/api/auth/login", json=LOGIN).json()["token"]
        document = http.get("/api/openapi.json").json()
        for path in ["/", "/login", "/nowhere", "/style.css", *document["paths"]]:
            if path == "/api/instance/events" and method == "HEAD":
                continue
            answer = http.request(method, path, headers={"x-auth-token": token, "x-planted": "planted"})
            allowed = {200, 204, 404, 405, 503} if method in {"HEAD", "OPTIONS"} else {404, 405}
            assert answer.status_code in allowed, path
            assert "planted" not in answer.text, "TRACE would show a page what scripts can't see"
            assert "access-control-allow-origin" not in answer.headers
            assert answer.headers["x-content-type-options"] == "nosniff"
        assert http.get("/api/auth/check", headers={"x-auth-token": token}).status_code == 200, "not even a logout"


def test_a_hundred_wrong_passwords_are_ten_guesses_whatever_is_forwarded(app: tuple[int, Program]) -> None:
    transport = httpx.HTTPTransport(local_address="127.0.2.1")
    with httpx.Client(base_url=f"http://localhost:{app[0]}", transport=transport, timeout=30) as http:
        answers = [
            http.post("/api/auth/login", json={"password": f"wrong {n}"}, headers={"x-forwarded-for": f"203.0.113.{n}"})
            for n in range(100)
        ]
    assert [answer.status_code for answer in answers] == [401] * ATTEMPTS + [429] * (100 - ATTEMPTS)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
NAMES = ["event", "connect", "disconnect", "message", "ping", "client_error", "link_token_to_sid", "__disconnect_final"]
PACKETS = st.tuples(
    st.sampled_from("0123456789x"),
    st.sampled_from("0123456789x"),
    st.sampled_from(["", "1-", "2-", "99-", "-1-", "9999999999-"]),
    st.sampled_from(["", "/_event,", "/other,", "/_event", "/", "/?a=b,", "/" + "n" * 999 + ","]),
    st.sampled_from(["", "1", "9" * 150]),
    (st.tuples(st.sampled_from(NAMES), JSON).map(list) | JSON).map(json.dumps)
    | st.sampled_from(["[", '{"_placeholder":true,"num":9}', '["event",{"_placeholder":true,"num":-1}]', "[" * 9000]),
).map("".join)
FRAMES = PACKETS | st.text(max_size=30) | st.binary(max_size=30) | st.just("x" * 20_000)


@settings(max_examples=80, derandomize=True, deadline=None)
@given(joined=st.booleans(), frames=st.lists(FRAMES, min_size=1, max_size=6))
def test_no_frame_hurts_anybody(app: tuple[int, Program], frames: list[str | bytes], *, joined: bool) -> None:
    page = Client(f"ws://localhost:{app[0]}/_event/?EIO=4&transport=websocket&token=t")
    try:
        if joined:
            page.send("40/_event,")
            page.receive(timeout=10)
        for frame in frames:
            page.send(frame)
        page.receive(timeout=0.02)
        page.close()
    except (ConnectionClosed, OSError):
        pass  # the server has ended it
    assert httpx.get(f"http://localhost:{app[0]}/healthz").status_code == 200
