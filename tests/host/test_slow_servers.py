"""Servers that send a byte at a time, each in good time: whoever asks them gives up all the same."""

import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.authority import issue
from vm_setup.setup import fetching, metadata
from vm_setup.setup.system import Trouble

ANSWER = b"HTTP/1.1 200 OK\r\nMetadata-Flavor: Google\r\nContent-Length: 2\r\n\r\n{}"
PAUSE, PATIENCE = 0.02, 0.3  # seconds; all of the answer takes longer


class Slow:
    """A server on loopback whose whole answer comes, with a pause after each byte."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._context = context
        self._over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # nobody has come
            return
        with self._context.wrap_socket(connection, server_side=True) if self._context else connection as peer:
            peer.recv(65536)
            try:
                for byte in ANSWER:
                    peer.sendall(bytes([byte]))
                    self._over.wait(PAUSE)
            except OSError:
                return

    def close(self) -> None:
        self._over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()


@pytest.fixture
def slow(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    context = None
    if getattr(request, "param", "") == "https":
        own = issue("localhost")
        (tmp_path / "own.pem").write_bytes(own.chain + own.key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "own.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "own.pem"))
    made = Slow(context)
    yield made
    made.close()


@pytest.mark.parametrize("slow", ["https"], indirect=True)
def test_a_certificate(slow: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "_SECONDS", PATIENCE)
    with pytest.raises(Trouble, match=r"can't be had .*(too slow|timed out)"):
        fetching.fetch(f"https://localhost:{slow.port}/cert.pem")


def test_the_metadata(slow: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "TIMEOUT_SECONDS", PATIENCE)
    with pytest.raises(metadata.Silent, match=r"too slow|timed out"):
        metadata.fetch(f"http://127.0.0.1:{slow.port}")
