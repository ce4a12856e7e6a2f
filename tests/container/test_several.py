"""Two of the app with PostgreSQL and Redis, by the lines of docs/several.md: killed, stopped, stood still, cut off.

The cloud is the emulator, in a container of its own. Each app's entry is given a second process: it hands what is said
to its loopback, where alone an emulator is believed, on to that container. It shares the app's fate and its network.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.container.docker import COMPOSE, PRODUCTION, Container, docker, lacking, told
from tests.launching import ROOT, free_ports
from tests.replicas.town import TOKEN, App, machine_calls, until
from tests.test_documents import shell_blocks

IMAGES = {"POSTGRESQL_IMAGE": "postgres:17", "REDIS_IMAGE": "redis:7"}
FILES = ("compose.yml", "compose.several.yml", "compose.cloud.yml")
CLOUD = """
services:
  comfyweb:
    entrypoint: ["sh", "-c", "python /bridge.py & exec python -m comfyweb"]
    environment:
      COMPUTE_ENDPOINT: http://127.0.0.1:3001
      COMFYUI_URL: http://localhost:3002
    volumes: ["./bridge.py:/bridge.py:ro"]
  cloud:
    image: comfyweb
    command: python -m comfyweb.demo --fast
    ports: ["127.0.0.1:{port}:3001"]
"""
BRIDGE = """
import asyncio, contextlib


async def copy(reader, writer):
    with contextlib.closing(writer):
        while some := await reader.read(65536):
            writer.write(some)
            await writer.drain()


async def bridge(port):
    async def serve(reader, writer):
        with contextlib.closing(writer), contextlib.suppress(OSError):
            there, back = await asyncio.open_connection("cloud", port)
            await asyncio.gather(copy(reader, back), copy(there, writer))

    async with await asyncio.start_server(serve, "127.0.0.1", port) as server:
        await server.serve_forever()


async def main():
    await asyncio.gather(bridge(3001), bridge(3002))


asyncio.run(main())
"""
METRICS = f"""
import urllib.request as r
asked = r.Request("http://127.0.0.1:3000/metrics", headers={{"Authorization": "Bearer {TOKEN}"}})
print(r.urlopen(asked, timeout=30).read().decode())
"""
LACKING = lacking(*(os.environ.get(name, image) for name, image in IMAGES.items()))
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(LACKING), reason=LACKING)]


class Member(App):
    """One of the two, asked at the port where it is published."""

    def __init__(self, container: str) -> None:
        self.id = container
        super().__init__(self._port(), {})

    @property
    def leads_inside(self) -> bool:
        """Whether it runs the loop, asked from inside: nobody else reaches it while its network is gone."""
        return re.search(r"^comfyweb_loop_leads 1\.0$", self.metrics_inside(), re.MULTILINE) is not None

    def metrics_inside(self) -> str:
        """Return its metrics, asked from inside."""
        return docker("exec", self.id, "python", "-c", METRICS)

    def healthy(self) -> bool:
        """Whether docker says so."""
        return docker("inspect", "--format", "{{.State.Health.Status}}", self.id) == "healthy"

    def kill(self) -> None:
        docker("kill", self.id)

    def start(self) -> None:
        docker("start", self.id)
        self.serves()

    def end(self) -> None:
        docker("stop", self.id)

    def stand_still(self) -> None:
        docker("pause", self.id)

    def go_on(self) -> None:
        docker("unpause", self.id)

    def serves(self) -> None:
        """Wait until it answers; its port may be another since it was started or connected."""

        def answers() -> bool:
            self.move(self._port())
            try:
                return self.client.get("/healthz").status_code == 200
            except httpx.TransportError:
                return False

        until(answers)

    def _port(self) -> int:
        return int(docker("port", self.id, "3000").rpartition(":")[2])


@dataclass(frozen=True)
class Stack:
    """What runs. `cloud` is where the emulator is published."""

    folder: Path
    cloud: int
    port: int

    @property
    def environ(self) -> dict[str, str]:
        return {**os.environ, "COMFYWEB_PORT": f"{self.port}-{self.port + 1}"}

    def compose(self, *arguments: str) -> str:
        """Say it to compose."""
        command = [*COMPOSE, *arguments]  # which files is in .env
        return subprocess.run(
            command, cwd=self.folder, env=self.environ, capture_output=True, text=True, check=True
        ).stdout

    def containers(self, service: str) -> list[str]:
        return self.compose("ps", "--quiet", service).split()

    def members(self) -> list[Member]:
        return [Member(each) for each in self.containers("comfyweb")]

    def calls(self) -> list[str]:
        """Return the starts and stops that Compute Engine was made to do, in order."""
        return machine_calls(self.cloud)

    def server(self, service: str) -> "Server":
        [container] = self.containers(service)
        return Server(container, service)


@dataclass(frozen=True)
class Server:
    """PostgreSQL's container, or Redis'."""

    id: str
    service: str

    @contextmanager
    def killed(self) -> Generator[None]:
        docker("kill", self.id)
        try:
            yield
        finally:
            docker("start", self.id)

    @contextmanager
    def paused(self) -> Generator[None]:
        docker("pause", self.id)
        try:
            yield
        finally:
            docker("unpause", self.id)

    @contextmanager
    def cut_off(self) -> Generator[None]:
        with cut_off(self.id, alias=self.service):
            yield


@contextmanager
def cut_off(container: str, *, alias: str) -> Generator[None]:
    """Take a container's network away, then give it back."""
    network = docker(
        "inspect", "--format", "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}}{{end}}", container
    )
    docker("network", "disconnect", network, container)
    try:
        yield
    finally:
        docker("network", "connect", f"--alias={alias}", network, container)


