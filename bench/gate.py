"""What the gate adds to a request: nginx as a machine has it, against the same nginx that asks nobody."""

import asyncio
import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.rows import Row, quantile
from bench.site import end, start
from tests.demo.standin_machine import APP, AUDIENCE, App, Clocks
from tests.launching import free_ports
from vm_setup.base import files
from vm_setup.base.clocks import read_clocks
from vm_setup.base.paths import Paths
from vm_setup.gate.world import World
from vm_setup.host.gate import EVERY_SECONDS, Told
from vm_setup.host.tokens import Trust, read_keys
from vm_setup.setup import web

CONNECTIONS, RATE, SECONDS, ROUNDS = 50, 500.0, 2.0, 10
BAR_SECONDS = 0.002
_PATIENCE = 10.0
# It answers at once, so that what is measured is what stands in front of it.
_COMFYUI = """
daemon off; pid {folder}/comfyui.pid; error_log stderr; worker_processes 1;
events {{ worker_connections 1024; }}
http {{ access_log off; keepalive_requests 1000000; server {{ listen 127.0.0.1:{port}; return 200 "ComfyUI\\n"; }} }}
"""


async def gate() -> list[Row]:
    """Measure both in turns, and hold the quietest turn of each against the other.

    At 500 requests a second whatever else the machine does for a hundredth of the time is in the p99 of a turn.
    """
    program = shutil.which("nginx", path=f"/usr/sbin:{os.environ['PATH']}")
    what = f"What the gate adds to a request, {CONNECTIONS} connections, {RATE:.0f} requests a second, p99"
    bar = f"≤ {BAR_SECONDS * 1000:g} ms"
    if program is None:
        return [Row(what=what, figure="not measured: nginx is not installed", bar=bar)]
    with TemporaryDirectory(prefix="gate-") as folder, _front(program, Path(folder)) as (ports, cookie):
        took: dict[str, list[float]] = {name: [] for name in ports}
        middle: dict[str, list[float]] = {name: [] for name in ports}
        for _ in range(ROUNDS):
            for name, port in ports.items():
                seconds = await _paced(port, cookie)
                took[name].append(quantile(seconds, 0.99))
                middle[name].append(quantile(seconds, 0.5))
    added = min(took["gated"]) - min(took["bare"])
    figure = ", ".join(f"{name} {min(took[name]) * 1000:.2f} (p50 {min(middle[name]) * 1000:.2f})" for name in took)
    return [
        Row(
            what=what,
            figure=f"{added * 1000:.2f} ms, of {ROUNDS} turns the quietest: {figure}",
            bar=bar,
            held=added <= BAR_SECONDS,
        )
    ]


async def _paced(port: int, cookie: str) -> list[float]:
    words = (str(port), "/api/queue", cookie, str(CONNECTIONS), str(RATE), str(SECONDS))
    process = await start("bench.paced", dict(os.environ), *words, talks=True)
    try:
        async with asyncio.timeout(SECONDS + 30):
            return json.loads((await process.communicate())[0])
    finally:
        await end(process)


@contextmanager
def _front(nginx: str, root: Path) -> Generator[tuple[dict[str, int], str]]:
    """Run a ComfyUI, the gate, and nginx twice; yield the two ports and a cookie."""
    comfyui, ports = free_ports(), {"bare": free_ports(), "gated": free_ports()}
    world = World(paths=Paths(root=root), comfyui=("127.0.0.1", comfyui))
    app = App(Clocks(), APP)  # pyright: ignore[reportArgumentType] - it only reads the time
    world.paths.gate.mkdir(parents=True)
    web.write_pages(web.Site(paths=world.paths, comfyui=world.comfyui).pages)
    running: list[subprocess.Popen[bytes]] = []
    try:
        config = root / "comfyui.conf"
        config.write_text(_COMFYUI.format(folder=root, port=comfyui), "utf-8")
        running.append(subprocess.Popen([nginx, "-c", config, "-e", "stderr"], stderr=subprocess.DEVNULL))
        running.append(subprocess.Popen([shutil.which("python") or "python", "-m", "bench.gated", root]))
        for name, port in ports.items():
            own = root / name
            own.mkdir()
            site = web.Site(
                paths=world.paths,
                comfyui=world.comfyui,
                http=str(port),
                user="root" if os.geteuid() == 0 else "nobody",
                ipv6=False,
            )
            site.run.mkdir(parents=True, exist_ok=True)
            text = web.render(site).replace(str(site.run), str(own))
            if name == "bare":
                text = text.replace("auth_request /_host/verify;", "")
            (own / "nginx.conf").write_text(f"daemon off;\n{text}", "utf-8")
            running.append(subprocess.Popen([nginx, "-c", own / "nginx.conf", "-e", "stderr"]))
        _say(world, app)
        cookie = _until(lambda: _enter(ports["gated"], app))
        _say(world, app)
        yield ports, cookie
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(_PATIENCE)


def _say(world: World, app: App) -> None:
    trust = Trust(issuer=APP, audience=AUDIENCE, keys=read_keys(app.jwks))
    files.write_object(world.told, Told(at=read_clocks().boot, trust=trust, ready=True).to_json(), durable=False)


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Follow no redirect: the cookie comes with it."""


def _enter(port: int, app: App) -> str:
    """Come in with a ticket, and return the cookie; empty while that can't be done."""
    url = f"http://localhost:{port}/_host/gate?ticket={app.ticket()}"
    try:
        urllib.request.build_opener(_Stay, urllib.request.ProxyHandler({})).open(url, timeout=2)
    except urllib.error.HTTPError as answer:
        return str(answer.headers.get("Set-Cookie", "")).partition(";")[0]
    except OSError:
        return ""
    return ""


def _until(holds: Callable[[], str]) -> str:
    end_ = time.monotonic() + _PATIENCE
    while not (found := holds()):
        if time.monotonic() > end_:
            raise TimeoutError("the gate does not open")
        time.sleep(EVERY_SECONDS / 50)
    return found
