"""The image, run by the docker of this computer."""

import json
import secrets
import shutil
import subprocess
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Self

import httpx

from tests.launching import free_ports

IMAGE = "comfyweb"
# As compose.yml runs it.
SHUT_IN = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")  # noqa: S108
PATIENCE = 120.0
PASSWORD = "a quiet river at dawn"
PRODUCTION = {"AUTH_PASSWORD": PASSWORD, "JWT_SECRET": secrets.token_hex(32), "GCP_PROJECT": "demo-project"}


def docker(*arguments: str) -> str:
    """Return what it prints. Raises CalledProcessError."""
    ran = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True)
    return ran.stdout.strip()


def missing() -> str:
    """Return why no container can run here; empty when they can."""
    try:
        docker("image", "inspect", IMAGE)
    except FileNotFoundError:
        return "needs docker"
    except subprocess.CalledProcessError as error:
        return f"needs the image: docker build -t {IMAGE} . ({error.stderr.strip()})"
    return ""


def _compose() -> tuple[str, ...]:
    """Return how compose is called here: docker's plugin as in the documents, or the program of its own."""
    if shutil.which("docker") is None:
        return ()
    plugin = ("docker", "compose")
    if subprocess.run([*plugin, "version"], capture_output=True, check=False).returncode == 0:
        return plugin
    return ("docker-compose",) if shutil.which("docker-compose") else ()


COMPOSE = _compose()


def lacking(*images: str) -> str:
    """Return why no stack with these images can be brought up here; empty when it can."""
    if why := missing():
        return why
    if not COMPOSE:
        return "needs docker compose, or docker-compose"
    for image in images:
        if subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False).returncode:
            return f"needs an image: docker pull {image}"
    return ""


def told(**settings: str) -> list[str]:
    """Return the options by which a container is told its settings."""
    return [word for name, value in settings.items() for word in ("--env", f"{name}={value}")]


def published(first: int, count: int = 1, *, inside: int | None = None) -> str:
    """Return the option that lets this computer alone reach these ports."""
    last = "" if count == 1 else f"-{first + count - 1}"
    return f"--publish=127.0.0.1:{first}{last}:{inside or first}{last}"


class Container:
    """A running one, gone at the end. `options` are those of `docker run`."""

    def __init__(self, *options: str, command: Sequence[str] = ()) -> None:
        self.id = docker("run", "--detach", *SHUT_IN, *options, IMAGE, *command)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        docker("rm", "--force", "--volumes", self.id)

    @property
    def state(self) -> dict[str, object]:
        """What docker says of it."""
        return json.loads(docker("inspect", "--format", "{{json .State}}", self.id))

    @property
    def said(self) -> str:
        """What it has printed."""
        ran = subprocess.run(["docker", "logs", self.id], capture_output=True, text=True, check=True)
        return ran.stdout + ran.stderr

    def answers(self, url: str) -> httpx.Response:
        """Wait until it answers there with success."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return httpx.get(url).raise_for_status()
            except httpx.HTTPError:
                assert time.monotonic() < until, f"{url} never answered:\n{self.said}"
                time.sleep(0.2)

    def stop(self) -> int:
        """End it as `docker stop` does, and return its exit code."""
        docker("stop", self.id)
        return int(docker("inspect", "--format", "{{.State.ExitCode}}", self.id))


@contextmanager
def emulated() -> Generator[tuple[Container, int]]:
    """Run the emulated Compute Engine. Port 3000 of its network is for an app beside it, published at another."""
    port = free_ports()
    with Container(published(port, inside=3000), command=("python", "-m", "comfyweb.demo", "--fast")) as container:
        yield container, port


def app(beside: Container, *options: str, **settings: str) -> Container:
    """Run the app of production in the same network as the cloud."""
    environ = {**PRODUCTION, "COMPUTE_ENDPOINT": "http://127.0.0.1:3001", "COMFYUI_URL": "http://localhost:3002"}
    return Container(f"--network=container:{beside.id}", *options, *told(**environ, **settings))


def until(url: str, token: str, phase: str) -> dict[str, object]:
    """Wait for a phase of the machine; return the status."""
    end = time.monotonic() + PATIENCE
    while (status := httpx.get(f"{url}/api/instance/status", headers={"x-auth-token": token}).json())["phase"] != phase:
        assert time.monotonic() < end, status
        time.sleep(0.2)
    return status


def log_in(url: str) -> str:
    """Return a session's token."""
    answer = httpx.post(f"{url}/api/auth/login", json={"password": PASSWORD})
    return str(answer.raise_for_status().json()["token"])
