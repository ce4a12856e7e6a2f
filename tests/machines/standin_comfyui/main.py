"""A stand-in for ComfyUI's own main.py: the flags that a host gives it and the calls that a host makes, no graphics.

It dies as the real one does: without a `custom_nodes` folder below its base directory, without a package that it needs,
and when it can't write where it is told to. A prompt's node says in `inputs.seconds` how long its job takes. Its page
is in `web/`; `server.py` and `aiohttp.py` beside it are what the nodes of a host import.
"""

import argparse
import asyncio
import base64
import hashlib
import importlib.util
import json
import logging
import sys
import threading
import time
import uuid
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import iniconfig  # the one package of requirements.txt: without the right environment this is where it ends
from server import Call, PromptServer

PAGE = Path(__file__).parent / "web"
SCRIPTS = {f"/scripts/{script.name}": script for script in (PAGE / "scripts").iterdir()}
VERSION = "0.33.0"
LOG = logging.getLogger("comfyui")


@dataclass
class Job:
    """A prompt and what became of it; moments in milliseconds."""

    number: int
    prompt: dict[str, Any]
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    status: str = "pending"
    created: int = field(default_factory=lambda: int(time.time() * 1000))
    started: int | None = None
    ended: int | None = None

    @property
    def seconds(self) -> float:
        """How long it takes."""
        return sum(float(node.get("inputs", {}).get("seconds", 0)) for node in self.prompt.values())

    def row(self) -> list[Any]:
        """Return it as `/queue` shows it."""
        return [self.number, self.id, self.prompt, {}, list(self.prompt)]

    def told(self) -> dict[str, Any]:
        """Return it as `/api/jobs` shows it."""
        return {
            "id": self.id,
            "status": self.status,
            "create_time": self.created,
            "execution_start_time": self.started,
            "execution_end_time": self.ended,
            "outputs_count": int(self.status == "completed"),
            "preview_output": None,
        }


class Queue:
    """Does the jobs, one after the other, each leaving a file in `output`."""

    def __init__(self, output: Path) -> None:
        self._output = output
        self._jobs: list[Job] = []
        self._count = 0
        self._waiting: deque[Job] = deque()
        self._news = threading.Condition()
        self._interrupted = threading.Event()
        threading.Thread(target=self._work, daemon=True).start()

    def add(self, prompt: dict[str, Any]) -> Job:
        """Put a job at the end."""
        with self._news:
            job = Job(self._count, prompt)
            self._count += 1
            self._jobs.append(job)
            self._waiting.append(job)
            self._news.notify()
        return job

    def interrupt(self) -> None:
        """End the job that runs."""
        self._interrupted.set()

    def clear(self) -> None:
        """Forget the jobs that wait."""
        with self._news:
            self._waiting.clear()
            self._jobs = [job for job in self._jobs if job.status != "pending"]

    def all(self, status: str = "") -> list[Job]:
        """Return the jobs, or those in one status."""
        with self._news:
            return [job for job in self._jobs if status in ("", job.status)]

    def _work(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._waiting)
                job = self._waiting.popleft()
                job.status, job.started = "in_progress", int(time.time() * 1000)
                self._interrupted.clear()
            stopped = self._interrupted.wait(job.seconds)
            if not stopped:
                (self._output / f"ComfyUI_{job.number + 1:05}_.png").write_bytes(b"\x89PNG\r\n")
            with self._news:
                job.status, job.ended = "failed" if stopped else "completed", int(time.time() * 1000)


