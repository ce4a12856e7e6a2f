"""Files from Cloud Storage, by the machine's service account, and from https: against servers on loopback."""

import http.server
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.host.authority import issue
from vm_setup.setup.fetching import fetch
from vm_setup.setup.system import Trouble

TOKEN_PATH = "/computeMetadata/v1/instance/service-accounts/default/token"
FLAVOR = {"Metadata-Flavor": "Google"}
Answer = tuple[int, dict[str, str], bytes]


class Place:
    """A server that answers by path, and remembers what it was asked with."""

    metadata: "Place"

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[tuple[str, str]] = []
        place = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                place.asked.append((self.path, self.headers.get("Authorization", "")))
                status, headers, body = place.answers.get(self.path, (404, {}, b"<Error>NoSuchKey</Error>"))
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002 - the base class's name

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def place() -> Iterator[Callable[[], Place]]:
    with ExitStack() as stack:

        def made() -> Place:
            found = Place()
            stack.callback(found.close)
            return found

        yield made


@pytest.fixture
def cloud(place: Callable[[], Place], monkeypatch: pytest.MonkeyPatch) -> Place:
    """Return Cloud Storage, with a metadata server that gives tokens."""
    found, metadata = place(), place()
    metadata.answers[TOKEN_PATH] = (200, FLAVOR, json.dumps({"access_token": "ya29.t0k3n"}).encode())
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://{found.address}/")
    monkeypatch.setenv("GCE_METADATA_HOST", metadata.address)
    found.metadata = metadata
    return found


def test_an_object_is_read_as_the_machines_service_account(cloud: Place) -> None:
    cloud.answers["/keys/a%20folder/cert.pem"] = (200, {}, b"content")
    assert fetch("gs://keys/a folder/cert.pem") == b"content"
    assert cloud.asked == [("/keys/a%20folder/cert.pem", "Bearer ya29.t0k3n")]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            (403, {}, b"<Error>AccessDenied</Error>"),
            "may not read gs://keys/cert.pem: give its service account the role",
        ),
        ((401, {}, b""), "may not read"),
        ((404, {}, b""), "there is nothing at gs://keys/cert.pem"),
        ((503, {}, b""), "answers 503"),
        ((200, {}, b"x" * 300_000), "too long"),
        ((200, {"Content-Length": "99"}, b"half"), "ends in its middle"),
        ((307, {"Location": "http://127.0.0.1:1/"}, b""), "answers 307"),
    ],
)
def test_what_it_refuses_is_said_with_what_to_do(cloud: Place, answer: Answer, words: str) -> None:
    cloud.answers["/keys/cert.pem"] = answer
    with pytest.raises(Trouble, match=words):
        fetch("gs://keys/cert.pem")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((404, FLAVOR, b""), "no service account"),
        ((200, {}, b'{"access_token": "forged"}'), "gives no token"),
        ((200, FLAVOR, b"<html>"), "gives no token"),
        ((200, FLAVOR, b'{"access_token": "two words"}'), "gives no token"),
        ((500, FLAVOR, b""), "gives no token"),
    ],
)
def test_without_a_token_nothing_is_asked_for(cloud: Place, answer: Answer, words: str) -> None:
    cloud.metadata.answers[TOKEN_PATH] = answer
    with pytest.raises(Trouble, match=words):
        fetch("gs://keys/cert.pem")
    assert cloud.asked == []


def test_a_storage_that_is_down_is_said(cloud: Place) -> None:
    cloud.close()
    with pytest.raises(Trouble, match=r"gs://keys/cert\.pem can't be had \(.*refused"):
        fetch("gs://keys/cert.pem")


@pytest.fixture
def site(place: Callable[[], Place], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Return a web site, with a certificate that this process trusts."""
    found, own = place(), issue("localhost")
    (tmp_path / "own.pem").write_bytes(own.chain)
    (tmp_path / "own.key").write_bytes(own.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "own.pem", tmp_path / "own.key")
    found.server.socket = context.wrap_socket(found.server.socket, server_side=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "own.pem"))
    return found


def address(site: Place, path: str) -> str:
    return f"https://localhost:{site.server.server_port}{path}"


def test_a_file_by_https_is_read_without_the_machines_token(site: Place) -> None:
    site.answers["/cert.pem"] = (200, {}, b"content")
    assert fetch(address(site, "/cert.pem")) == b"content"
    assert site.asked == [("/cert.pem", "")]


def test_a_redirect_is_followed_to_https_alone(site: Place, place: Callable[[], Place]) -> None:
    plain = place()
    plain.answers["/key"] = (200, {}, b"content")
    site.answers["/here"] = (302, {"Location": address(site, "/there")}, b"")
    site.answers["/there"] = (200, {}, b"content")
    site.answers["/away"] = (302, {"Location": f"http://{plain.address}/key"}, b"")
    site.answers["/round"] = (302, {"Location": "/round"}, b"")
    assert fetch(address(site, "/here")) == b"content"
    with pytest.raises(Trouble, match="answers 302"):
        fetch(address(site, "/away"))
    with pytest.raises(Trouble, match="leads from one address to the next"):
        fetch(address(site, "/round"))
    assert plain.asked == []


def test_an_address_without_a_port_that_can_be_is_said() -> None:
    with pytest.raises(Trouble, match=r"can't be had \(Port out of range"):
        fetch("https://localhost:99999/cert.pem")


def test_a_site_that_is_not_trusted_is_not_believed(site: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    site.answers["/cert.pem"] = (200, {}, b"content")
    with pytest.raises(Trouble, match=r"can't be had .*certificate verify failed"):
        fetch(address(site, "/cert.pem"))
