"""The image as people run it: one for the demo and for production. `docker build -t comfyweb . && make test-image`."""

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from argon2 import PasswordHasher
from playwright.sync_api import Browser, expect

from tests.container.docker import (
    COMPOSE,
    PASSWORD,
    PATIENCE,
    PRODUCTION,
    Container,
    app,
    docker,
    emulated,
    log_in,
    missing,
    published,
    told,
    until,
)
from tests.launching import ROOT, free_ports
from tests.test_documents import shell_blocks
from tests.web.forwarding import Forward, certificate

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing())]

COMPOSES = pytest.mark.skipif(not COMPOSE, reason="needs docker compose, or docker-compose")


@pytest.fixture
def cloud() -> Generator[tuple[Container, int]]:
    with emulated() as running:
        yield running


def test_the_demo_comes_up_from_the_image_under_a_read_only_root() -> None:
    port = free_ports(3)
    demo = ("python", "-m", "comfyweb.demo.launch", "--fast")
    with Container(published(port, 3), *told(PORT=str(port), AUTH_PASSWORD=PASSWORD), command=demo) as container:
        url = f"http://localhost:{port}"
        container.answers(f"{url}/readyz")
        token = log_in(url)
        httpx.post(f"{url}/api/instance/start", headers={"x-auth-token": token}).raise_for_status()
        status = until(url, token, "ready")
        assert status["comfyui_url"] == f"http://localhost:{port + 2}"


def test_the_page_works_at_whatever_port_it_is_published(chromium: Browser, cloud: tuple[Container, int]) -> None:
    beside, port = cloud
    with app(beside) as container:
        container.answers(f"http://localhost:{port}/readyz")
        page = chromium.new_page()
        page.goto(f"http://localhost:{port}")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        page.get_by_role("button", name="Start").click()
        expect(page.locator("iframe, .page[data-phase=ready]").first).to_be_attached(timeout=60_000)
        page.close()


def test_the_page_works_over_https_at_a_port_of_its_own(
    chromium: Browser, cloud: tuple[Container, int], tmp_path: Path
) -> None:
    beside, port = cloud
    public = free_ports()
    site = f"https://localhost:{public}"
    with app(beside, PUBLIC_URL=site) as container, Forward(public, port, certificate(tmp_path)):
        container.answers(f"http://localhost:{port}/readyz")
        context = chromium.new_context(ignore_https_errors=True)
        page = context.new_page()
        page.goto(f"{site}/login")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        expect(page.locator(".page[data-phase=off]")).to_be_attached(timeout=60_000)
        context.close()


def test_nothing_that_was_asked_for_is_lost_and_no_tab_left_waiting_when_it_is_stopped(
    cloud: tuple[Container, int],
) -> None:
    beside, port = cloud
    url, volume = f"http://localhost:{port}", docker("volume", "create")
    try:
        with app(beside, f"--volume={volume}:/data") as container:
            container.answers(f"{url}/readyz")
            token = log_in(url)
            ended = threading.Event()

            def follow() -> None:
                with httpx.stream("GET", f"{url}/api/instance/events", headers={"x-auth-token": token}) as events:
                    for _ in events.iter_lines():
                        pass
                ended.set()

            threading.Thread(target=follow, daemon=True).start()
            httpx.post(f"{url}/api/instance/start", headers={"x-auth-token": token}).raise_for_status()
            assert container.stop() == 0
            assert ended.wait(30)
        with app(beside, f"--volume={volume}:/data") as container:
            container.answers(f"{url}/readyz")
            until(url, token, "ready")  # by the same login, too
    finally:
        docker("volume", "rm", "--force", volume)


def test_it_runs_as_nobody_in_particular_with_nothing_to_build_with_and_says_what_is_in_it() -> None:
    with Container(command=("sleep", "infinity")) as container:
        assert docker("exec", container.id, "id", "-u") == "10001"
        for program in ("node", "bun", "npm", "gcc"):
            with pytest.raises(subprocess.CalledProcessError):
                docker("exec", container.id, "which", program)
        listed = json.loads(docker("exec", container.id, "cat", "/app/packages.cdx.json"))
        frozen = docker("exec", container.id, "python", "-m", "pip", "list", "--format=json")
        assert {part["name"] for part in listed["components"]} >= {part["name"] for part in json.loads(frozen)}