class Calls(BaseHTTPRequestHandler):
    """The calls, each also below /api."""

    protocol_version = "HTTP/1.1"

    def __init__(self, queue: Queue, web: dict[str, Path], *rest: Any) -> None:
        self.queue = queue
        self.web = web
        super().__init__(*rest)

    def do_GET(self) -> None:
        """Answer what changes nothing."""
        path = self.path.partition("?")[0].removeprefix("/api")
        running, pending = self.queue.all("in_progress"), self.queue.all("pending")
        done = [job for job in self.queue.all() if job.ended is not None]
        answers: dict[str, Any] = {
            "/system_stats": {
                "system": {"os": "posix", "comfyui_version": VERSION, "argv": sys.argv, "ram_total": 1, "ram_free": 1},
                "devices": [{"name": "cpu", "type": "cpu", "index": None, "vram_total": 1, "vram_free": 1}],
            },
            "/queue": {
                "queue_running": [job.row() for job in running],
                "queue_pending": [job.row() for job in pending],
            },
            "/prompt": {"exec_info": {"queue_remaining": len(running) + len(pending)}},
            "/history": {job.id: {"prompt": job.row(), "status": {"completed": True}, "outputs": {}} for job in done},
            "/jobs": {
                "jobs": [job.told() for job in reversed(self.queue.all())],
                "pagination": {"offset": 0, "limit": 100, "total": len(self.queue.all()), "has_more": False},
            },
            "/extensions": sorted(self.web),
        }
        if self.headers.get("Upgrade", "").lower() == "websocket" and path == "/ws":
            self._websocket()
        elif script := self.web.get(path) or SCRIPTS.get(path):
            self._send(200, script.read_bytes(), "text/javascript")
        elif path == "/":
            self._send(200, (PAGE / "index.html").read_bytes(), "text/html")
        elif call := PromptServer.instance.routes.calls.get(path):
            self._send(200, json.dumps(asyncio.run(_answer(call))).encode())
        elif path in answers:
            self._send(200, json.dumps(answers[path]).encode(), "application/json")
        else:
            self._send(404, b"404: Not Found", "text/plain")

    def do_POST(self) -> None:
        """Answer what does something."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        match self.path.removeprefix("/api"):
            case "/prompt":
                job = self.queue.add(json.loads(body)["prompt"])
                self._send(200, json.dumps({"prompt_id": job.id, "number": job.number, "node_errors": {}}).encode())
            case "/interrupt":
                self.queue.interrupt()
                self._send(200, b"")
            case "/queue":
                self.queue.clear()
                self._send(200, b"")
            case _:
                self._send(404, b"404: Not Found", "text/plain")

    def _websocket(self) -> None:
        """Shake hands (RFC 6455, 4.2.2) and say nothing, as ComfyUI does in a tab in which nothing happens."""
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key.encode(), usedforsecurity=False).digest()).decode()
        self.send_response(101)
        for name, value in {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": accept}.items():
            self.send_header(name, value)
        self.end_headers()
        while self.connection.recv(4096):
            pass
        self.close_connection = True

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        """Log nothing: ComfyUI doesn't either."""

    def _send(self, status: int, content: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


async def _answer(call: Call) -> Any:
    """Let a node answer its own call."""
    return await call(None)


def arguments() -> argparse.Namespace:
    """Read the command line. An unknown flag ends the process, as it ends ComfyUI."""
    parser = argparse.ArgumentParser()
    for name in ("--base-directory", "--input-directory", "--output-directory", "--temp-directory", "--user-directory"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--listen", default="127.0.0.1", nargs="?", const="0.0.0.0,::")
    parser.add_argument("--port", type=int, default=8188)
    parser.add_argument("--database-url", default="")
    parser.add_argument("--extra-model-paths-config", nargs="+", action="append")
    parser.add_argument("--max-upload-size", type=float, default=100)
    parser.add_argument("--front-end-version")
    for flag in ("cpu", "enable-manager", "disable-auto-launch", "dont-print-server", "multi-user", "log-stdout"):
        parser.add_argument(f"--{flag}", action="store_true")
    parser.add_argument("--verbose", default="INFO", const="DEBUG", nargs="?")
    return parser.parse_args()


def load_nodes(folder: Path) -> dict[str, Path]:
    """Import every custom node, and return the scripts that they bring for the page, by their path in the URL."""
    found: dict[str, Path] = {}
    for node in sorted(folder.iterdir()):
        source = node / "__init__.py"
        if not source.exists():
            continue
        try:
            spec = importlib.util.spec_from_file_location(node.name, source, submodule_search_locations=[str(node)])
            if spec is None or spec.loader is None:
                continue
            module = importlib.util.module_from_spec(spec)
            sys.modules[node.name] = module
            spec.loader.exec_module(module)
        except Exception:
            LOG.exception("Cannot import %s module for custom nodes", node)
            continue
        web = cast("str | None", getattr(module, "WEB_DIRECTORY", None))
        if web is not None:
            scripts = (node / web).resolve().rglob("*.js")
            found |= {
                f"/extensions/{node.name}/{script.relative_to((node / web).resolve())}": script for script in scripts
            }
    return found


def main() -> None:
    """Serve until the process ends."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    asked = arguments()
    base = asked.base_directory or Path(__file__).parent
    web = load_nodes(base / "custom_nodes")
    for config in asked.extra_model_paths_config or []:
        said = dict(line.strip().split(": ", 1) for line in Path(config[0]).read_text().splitlines() if ": " in line)
        web |= load_nodes(Path(said["base_path"]) / said["custom_nodes"])
    output = asked.output_directory or base / "output"
    for folder in (output, asked.temp_directory or base / "temp", base / "user"):
        folder.mkdir(exist_ok=True)
    if database := asked.database_url.removeprefix("sqlite:///"):
        Path(database).open("a").close()
    LOG.info("ComfyUI version: %s, with iniconfig from %s", VERSION, iniconfig.__file__)
    server = ThreadingHTTPServer((asked.listen, asked.port), partial(Calls, Queue(output), web))
    LOG.info("To see the GUI go to: http://%s:%s", asked.listen, asked.port)
    server.serve_forever()


if __name__ == "__main__":
    main()
