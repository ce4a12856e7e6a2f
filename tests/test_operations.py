"""What docs/operations.md tells people to do, done: its own commands, on the real app, while it is used."""

import json
import re
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from comfyweb.access.host_tokens import generate_private_key
from comfyweb.demo.launch import app_environment
from tests.launching import PATIENCE, ROOT, Program, free_ports

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / ".web/build/client/index.html").exists(), reason="the page is not built"),
]
PASSWORD = "a quiet river at dawn"
OLD, NEW = "f8b1c2d3e4a5968778695a4b3c2d1e0f", "0f1e2d3c4b5a69788796a5e4d3c2b1f8"


class Town:
    """The app, as often as it is started, always with the same database, and beside a cloud if there is one."""

    def __init__(self, port: int, folder: Path) -> None:
        self.folder = folder
        self.url = f"http://localhost:{port}"
        self.cloud = f"http://localhost:{port + 1}"
        self.comfyui = f"http://localhost:{port + 2}"
        self._environ = app_environment({}, port=port, password=PASSWORD, folder=folder) | {"JWT_SECRET": OLD}

    def program(self, **settings: str) -> Program:
        """Start the app with these settings."""
        return Program("-m", "comfyweb", environ=self._environ | settings)

    @contextmanager
    def app(self, **settings: str) -> Generator[httpx.Client]:
        """Run the app with these settings, and ask it as a stranger."""
        with (
            self.program(**settings) as program,
            httpx.Client(base_url=self.url, timeout=30) as client,
        ):
            program.answers(f"{self.url}/healthz")
            yield client

    def known_keys(self) -> list[Any]:
        """Return the gate's keys that the machine is told to believe."""
        machine = "compute/v1/projects/demo-project/zones/us-central1-a/instances/comfyui-gpu"
        items = httpx.get(f"{self.cloud}/{machine}").json()["metadata"]["items"]
        return list(json.loads(next(item["value"] for item in items if item["key"] == "comfyweb-keys"))["keys"])

    def follow(self, heading: str) -> subprocess.CompletedProcess[str]:
        """Type the commands below a heading of the document, where the database is."""
        document = (ROOT / "docs/operations.md").read_text()
        [block] = re.findall(rf"^## {heading}\n(?:(?!^## ).*\n)*?```sh\n((?:.*\n)*?)```", document, re.MULTILINE)
        if not (self.folder / ".venv").exists():
            (self.folder / ".venv").symlink_to(ROOT / ".venv")
        return subprocess.run(
            ["bash", "-eu", "-c", block], check=False, cwd=self.folder, capture_output=True, text=True
        )


def until(ready: Callable[[], Any]) -> Any:
    end = time.monotonic() + PATIENCE
    while not (found := ready()):
        assert time.monotonic() < end
        time.sleep(0.1)
    return found


@pytest.fixture
def alone(tmp_path: Path) -> Town:
    return Town(free_ports(3), tmp_path)


@pytest.fixture
def town(tmp_path: Path) -> Generator[Town]:
    port = free_ports(3)
    with Program("-m", "comfyweb.demo", "--port", str(port + 1), "--fast", environ={}) as cloud:
        cloud.answers(f"http://localhost:{port + 1}/control")
        yield Town(port, tmp_path)


def logged_in(client: httpx.Client, password: str = PASSWORD) -> dict[str, str]:
    answer = client.post("/api/auth/login", json={"password": password})
    assert answer.status_code == 200, answer.text
    return {"x-auth-token": answer.json()["token"]}


def is_in(client: httpx.Client, login: dict[str, str]) -> bool:
    return client.get("/api/auth/check", headers=login).status_code == 200


def status(client: httpx.Client, login: dict[str, str]) -> dict[str, Any]:
    return dict(client.get("/api/instance/status", headers=login).json())


def started(client: httpx.Client, login: dict[str, str]) -> dict[str, Any]:
    """Start the machine, and return what is known of it once ComfyUI is ready."""
    assert client.post("/api/instance/start", headers=login).status_code == 200
    until(lambda: status(client, login)["phase"] == "ready")
    return status(client, login)


def entered(client: httpx.Client, login: dict[str, str]) -> httpx.Cookies | None:
    """Go into ComfyUI with a fresh ticket; None when its gate refuses, or it isn't ready."""
    answer = client.post("/api/comfyui/ticket", headers=login)
    if answer.status_code != 200:
        return None
    gate = httpx.get(answer.json()["url"], headers={"sec-fetch-mode": "navigate"})
    return gate.cookies if gate.status_code == 303 else None


