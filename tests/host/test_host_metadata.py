"""What the machine is told: believed only from Google's server, and only what can be meant."""

import contextlib
import re
import threading
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from vm_setup.base import files
from vm_setup.base.paths import Paths
from vm_setup.host import allowed
from vm_setup.setup import metadata, units
from vm_setup.setup.metadata import DEFAULT_GIT, DEFAULT_RELEASE, Silent, Wanted

GOOGLE = {"Metadata-Flavor": "Google"}


@contextlib.contextmanager
def answering(status: int, body: bytes, headers: dict[str, str]) -> Generator[tuple[str, list[str]]]:
    """A server with one answer; yields its address and the headers by which it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.path} {self.headers.get('Metadata-Flavor')}")
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Be quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_all_attributes_come_in_one_call_that_says_who_asks() -> None:
    with answering(200, b'{"comfyweb-comfyui": "v1", "odd": 3}', GOOGLE) as (address, asked):
        assert metadata.fetch(f"http://{address}") == {"comfyweb-comfyui": "v1"}
    assert asked == ["/computeMetadata/v1/instance/attributes/?recursive=true&alt=json Google"]


@pytest.mark.parametrize(
    ("status", "body", "headers", "words"),
    [
        (403, b"{}", GOOGLE, "answers 403"),
        (404, b"Not Found", GOOGLE, "answers 404"),
        (301, b"", GOOGLE | {"Location": "http://127.0.0.1:9/"}, "answers 301"),
        (200, b'{"comfyweb-comfyui": "v1"}', {}, "is not the metadata server"),
        (200, b"<html>Log in to the network</html>", {"Content-Type": "text/html"}, "is not the metadata server"),
        (200, b"<html>502 Bad Gateway</html>", GOOGLE, "no JSON object"),
        (200, b'["v1"]', GOOGLE, "no JSON object"),
        (200, b'{"comfyweb-comfyui": "v1', GOOGLE, "no JSON object"),
        (200, b"", GOOGLE, "no JSON object"),
    ],
)
def test_nothing_else_is_taken_for_a_value(status: int, body: bytes, headers: dict[str, str], words: str) -> None:
    with answering(status, body, headers) as (address, _), pytest.raises(Silent, match=words):
        metadata.fetch(f"http://{address}")


def test_a_server_that_is_not_there_is_silent() -> None:
    with pytest.raises(Silent, match="does not answer"):
        metadata.fetch("http://127.0.0.1:9")


def test_it_is_asked_again_with_longer_waits_until_patience_ends() -> None:
    time, waits = 0.0, list[float]()

    def sleep(seconds: float) -> None:
        nonlocal time
        waits.append(seconds)
        time += seconds

    def silent() -> metadata.Attributes:
        raise Silent("not yet")

    with pytest.raises(Silent):
        metadata.with_patience(silent, seconds=60, now=lambda: time, sleep=sleep)
    assert waits[:3] == [0.1, 0.2, 0.4]
    assert max(waits) <= 10
    assert sum(waits) <= 60


def test_of_two_who_keep_an_answer_at_once_one_waits(tmp_path: Path) -> None:
    paths = Paths(root=tmp_path)
    with files.locked(paths.runtime / "metadata.lock"):
        second = threading.Thread(target=metadata.keep, args=(paths, {"allowed_ip": "203.0.113.7"}))
        second.start()
        second.join(0.2)
        assert second.is_alive()
        assert metadata.last_good(paths) is None
    second.join(20)
    assert metadata.last_good(paths) == {"allowed_ip": "203.0.113.7"}


def test_the_last_good_answer_is_kept_without_what_is_not_of_use_later(tmp_path: Path) -> None:
    paths = Paths(root=tmp_path)
    assert metadata.last_good(paths) is None
    metadata.keep(paths, {"comfyweb-comfyui": "v1", "startup-script": "long", "comfyweb-command": "[]"})
    assert metadata.last_good(paths) == {"comfyweb-comfyui": "v1"}
    assert (paths.state / metadata.LAST_GOOD).stat().st_mode & 0o777 == 0o600
    (paths.state / metadata.LAST_GOOD).write_text("{ cut o")
    assert metadata.last_good(paths) is None


def test_what_is_not_said_is_the_hosts_choice() -> None:
    assert Wanted.read({}) == Wanted()
    assert Wanted.read({"comfyweb-comfyui": "  "}).release == DEFAULT_RELEASE


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("comfyweb-comfyui", "--upload-pack=touch /tmp/x"),
        ("comfyweb-comfyui", "v1; reboot"),
        ("comfyweb-comfyui", "../../etc"),
        ("comfyweb-comfyui-git", "ext::sh -c reboot"),
        ("comfyweb-comfyui-git", "-oProxyCommand=reboot"),
        ("comfyweb-comfyui-torch", "torch==2.11.0 --pre"),
        ("comfyweb-comfyui-torch", "-r /etc/shadow"),
        ("comfyweb-comfyui-index", "https://pypi.example.com/simple -e ."),
    ],
)
def test_what_can_not_be_meant_counts_as_unset_and_is_told(key: str, value: str) -> None:
    wanted = Wanted.read({key: value})
    [words] = wanted.wrong
    assert key in words
    assert (wanted.release, wanted.git) == (DEFAULT_RELEASE, DEFAULT_GIT)
    assert (wanted.torch, wanted.indexes) == (Wanted().torch, ())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("domain_name", "https://comfy.example.com/"),
        ("domain_name", "comfy.example.com; return 200"),
        ("domain_name", "203.0.113.7"),
        ("domain_name", "localhost"),
        ("domain_name", "-comfy.example.com"),
        ("domain_name", "*.example.com"),
        ("domain_name", f"{'a' * 64}.example.com"),
        ("ssl_email", "nobody"),
        ("ssl_email", "-oops@example.com"),
        ("comfyweb-acme-server", "http://acme.example.com/directory"),
        ("comfyweb-acme-server", "https://acme.example.com/a b"),
        ("cf_cert_path", "http://example.com/cert.pem"),
        ("cf_cert_path", "gs://bucket"),
        ("cf_cert_path", "/etc/shadow"),
        ("cf_cert_path", "file:///etc/shadow"),
    ],
)
def test_how_it_is_reached_is_checked_too(key: str, value: str) -> None:
    wanted = Wanted.read({key: value})
    [words] = wanted.wrong
    assert key in words
    assert wanted == Wanted(wrong=wanted.wrong)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (" Comfy.Example.COM. ", "comfy.example.com"),
        ("bücher.example.com", "xn--bcher-kva.example.com"),
        ("a.b-c.example.museum", "a.b-c.example.museum"),
        ("", ""),
    ],
)
def test_a_host_name_is_read_as_certificates_have_it(written: str, meant: str) -> None:
    assert Wanted.read({"domain_name": written}) == Wanted(domain=meant)


def test_a_certificate_of_cloudflare_has_two_addresses_or_is_ignored() -> None:
    pair = {"cf_cert_path": "gs://keys/a b.pem".replace(" ", "%20"), "cf_key_path": "https://keys.example.com:8443/k"}
    assert Wanted.read(pair).origin_pair == tuple(pair.values())
    for key, value in pair.items():
        [words] = Wanted.read({key: value}).wrong
        assert "only one" in words


def test_a_web_page_in_the_place_of_addresses_is_told_in_few_words() -> None:
    wanted = Wanted.read({"allowed_ip": "<html> " * 5000})
    assert wanted.allowed.unusable
    assert len(wanted.wrong) == 4
    assert "4997 more" in wanted.wrong[-1]


def test_every_key_and_unit_is_documented() -> None:
    documents = Path(__file__).parents[2] / "docs"
    text = (documents / "host.md").read_text()
    modules = (Path(metadata.__file__).parents[1]).rglob("*.py")
    of_the_set_up = Path(metadata.__file__).read_text() + Path(allowed.__file__).read_text()
    keys = set(re.findall(r'"(comfyweb-[\w-]*|allowed_ip|domain_name|ssl_email|cf_\w+_path)"', of_the_set_up))
    of_the_keeper = {key for module in modules for key in re.findall(r'\.get\("(comfyweb-[\w-]+)"', module.read_text())}
    assert {"comfyweb-idle-minutes", "comfyweb-comfyui"} <= keys | of_the_keeper
    assert len(keys) == 12
    contract = (documents / "contract.md").read_text()
    assert {key for key in keys | of_the_keeper if f"`{key}`" not in text + contract} == set()
    assert "| `comfyweb-idle-minutes`" in text
    assert DEFAULT_RELEASE in text
    assert " ".join(metadata.DEFAULT_TORCH) in text
    assert {name for name in units.names() if f"`{name.partition('.')[0]}." not in text} == set()
