"""`python -m comfyweb.demo` as a process: it serves, boots its machine's inside, and ends when asked."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.demo.test_identity import key_file, signed
from tests.launching import free_ports

INSTANCE = "compute/v1/projects/demo-project/zones/us-central1-a/instances/comfyui-gpu"
pytestmark = pytest.mark.slow


def program(port: int, *more: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "comfyweb.demo", "--port", str(port), "--fast", *more]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


@contextmanager
def running(*more: str) -> Generator[tuple[int, "subprocess.Popen[str]"]]:
    port = free_ports(2)
    process = program(port, *more)
    try:
        assert until(lambda: answers(port))
        yield port, process
    finally:
        process.kill()
        process.communicate()


def until(holds: Any) -> bool:
    end = time.monotonic() + 30
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def answers(port: int, path: str = "control") -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/{path}").status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_boots_a_comfyui_on_the_next_port_and_ends_cleanly(number: signal.Signals) -> None:
    with running() as (port, process):
        url = f"http://127.0.0.1:{port}/{INSTANCE}"
        assert httpx.get(url).json()["status"] == "TERMINATED"
        assert not answers(port + 1, "_host/health")
        assert httpx.post(f"{url}/start").status_code == 200
        assert until(lambda: httpx.get(url).json()["status"] == "RUNNING")
        assert until(lambda: answers(port + 1, "_host/health"))
        process.send_signal(number)
        said, complained = process.communicate(timeout=20)
        assert (process.returncode, complained) == (0, "")
        assert said == f"The cloud in a box: http://localhost:{port}\n"


@pytest.mark.parametrize("offset", [0, 1])
def test_a_port_in_use_is_one_clear_line_and_exit_code_1(offset: int) -> None:
    port = free_ports(2)
    with socket.create_server(("127.0.0.1", port + offset)):
        process = program(port)
        said, complained = process.communicate(timeout=30)
    assert (process.returncode, said) == (1, "")
    assert complained.count("\n") == 1
    assert f"{port} and {port + 1}" in complained


@pytest.mark.parametrize("port", ["0", "65535", "x", "-1"])
def test_a_port_that_cannot_be_is_refused(port: str) -> None:
    command = [sys.executable, "-m", "comfyweb.demo", "--port", port]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "port" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--keys", "/nowhere/key.json"], "/nowhere/key.json can't be read: No such file or directory."),
        (["--keys", os.devnull], f"{os.devnull}: That is no service account's key"),
        (["--project", "X"], "'X' is no name for a project"),
        (["--project", "other-project:moon"], "'moon' is no name for a zone"),
        (["--project", "demo-project"], "'projects/demo-project' already exists"),
    ],
)
def test_what_it_cannot_be_made_of_is_one_clear_line_and_exit_code_1(arguments: list[str], words: str) -> None:
    command = [sys.executable, "-m", "comfyweb.demo", "--port", str(free_ports(2)), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (1, "", 1)
    assert words in ended.stderr


def test_it_is_made_of_several_projects_and_answers_whoever_has_a_key(tmp_path: Path) -> None:
    (tmp_path / "key.json").write_text(json.dumps(key_file()))
    with running("--keys", str(tmp_path / "key.json"), "--project", "other-project:europe-west4-a") as (port, _):
        url = f"http://127.0.0.1:{port}/compute/v1/projects/other-project/zones"
        assert httpx.get(url).status_code == 401
        now = datetime.now(UTC)
        asked = {"Authorization": f"Bearer {signed(iat=now, exp=now + timedelta(minutes=5))}"}
        assert [zone["name"] for zone in httpx.get(url, headers=asked).json()["items"]] == ["europe-west4-a"]