def typed(which: str, folder: Path, environ: dict[str, str]) -> None:
    """Type the lines of docs/several.md with this word in them, with the cloud beside, and the image that is there."""
    [lines] = [block for block in shell_blocks(ROOT / "docs/several.md") if which in block]
    lines = lines.replace("docker compose", " ".join(COMPOSE)).replace("--build", "--no-build")
    lines = lines.replace("compose.several.yml", "compose.several.yml -f compose.cloud.yml")
    lines = re.sub(r"COMFYWEB_PORT=\S+", f"COMFYWEB_PORT={environ['COMFYWEB_PORT']}", lines)
    subprocess.run(["bash", "-eu", "-c", lines], cwd=folder, env=environ, check=True)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Generator[Stack]:
    folder = tmp_path_factory.mktemp("several")
    first = free_ports(3)
    made = Stack(folder, cloud=first, port=first + 1)
    for name in FILES[:-1]:
        shutil.copy(ROOT / name, folder)
    (folder / "compose.cloud.yml").write_text(CLOUD.format(port=made.cloud))
    (folder / "bridge.py").write_text(BRIDGE)
    settings = PRODUCTION | {"METRICS_TOKEN": TOKEN, "PUBLIC_URL": f"http://localhost:{made.port}"}
    settings["COMPOSE_FILE"] = ":".join(FILES)
    (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    try:
        typed(">> .env", folder, made.environ)
        typed("--scale", folder, made.environ)
        yield made
    finally:
        made.compose("down", "--volumes")


@pytest.fixture
def two(stack: Stack) -> tuple[Member, Member]:
    """Return the one that leads and the one that follows, with a machine that is off."""
    members = stack.members()
    for member in members:
        member.serves()
    one, other = members
    until(lambda: [one.leads, other.leads].count(True) == 1)
    leader, follower = (one, other) if one.leads else (other, one)
    until(lambda: leader.post("stop", mode="now").status_code == 200)
    leader.shows("off")
    follower.shows("off")
    return leader, follower


def test_both_come_up_healthy_and_one_of_them_runs_the_loop(stack: Stack, two: tuple[Member, Member]) -> None:
    leader, follower = two
    for member in two:
        until(member.healthy)
        until(lambda member=member: member.client.get("/readyz").status_code == 200)
        assert set(member.client.get("/readyz").json()["dependencies"].values()) == {"ok"}
    assert [leader.leads, follower.leads] == [True, False]


def test_a_login_at_one_counts_at_the_other_and_a_logout_ends_it_there(two: tuple[Member, Member]) -> None:
    for one, other in (two, two[::-1]):
        login = one.log_in()
        assert other.lets_in(login)
        assert one.client.post("/api/auth/logout", headers=login).status_code == 200
        until(lambda other=other, login=login: not other.lets_in(login))


def test_what_is_asked_of_any_is_done_once_and_shown_by_both(stack: Stack, two: tuple[Member, Member]) -> None:
    leader, follower = two
    before = stack.calls()
    for member in [follower, leader] * 5:
        assert member.post("start").status_code == 200
    assert follower.shows("ready")["run"] == leader.shows("ready")["run"]
    assert follower.post("stop", mode="now").status_code == 200
    leader.shows("off")
    follower.shows("off")
    assert stack.calls() == [*before, "start", "stop"]


def test_when_the_leader_is_killed_the_other_goes_on_with_its_start(stack: Stack, two: tuple[Member, Member]) -> None:
    leader, follower = two
    before = stack.calls()
    assert leader.post("start").status_code == 200
    leader.kill()
    until(lambda: follower.leads)
    follower.shows("ready")
    leader.start()
    leader.shows("ready")
    assert [follower.leads, leader.leads] == [True, False]
    assert stack.calls() == [*before, "start"]


def test_a_leader_that_is_stopped_hands_over(stack: Stack, two: tuple[Member, Member]) -> None:
    leader, follower = two
    before = stack.calls()
    assert leader.post("start").status_code == 200
    leader.end()
    assert docker("inspect", "--format", "{{.State.ExitCode}}", leader.id) == "0"
    until(lambda: follower.leads)
    follower.shows("ready")
    assert stack.calls() == [*before, "start"]
    leader.start()
    leader.shows("ready")
    assert follower.leads


def test_a_leader_that_stood_still_does_nothing_late(stack: Stack, two: tuple[Member, Member]) -> None:
    leader, follower = two
    before = stack.calls()
    assert leader.post("start").status_code == 200
    leader.stand_still()
    until(lambda: follower.leads)
    follower.shows("ready")
    assert follower.post("stop", mode="now").status_code == 200
    follower.shows("off")
    leader.go_on()
    until(lambda: not leader.leads)
    leader.shows("off")
    assert follower.leads
    assert stack.calls() == [*before, "start", "stop"]


def test_a_leader_without_its_network_does_nothing_late(stack: Stack, two: tuple[Member, Member]) -> None:
    leader, follower = two
    before = stack.calls()
    assert leader.post("start").status_code == 200
    with cut_off(leader.id, alias="comfyweb"):
        until(lambda: follower.leads)
        until(lambda: not leader.leads_inside)
        follower.shows("ready")
        assert follower.post("stop", mode="now").status_code == 200
        follower.shows("off")
    leader.serves()
    leader.shows("off")
    assert [follower.leads, leader.leads] == [True, False]
    assert stack.calls() == [*before, "start", "stop"]


HURT = pytest.mark.parametrize("hurt", [Server.killed, Server.paused, Server.cut_off])


@HURT
def test_without_postgresql_nobody_acts_and_both_say_so(
    stack: Stack, two: tuple[Member, Member], hurt: Callable[[Server], AbstractContextManager[None]]
) -> None:
    login = two[0].log_in()
    assert two[1].lets_in(login)
    before = stack.calls()
    with hurt(stack.server("postgresql")):
        for member in two:
            member.shows_fault("ledger")
            assert member.post("start").status_code == 503
            assert member.client.get("/readyz").status_code == 503
            assert member.lets_in(login), "who is in stays in"
    for member in two:
        member.shows("off")
    assert stack.calls() == before
    until(lambda: [member.leads for member in two].count(True) == 1)
    assert two[1].post("start").status_code == 200
    for member in two:
        member.shows("ready")
    assert stack.calls() == [*before, "start"]


@HURT
def test_without_redis_the_follower_says_so_and_takes_what_is_asked(
    stack: Stack, two: tuple[Member, Member], hurt: Callable[[Server], AbstractContextManager[None]]
) -> None:
    leader, follower = two
    before = stack.calls()
    with hurt(stack.server("redis")):
        follower.shows_fault("no-news")
        assert follower.post("start").status_code == 200
        leader.shows("ready")
    follower.shows("ready")
    assert leader.leads
    assert stack.calls() == [*before, "start"]


def test_a_backup_that_was_made_in_use_brings_everything_back(stack: Stack, two: tuple[Member, Member]) -> None:
    one, other = two
    before = one.log_in()
    typed("pg_dump", stack.folder, stack.environ)
    assert (stack.folder / "backup.dump").stat().st_mode & 0o777 == 0o600
    after = other.log_in()
    assert other.post("start").status_code == 200
    one.shows("ready")
    typed("pg_restore", stack.folder, stack.environ)
    for member in two:
        member.serves()
        assert member.lets_in(before)
        assert not member.lets_in(after)
    until(lambda: [member.leads for member in two].count(True) == 1)
    for member in two:
        member.log_in_anew()
        assert member.shows("ready")["run"], "the machine is seen as it is"


def test_an_older_database_is_brought_up_to_date_by_both_at_once(stack: Stack, two: tuple[Member, Member]) -> None:
    login = two[0].log_in()
    stack.compose("stop", "comfyweb")
    older = "DROP TABLE lease; UPDATE alembic_version SET version_num = '0001'"
    docker("exec", stack.server("postgresql").id, "psql", "--username=comfyweb", f"--command={older}", "comfyweb")
    typed("--scale", stack.folder, stack.environ)
    for member in two:
        member.serves()
        assert member.lets_in(login)
    until(lambda: [member.leads for member in two].count(True) == 1)


def test_redis_without_postgresql_is_refused_and_why_is_said() -> None:
    with Container(*told(**PRODUCTION, REDIS_URL="redis://redis")) as container:
        assert docker("wait", container.id) == "2"
        assert "REDIS_URL" in container.said
        assert "PostgreSQL" in container.said


def test_with_another_password_than_the_databases_nothing_is_served_and_why_is_said(stack: Stack) -> None:
    network = stack.compose("ps", "--quiet", "postgresql").strip()
    url = "postgresql://comfyweb:another@localhost/comfyweb"
    with Container(f"--network=container:{network}", *told(**PRODUCTION, DATABASE_URL=url)) as container:
        until(lambda: "the server refuses the user or the password" in container.said)
        assert "another" not in container.said
        assert container.stop() == 0