def test_default_secrets_are_refused_and_why_is_said() -> None:
    with Container(*told(AUTH_PASSWORD="admin", JWT_SECRET="short", GCP_PROJECT="p-roject")) as container:
        assert docker("wait", container.id) == "2"
        assert "AUTH_PASSWORD" in container.said
        assert "JWT_SECRET" in container.said


@dataclass(frozen=True)
class Composed:
    """`compose.yml` alone, in a folder of its own. There is no Google here, and no key for it."""

    folder: Path
    port: int

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    @property
    def container(self) -> str:
        return self.type("docker compose ps --quiet comfyweb").strip()

    def type(self, lines: str) -> str:
        """Type lines of the documents; return what they print."""
        here = lines.replace("docker compose", " ".join(COMPOSE)).replace("--build", "--no-build")
        ran = subprocess.run(
            ["bash", "-eu", "-c", here],
            cwd=self.folder,
            env={**os.environ, "COMFYWEB_PORT": str(self.port)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def eventually(self, what: Callable[[], bool]) -> None:
        """Wait until it is so."""
        end = time.monotonic() + PATIENCE
        while not what():
            assert time.monotonic() < end, docker("logs", self.container)
            time.sleep(0.2)

    def healthy(self) -> bool:
        return docker("inspect", "--format", "{{.State.Health.Status}}", self.container) == "healthy"

    def ready(self) -> bool:
        """Whether its first look has ended."""
        try:
            return httpx.get(f"{self.url}/readyz").status_code == 200
        except httpx.TransportError:
            return False


@pytest.fixture
def composed(tmp_path: Path) -> Generator[Composed]:
    for name in ("compose.yml", "compose.caddy.yml"):
        shutil.copy(ROOT / name, tmp_path)
    # A hash in single quotes means the same to either compose.
    settings = PRODUCTION | {"AUTH_PASSWORD": f"'{PasswordHasher().hash(PASSWORD)}'"}
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    made = Composed(tmp_path, free_ports())
    try:
        [up] = [block for block in shell_blocks(ROOT / "docs/container.md") if block.startswith("docker compose up")]
        made.type(up)
        yield made
    finally:
        made.type("docker compose down --volumes")


@COMPOSES
def test_the_compose_file_brings_it_up_healthy(composed: Composed) -> None:
    composed.eventually(composed.healthy)
    assert docker("inspect", "--format", "{{.HostConfig.ReadonlyRootfs}}", composed.container) == "true"
    assert httpx.get(f"{composed.url}/login").status_code == 200
    composed.eventually(composed.ready)
    dependencies = httpx.get(f"{composed.url}/readyz").json()["dependencies"]
    assert dependencies == {"database": "ok", "loop": "ok", "compute-engine": "failing"}, (
        "it serves, and says what is missing"
    )


@COMPOSES
def test_a_backup_that_was_made_in_use_brings_everything_back(composed: Composed) -> None:
    def lets_in(token: str) -> bool:
        return httpx.get(f"{composed.url}/api/auth/check", headers={"x-auth-token": token}).status_code == 200

    backup, restore = [block for block in shell_blocks(ROOT / "docs/container.md") if "backup.db" in block]
    composed.eventually(composed.ready)
    before = log_in(composed.url)
    composed.type(backup)
    assert (composed.folder / "backup.db").stat().st_mode & 0o777 == 0o600
    after = log_in(composed.url)
    composed.type(restore)
    composed.eventually(composed.ready)
    assert lets_in(before)
    assert not lets_in(after)
    mode = docker("exec", composed.container, "stat", "--format", "%a %U", "/data/comfyweb.db")
    assert mode == "600 comfyweb"
