"""The demo's cloud is killed with SIGKILL, and comes back with its machine off. Whole processes."""

import os
import signal
import sys
import time
from collections.abc import Callable, Generator
from typing import Any

import httpx
import pytest

from tests.launching import PATIENCE, REQUIRED, ROOT, Program, children, free_ports

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / ".web/build/client/index.html").exists(), reason="the page is not built"),
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc"),
]


class Demo:
    """`make run`, as a process of its own, asked by REST."""

    def __init__(self, program: Program, port: int) -> None:
        self.program = program
        self._port = port
        self._url = f"http://localhost:{port}/api"
        login = httpx.post(f"{self._url}/auth/login", json={"password": REQUIRED["AUTH_PASSWORD"]})
        self._headers = {"x-auth-token": login.json()["token"]}

    def post(self, verb: str) -> None:
        httpx.post(f"{self._url}/instance/{verb}", headers=self._headers, json={}).raise_for_status()

    def shows(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until the status is so; return it."""
        until = time.monotonic() + PATIENCE
        while True:
            status = httpx.get(f"{self._url}/instance/status", headers=self._headers).json()
            if holds(status):
                return status
            assert time.monotonic() < until, status
            time.sleep(0.05)

    def starts(self) -> list[str]:
        """Return how the starts of this cloud ended."""
        operations = httpx.get(f"http://localhost:{self._port + 1}/control").json()["operations"]
        return [each["status"] for each in operations if each["operationType"] == "start"]

    def kill_the_cloud(self) -> None:
        [cloud] = children(self.program.pid, f"comfyweb.demo --port {self._port + 1} --fast")
        os.kill(cloud, signal.SIGKILL)


@pytest.fixture(scope="module")
def demo() -> Generator[Demo]:
    port = free_ports(3)
    environ = {"PORT": str(port), "AUTH_PASSWORD": REQUIRED["AUTH_PASSWORD"]}
    with Program("-m", "comfyweb.demo.launch", "--fast", environ=environ) as program:
        program.says("Ctrl-C")
        yield Demo(program, port)


def test_a_machine_that_went_down_with_its_cloud_is_shown_off_with_an_honest_reason(demo: Demo) -> None:
    demo.post("start")
    demo.shows(lambda status: status["phase"] == "ready")
    demo.kill_the_cloud()
    unreached = demo.shows(lambda status: status["phase"] == "off" or status["fault"] is not None)
    assert unreached["phase"] == "off" or unreached["fault"]["code"].startswith("network")
    off = demo.shows(lambda status: status["phase"] == "off")
    assert off["status"] == "TERMINATED"
    assert off["run"] is None
    assert off["last_stop"]["reason"] == "elsewhere"
    assert "starting the cloud again" in demo.program.says("The cloud was killed by signal 9")


def test_a_start_that_went_down_with_its_cloud_happens_once_when_it_is_back(demo: Demo) -> None:
    demo.shows(lambda status: status["phase"] == "off" and status["fault"] is None)
    demo.post("start")
    demo.kill_the_cloud()
    demo.shows(lambda status: status["phase"] == "ready" and status["fault"] is None)
    assert demo.starts() == ["DONE"]
    demo.post("stop")
    demo.shows(lambda status: status["phase"] == "off")