def test_a_backup_is_made_while_people_log_in_and_brings_everything_back(town: Town) -> None:
    with town.app() as client:
        before = logged_in(client)
        gone = logged_in(client)
        run = started(client, before)["run"]
        logins: list[dict[str, str]] = []
        stop = threading.Event()

        def crowd() -> None:
            with httpx.Client(base_url=town.url, timeout=30) as one:
                while not stop.is_set():
                    logins.append(logged_in(one))

        people = threading.Thread(target=crowd)
        people.start()
        until(lambda: len(logins) > 2)
        stored = list(logins)
        made = town.follow("Backup")
        until(lambda: len(logins) > len(stored) + 2)
        stop.set()
        people.join()
        assert made.returncode == 0, made.stderr
        assert town.follow("Backup").returncode != 0, "it never writes over a backup"
        after = logged_in(client)
        assert client.post("/api/auth/logout", headers=gone).status_code == 200

    backup = town.folder / "backup.db"
    assert backup.stat().st_mode & 0o077 == 0, "nobody else may read it"
    with closing(sqlite3.connect(backup)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database_file = town.folder / "comfyweb.db"
    database_file.write_bytes(b"\0" * 4096)
    Path(f"{database_file}-wal").write_bytes(b"of another database")
    restored = town.follow("Restore")
    assert restored.returncode == 0, restored.stderr
    assert [path.name for path in town.folder.glob("comfyweb.db*")] == ["comfyweb.db"]

    with town.app() as client:
        assert all(is_in(client, login) for login in [before, *stored])
        assert not is_in(client, after)
        assert is_in(client, gone), "a logout since the backup is undone, as the document says"
        until(lambda: status(client, before)["phase"] == "ready")
        assert status(client, before)["run"]["started_at"] == run["started_at"]
        assert status(client, before)["run"]["ours"]
        assert until(lambda: entered(client, before)), "the key of the gate came back too"
        assert client.post("/api/instance/stop", headers=before, json={"mode": "now"}).status_code == 200
        until(lambda: status(client, before)["phase"] == "off")
        assert status(client, before)["last_stop"]["reason"] == "stopped-now"


def test_without_a_backup_it_begins_anew_and_opens_the_machine_again(town: Town) -> None:
    with town.app() as client:
        lost = logged_in(client)
        started(client, lost)
    for path in town.folder.glob("comfyweb.db*"):
        path.unlink()
    with town.app() as client:
        assert not is_in(client, lost)
        again = logged_in(client)
        until(lambda: entered(client, again))


def test_a_database_of_a_newer_comfyweb_is_not_used_and_the_log_says_so(alone: Town) -> None:
    with alone.app():
        pass
    with closing(sqlite3.connect(alone.folder / "comfyweb.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    with alone.program() as app:
        assert "can't start" in app.says("it is of a newer comfyweb")


def test_the_signing_secret_is_replaced_and_nobody_is_logged_out(alone: Town) -> None:
    with alone.app(JWT_SECRET=OLD) as client:
        of_the_old = logged_in(client)
    with alone.app(JWT_SECRET=f"{NEW},{OLD}") as client:
        assert is_in(client, of_the_old)
        of_the_new = logged_in(client)
    with alone.app(JWT_SECRET=NEW) as client:
        assert is_in(client, of_the_new)
        assert not is_in(client, of_the_old)


def test_the_password_is_replaced_and_nobody_is_logged_out_unless_somebody_says_so(alone: Town) -> None:
    with alone.app() as client:
        login = logged_in(client)
    with alone.app(AUTH_PASSWORD="another river at dusk") as client:
        assert is_in(client, login)
        assert client.post("/api/auth/login", json={"password": PASSWORD}).status_code == 401
        logged_in(client, "another river at dusk")
        assert client.post("/api/auth/logout-everyone", headers=login).status_code == 200
        assert not is_in(client, login)


def test_the_gates_key_is_replaced_while_somebody_works(town: Town) -> None:
    def works(cookies: httpx.Cookies) -> bool:
        return httpx.get(town.comfyui, cookies=cookies).status_code == 200

    first, second = generate_private_key(), generate_private_key()
    with town.app(GATE_PRIVATE_KEY=first) as client:
        login = logged_in(client)
        started(client, login)
        at_work = until(lambda: entered(client, login))
    for keys in (f"{first},{second}", f"{second},{first}", second):
        with town.app(GATE_PRIVATE_KEY=keys) as client:
            until(lambda client=client: status(client, login)["phase"] == "ready")
            assert entered(client, login), "not for a moment is anybody refused"
            assert works(at_work)
            until(lambda: len(town.known_keys()) > 1)
