"""The keeper as a process, at a machine of the emulator's: its metadata server, and the stand-in for ComfyUI."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from comfyweb.demo.comfyui import Disk
from comfyweb.demo.comfyui_api import StandInComfyUI
from comfyweb.demo.listening import bound
from tests.cloudbox import CloudBox
from tests.demo.standin_machine import APP, App
from tests.host.surroundings import Clocks, Programs, load, until
from tests.launching import free_ports

pytestmark = pytest.mark.slow

POLITE = ["systemctl start --no-block comfyweb-poweroff.service", "systemctl --no-block poweroff"]
ROOT = Path(__file__).parents[2]


class ComfyUI:
    """The stand-in, served in a thread."""

    def __init__(self) -> None:
        self._inside = StandInComfyUI(Disk(), job_seconds=0.2, origin=lambda: APP)
        listener = bound(0)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        config = uvicorn.Config(self._inside.app, ws="wsproto", interface="asgi3", lifespan="off", log_config=None)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=asyncio.run, args=(self._run(listener),), daemon=True)
        self._thread.start()

    def prompt(self, seconds: float) -> None:
        """Queue a prompt that takes so long."""
        graph = {
            "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "seconds": seconds}},
            "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
        }
        request = urllib.request.Request(f"{self.url}/prompt", json.dumps({"prompt": graph}).encode())
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200

    def close(self) -> None:
        """End it."""
        self._server.should_exit = True
        self._thread.join(10)

    async def _run(self, listener: socket.socket) -> None:
        jobs = asyncio.create_task(self._inside.run())
        await self._server.serve([listener])
        jobs.cancel()
        with suppress(asyncio.CancelledError):
            await jobs


@dataclass
class Machine:
    """An emulated machine that is on, with the keeper's process on it."""

    root: Path
    box: CloudBox
    comfyui: ComfyUI
    programs: Programs
    port: int = field(default_factory=free_ports)
    app: App = field(default_factory=lambda: App(Clocks(), APP))  # pyright: ignore[reportArgumentType] - it reads the time
    process: subprocess.Popen[bytes] | None = None

    def set(self, **attributes: str) -> None:
        """Change metadata as the app does (underscores stand for dashes)."""
        self.box.machine.metadata.update({name.replace("_", "-"): value for name, value in attributes.items()})

    def start(self) -> subprocess.Popen[bytes]:
        """Start the keeper's process."""
        environment = {**os.environ, "PATH": self.programs.path, "PYTHONPATH": str(ROOT)}
        words = [str(self.root), self.comfyui.url, self.box.url, str(self.port)]
        self.process = subprocess.Popen([sys.executable, "-m", "tests.host.run_keeper", *words], env=environment)
        return self.process

    def kill(self) -> None:
        """Kill it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)

    @property
    def saved(self) -> dict[str, Any]:
        return load(self.root / "run/comfyweb/keeper.json")

    def told(self, name: str) -> dict[str, Any]:
        """Return the guest attribute of that name."""
        return json.loads(self.box.machine.guest_attributes.get("comfyweb", {}).get(name, "{}"))


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with CloudBox() as box:
        comfyui = ComfyUI()
        made = Machine(tmp_path / "root", box, comfyui, Programs(tmp_path / "bin"))
        made.root.mkdir()
        made.set(enable_guest_attributes="TRUE", comfyweb_app_origin=APP, comfyweb_keys=made.app.jwks)
        box.control("machine", {"action": "start"})
        until(lambda: box.machine.boot_id)
        try:
            yield made
        finally:
            made.kill()
            comfyui.close()


def test_nobody_uses_it_so_it_tells_how_it_is_and_powers_off(machine: Machine) -> None:
    machine.set(comfyweb_idle_minutes="0.15")
    machine.start()
    until(lambda: machine.told("phase").get("phase") == "ready")
    assert machine.told("phase")["steps"][-1]["state"] == "done"
    assert machine.told("heartbeat").keys() == {"boot_id", "at", "queue", "stops_at", "acks"}
    until(lambda: machine.programs.called == POLITE)
    assert machine.saved["stopping"] == "idle"


def test_a_job_keeps_it_on_though_the_keeper_is_killed_again_and_again(machine: Machine) -> None:
    machine.set(comfyweb_idle_minutes="0.03")
    machine.comfyui.prompt(4)
    for _ in range(4):
        machine.start()
        before = machine.saved.get("at", 0)
        until(lambda before=before: machine.saved.get("at", 0) > before and machine.saved["idle"]["busy"])
        machine.kill()
        assert not machine.programs.called
    machine.start()
    until(lambda: machine.saved["idle"]["busy"] is False)
    assert machine.saved["idle"]["kind"] == "job"
    until(lambda: machine.programs.called == POLITE)
    saved = machine.saved["idle"]
    assert saved["used"] > saved["seen"] - 1


def test_killing_the_keeper_is_no_use_of_the_machine(machine: Machine) -> None:
    machine.start()
    until(lambda: machine.saved.get("ready_at"))
    used = machine.saved["idle"]["used"]
    for _ in range(3):
        machine.kill()
        machine.start()
        before = machine.saved["at"]
        until(lambda before=before: machine.saved["at"] > before + 0.3)
    assert machine.saved["idle"]["used"] == used


def test_a_stopped_keeper_goes_on_where_it_was(machine: Machine) -> None:
    machine.set(comfyweb_idle_minutes="0.05")
    process = machine.start()
    until(lambda: machine.saved.get("ready_at") and machine.saved["limit"] == 3)
    process.send_signal(signal.SIGSTOP)
    before = machine.saved["at"]
    process.send_signal(signal.SIGCONT)
    until(lambda: machine.saved["at"] > before)
    until(lambda: machine.programs.called == POLITE)


def test_the_app_commands_it_by_metadata(machine: Machine) -> None:
    machine.start()
    until(lambda: machine.told("phase").get("phase") == "ready")
    machine.set(comfyweb_command=json.dumps([machine.app.command("POST", "/_host/drain", {"deadline_seconds": 60})]))
    until(lambda: machine.programs.called == POLITE)
    until(lambda: machine.told("heartbeat").get("acks"))
    assert machine.saved["stopping"] == "drained"


def test_it_ends_when_systemd_says_so(machine: Machine) -> None:
    process = machine.start()
    until(lambda: machine.saved.get("at"))
    process.terminate()
    assert process.wait(10) == 0
