"""What `python -m comfyweb` and `make run` do, as whole processes."""

import os
import signal
import socket
import sys
import time
from pathlib import Path

import httpx
import pytest

from comfyweb.demo.launch import LAST_PORT, app_environment
from comfyweb.settings import load
from tests.launching import PATIENCE, REQUIRED, ROOT, Program, children, free_ports, zombies

pytestmark = pytest.mark.slow
built = pytest.mark.skipif(not (ROOT / ".web/build/client/index.html").exists(), reason="the page is not built")
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")


def test_wrong_settings_are_told_one_a_line_and_nothing_starts() -> None:
    with Program("-m", "comfyweb", environ={"AUTH_PASSWORD": "hunter2", "PORT": "seaside"}) as program:
        assert program.ended() == 2
        assert [line.split()[0] for line in program.lines] == ["AUTH_PASSWORD", "JWT_SECRET", "PORT", "GCP_PROJECT"]
        assert "hunter2" not in "".join(program.lines)


def test_without_a_built_page_it_says_how_to_get_one(tmp_path: Path) -> None:
    with Program("-m", "comfyweb", environ=REQUIRED, cwd=tmp_path) as program:
        assert program.ended() == 2
        assert program.lines == ["The page is not built: run `make build` first."]


@built
def test_a_port_in_use_is_told_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        with Program("-m", "comfyweb", environ=REQUIRED | {"PORT": port}) as program:
            assert program.ended() == 2
            assert len(program.lines) == 1
            assert port in program.lines[0]


@built
def test_sigterm_ends_it_although_somebody_is_connected(tmp_path: Path) -> None:
    port = free_ports()
    environ = REQUIRED | {
        "PORT": str(port),
        "DATABASE_URL": f"sqlite:///{tmp_path / 'c.db'}",
        "COMPUTE_ENDPOINT": "http://127.0.0.1:1",
    }
    with Program("-m", "comfyweb", environ=environ) as program:
        program.answers(f"http://localhost:{port}/login")
        login = httpx.post(f"http://localhost:{port}/api/auth/login", json={"password": REQUIRED["AUTH_PASSWORD"]})
        headers = {"x-auth-token": login.json()["token"]}
        with httpx.stream("GET", f"http://localhost:{port}/api/instance/events", headers=headers) as events:
            assert events.status_code == 200
            program.signal(signal.SIGTERM)
            assert program.ended() == 0
    assert not [line for line in program.lines if "Traceback" in line]


@built
@linux
def test_a_worker_whose_supervisor_was_killed_ends_before_the_next_one_serves(tmp_path: Path) -> None:
    port = free_ports()
    environ = REQUIRED | {
        "PORT": str(port),
        "DATABASE_URL": f"sqlite:///{tmp_path / 'c.db'}",
        "COMPUTE_ENDPOINT": "http://127.0.0.1:1",
    }
    with Program("-m", "comfyweb", environ=environ) as program:
        program.answers(f"http://localhost:{port}/login")
        [worker] = children(program.pid, "-m comfyweb")
        program.signal(signal.SIGKILL)
        assert program.ended() == -signal.SIGKILL
        # It lets go of its output a moment before it is dead, and somebody else has to reap it then.
        until = time.monotonic() + PATIENCE
        while Path(f"/proc/{worker}").exists() and not zombies([worker]):
            assert time.monotonic() < until, "the worker outlives its supervisor"
            time.sleep(0.01)
    with Program("-m", "comfyweb", environ=environ) as again:
        again.answers(f"http://localhost:{port}/login")


