"""What surrounds a keeper in its tests: servers that misbehave on real sockets, clocks, fake programs."""

import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

from vm_setup.host.messages import Now

HTML = b"<html><body>502 Bad Gateway</body></html>"


class Peer:
    """An HTTP server on loopback. `answers` maps paths to JSON values; `mode` is how it misbehaves.

    Modes: `ok`, `html` (a page instead of JSON), `error` (500), `truncated`, `huge`, `hang` (says nothing), `drip` (one
    byte at a time).
    """

    def __init__(self, answers: dict[str, Any], *, headers: dict[str, str] | None = None) -> None:
        self.answers = answers
        self.headers = headers or {}
        self.mode = "ok"
        self.asked: list[str] = []
        self.put: dict[str, list[Any]] = {}
        self.over = threading.Event()
        self._server = _Server(self)
        threading.Thread(target=lambda: self._server.serve_forever(0.02), daemon=True).start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def authority(self) -> str:
        """The same without the scheme."""
        return self.url.removeprefix("http://")

    def close(self) -> None:
        """Listen no more: connections are refused."""
        self.over.set()
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients hang up: that is what is tested."""


class _Handler(BaseHTTPRequestHandler):
    @property
    def peer(self) -> Peer:
        return cast("_Server", self.server).peer

    def do_GET(self) -> None:
        peer, path = self.peer, self.path.partition("?")[0]
        peer.asked.append(self.path)
        if "wait_for_change=true" in self.path:
            self._wait_for_change()
        if peer.mode == "hang":
            peer.over.wait(20)
            return
        answer = peer.answers.get(path)
        status = 404 if answer is None else 500 if peer.mode == "error" else 200
        body = HTML if peer.mode == "html" else json.dumps(answer).encode()
        if isinstance(answer, str):
            body = answer.encode()
        if peer.mode == "huge" and path != "/prompt":
            body = body[:-1] + b" " * 3_000_000 + body[-1:]
        self.send_response(status)
        for name, value in peer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self._send(body)

    def do_PUT(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        if self.peer.mode == "hang":
            self.peer.over.wait(20)
        assert len(raw) <= 2048
        self.peer.put.setdefault(self.path.rpartition("/")[2], []).append(json.loads(raw))
        self.send_response(403 if self.peer.mode == "error" else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass

    def _wait_for_change(self) -> None:
        known = self.path.partition("last_etag=")[2].partition("&")[0]
        while self.peer.headers.get("ETag") == known and not self.peer.over.wait(0.02):
            continue

    def _send(self, body: bytes) -> None:
        if self.peer.mode == "drip":
            for byte in body:
                self.wfile.write(bytes([byte]))
                if self.peer.over.wait(0.05):
                    return
        self.wfile.write(body[: len(body) // 2] if self.peer.mode == "truncated" else body)


def comfyui(running: int = 0, pending: int = 0) -> Peer:
    """Return a ComfyUI with so many prompts."""
    peer = Peer({"/system_stats": {"system": {"comfyui_version": "0.33.0"}}, "/api/jobs": {"jobs": []}})
    has(peer, running, pending)
    return peer


def has(peer: Peer, running: int, pending: int = 0) -> None:
    """Let a ComfyUI have so many prompts."""
    peer.answers["/queue"] = {"queue_running": [["x"]] * running, "queue_pending": [["x"]] * pending}
    peer.answers["/prompt"] = {"exec_info": {"queue_remaining": running + pending}}


def metadata(**attributes: str) -> Peer:
    """Return a metadata server with those attributes (underscores stand for dashes)."""
    root = "/computeMetadata/v1"
    peer = Peer(
        {
            f"{root}/project/project-id": "demo-project",
            f"{root}/instance/zone": "projects/1234/zones/us-central1-a",
            f"{root}/instance/name": "comfyui-gpu",
            f"{root}/instance/attributes/": {},
        },
        headers={"Metadata-Flavor": "Google", "ETag": "1"},
    )
    change(peer, **attributes)
    return peer


def change(peer: Peer, **attributes: str) -> None:
    """Set attributes and tell whoever waits for a change."""
    path = "/computeMetadata/v1/instance/attributes/"
    more = {name.replace("_", "-"): value for name, value in attributes.items()}
    peer.answers[path] = {**peer.answers[path], **more}
    peer.headers["ETag"] = str(int(peer.headers["ETag"]) + 1)


@dataclass
class Clocks:
    """Clocks that go on by themselves and that a test can move, each for itself."""

    boot: float = 0.0
    wall: float = 0.0

    def now(self) -> Now:
        """Return this moment."""
        return Now(boot=time.monotonic() + self.boot, wall=time.time() + self.wall)

    def pass_(self, seconds: float) -> None:
        """Let time pass."""
        self.boot += seconds
        self.wall += seconds


@dataclass
class Programs:
    """Fake programs of the system, first in PATH; `called` is what was run."""

    folder: Path
    path: str = field(init=False)

    def __post_init__(self) -> None:
        """Write them."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path = f"{self.folder}:{os.environ['PATH']}"
        self.process("4242")
        self.card("Tesla T4, 1210, 15360, 0")
        self.listens("")
        log = self.folder / "called"
        self._write(
            "systemctl",
            f'if [ "$1" = show ]; then cat {self.folder}/process; echo >> {self.folder}/asked; exit; fi\n'
            f'echo "systemctl $*" >> {log}',
        )
        self._write("sync", f'echo "sync" >> {log}')
        self._write("journalctl", f'echo "journalctl $*" >> {log}; echo "a line of the journal"')

    def process(self, pid: str) -> None:
        """Let ComfyUI's process have that id; 0 for none."""
        (self.folder / "process").write_text(pid)

    def card(self, line: str) -> None:
        """Let nvidia-smi print that; nothing stands for no card."""
        self._write("nvidia-smi", f'echo "{line}"' if line else "exit 9")

    def listens(self, line: str) -> None:
        """Let `ss` print that of who listens on nginx's ports."""
        (self.folder / "listens").write_text(line)
        log = f'echo "ss $*" >> {self.folder}/called'
        self._write("ss", f'case "$*" in *--kill*) {log} ;; *) cat {self.folder}/listens ;; esac')

    def slow_card(self) -> None:
        """Let nvidia-smi hang."""
        self._write("nvidia-smi", "exec sleep 30")

    @property
    def asked(self) -> int:
        """How often ComfyUI's process was asked for."""
        asked = self.folder / "asked"
        return len(asked.read_text()) if asked.exists() else 0

    @property
    def called(self) -> list[str]:
        """The commands that were run, but for questions."""
        log = self.folder / "called"
        return log.read_text().splitlines() if log.exists() else []

    def _write(self, name: str, script: str) -> None:
        new = self.folder / f".{name}"
        new.write_text(f"#!/bin/sh\n{script}\n")
        new.chmod(0o755)
        new.rename(self.folder / name)


def until(holds: Callable[[], object], *, seconds: float = 20) -> Any:
    """Wait until something holds that another thread or process brings about, and return it."""
    end = time.monotonic() + seconds
    while True:
        found = holds()
        if found:
            return found
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.02)


def load(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; an empty one while there is none."""
    try:
        return cast("dict[str, Any]", json.loads(path.read_text()))
    except (OSError, ValueError):
        return {}