@built
@linux
def test_the_demo_runs_survives_and_ends_whole() -> None:
    port = free_ports(3)
    url = f"http://localhost:{port}"
    with Program("-m", "comfyweb.demo.launch", "--fast", environ={"PORT": str(port)}) as demo:
        assert f"http://localhost:{port + 1}" in demo.says("its cloud")
        password = demo.says("password").split()[-1]
        assert url in demo.says("comfyweb   ").split()
        assert httpx.post(f"{url}/api/auth/login", json={"password": password}).status_code == 200

        [cloud] = children(demo.pid, f"comfyweb.demo --port {port + 1} --fast")
        [app] = children(demo.pid, "-m comfyweb")
        [worker] = children(app, "-m comfyweb")
        os.kill(worker, signal.SIGKILL)
        demo.answers(f"{url}/login")
        assert children(demo.pid, "-m comfyweb") == [app]

        [worker] = children(app, "-m comfyweb")
        os.kill(app, signal.SIGKILL)
        assert "signal 9" in demo.says("starting the app again")
        demo.answers(f"{url}/login")
        assert children(demo.pid, f"comfyweb.demo --port {port + 1} --fast") == [cloud]
        [again] = children(demo.pid, "-m comfyweb")
        assert zombies([app, worker, *children(demo.pid)]) == []
        assert not Path(f"/proc/{worker}").exists()

        everybody = [cloud, again, *children(again)]
        demo.signal(signal.SIGINT)
        assert demo.ended() == 0
        assert [pid for pid in everybody if Path(f"/proc/{pid}").exists()] == []


@linux
@built
def test_nobody_outlives_a_demo_that_was_killed() -> None:
    port = free_ports(3)
    with Program("-m", "comfyweb.demo.launch", "--fast", environ={"PORT": str(port)}) as demo:
        demo.says("password")
        demo.signal(signal.SIGKILL)
        assert demo.ended() == -signal.SIGKILL


def test_the_demo_names_another_port_when_one_is_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = int(other.getsockname()[1])
        if taken > LAST_PORT:
            taken -= 100
        for port in (taken, taken - 1, taken - 2):
            with Program("-m", "comfyweb.demo.launch", environ={"PORT": str(port)}) as demo:
                assert demo.ended() == 1
                [line] = demo.lines
                assert f"PORT={port + 100} make run" in line


@pytest.mark.parametrize("port", ["0", "65536", "seaside", "-1"])
def test_the_demo_wants_a_port_that_is_one(port: str) -> None:
    with Program("-m", "comfyweb.demo.launch", environ={"PORT": port}) as demo:
        assert demo.ended() == 1
        assert len(demo.lines) == 1


def test_a_password_that_is_too_short_ends_the_demo_with_the_settings_own_words() -> None:
    environ = {"PORT": str(free_ports(3)), "AUTH_PASSWORD": "hunter2"}
    with Program("-m", "comfyweb.demo.launch", "--fast", environ=environ) as demo:
        assert demo.ended() == 2
        assert any(line.startswith("AUTH_PASSWORD is shorter than 12") for line in demo.lines)


def test_a_real_machines_settings_do_not_reach_the_demo(tmp_path: Path) -> None:
    real = {
        "GCE_INSTANCE": "mine",
        "GCE_ZONES": "europe-west4-a",
        "GCP_PROJECT": "my-project",
        "COMPUTE_ENDPOINT": "",
        "COMFYUI_DOMAIN": "comfy.example.com",
        "DATABASE_URL": "postgresql://u:p@db/comfyweb",
        "REDIS_URL": "redis://cache",
        "PUBLIC_URL": "https://app.example.com",
        "IDLE_MINUTES": "1",
    }
    settings = load(app_environment(real, port=3100, password="b10e-94f2-77aa-0c3d", folder=tmp_path), None)
    assert (settings.gcp_project, settings.gce_instance, settings.gce_zones) == (
        "demo-project",
        "comfyui-gpu",
        ("us-central1-a",),
    )
    assert settings.compute_endpoint == "http://127.0.0.1:3101"
    assert settings.comfyui_url == "http://localhost:3102"
    assert settings.public_url == "http://localhost:3100"
    assert (settings.comfyui_domain, settings.redis_url, settings.idle_minutes) == (None, None, 1)
    assert not settings.warnings
