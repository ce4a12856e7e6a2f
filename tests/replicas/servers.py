"""PostgreSQL and Redis as the archive has them: real servers of the test's own, that can be killed and stood still."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tests.launching import PATIENCE, free_ports

HOST = "127.0.0.1"
_INITDB = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
POSTGRESQL = _INITDB[-1].parent if _INITDB else None
REDIS = shutil.which("redis-server")
# Servers that refuse to run as root.
NOBODY = "nobody"


class Server:
    """A server as a process of its own, in a folder of its own, on a port that stays the same."""

    def __init__(self) -> None:
        self.port = free_ports()
        self._place = tempfile.TemporaryDirectory(prefix="comfyweb-server-")
        self.folder = Path(self._place.name)
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> Sequence[str | Path]:
        """Return what starts it in the foreground."""
        raise NotImplementedError

    def answers(self) -> bool:
        """Whether it serves."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it and wait until it serves."""
        self._process = subprocess.Popen(
            [*_as_nobody(), *self.command()], cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until = time.monotonic() + PATIENCE
        while not self.answers():
            assert self._process.poll() is None, "the server ended at once"
            assert time.monotonic() < until, "the server never answered"
            time.sleep(0.05)

    def kill(self) -> None:
        """End it with SIGKILL."""
        assert self._process
        self._process.kill()
        self._process.wait(PATIENCE)

    def stand_still(self) -> None:
        """Let it, and what it has started, do nothing more, while its connections stay open."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        for pid in (self._process.pid, *map(int, children)):
            os.kill(pid, number)

    def __enter__(self) -> Self:
        if os.getuid() == 0:
            shutil.chown(self.folder, NOBODY)
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        if self._process and self._process.poll() is None:
            self.go_on()
            self._process.send_signal(signal.SIGINT)
            self._process.wait(PATIENCE)
        self._place.cleanup()


class PostgreSQLServer(Server):
    """A cluster of its own. `url` names a database that was made just now."""

    def __init__(self) -> None:
        super().__init__()
        self._databases = 0

    def __enter__(self) -> Self:
        assert POSTGRESQL
        if os.getuid() == 0:
            shutil.chown(self.folder, NOBODY)
        made = [
            *_as_nobody(),
            POSTGRESQL / "initdb",
            "-D",
            self.folder / "data",
            "-A",
            "trust",
            "-U",
            "comfyweb",
            "--no-sync",
        ]
        subprocess.run(made, cwd=self.folder, check=True, stdout=subprocess.DEVNULL)
        self.start()
        return self

    def command(self) -> Sequence[str | Path]:
        assert POSTGRESQL
        settings = [
            f"port={self.port}",
            f"listen_addresses={HOST}",
            f"unix_socket_directories={self.folder}",
            "fsync=off",
        ]
        return [
            POSTGRESQL / "postgres",
            "-D",
            self.folder / "data",
            *(word for each in settings for word in ("-c", each)),
        ]

    def answers(self) -> bool:
        return self._psql("SELECT 1").returncode == 0

    def url(self, *, port: int | None = None, encoding: str = "UTF8") -> str:
        """Make a database; return its address, by way of another port if there is one."""
        self._databases += 1
        name = f"comfyweb{self._databases}"
        assert self._psql(f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 LOCALE 'C'").returncode == 0
        return f"postgresql://comfyweb@{HOST}:{port or self.port}/{name}"

    def set(self, url: str, name: str, value: str) -> None:
        """Set what connections to a database begin with."""
        assert self._psql(f"ALTER DATABASE {url.rpartition('/')[2]} SET {name} = '{value}'").returncode == 0

    def _psql(self, sql: str) -> subprocess.CompletedProcess[bytes]:
        assert POSTGRESQL
        address = ["-h", HOST, "-p", str(self.port), "-U", "comfyweb", "postgres"]
        return subprocess.run([POSTGRESQL / "psql", *address, "-c", sql], check=False, capture_output=True)


class RedisServer(Server):
    """A Redis that stores nothing."""

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}"

    def command(self) -> Sequence[str | Path]:
        assert REDIS
        return [REDIS, "--port", str(self.port), "--bind", HOST, "--save", "", "--appendonly", "no"]

    def answers(self) -> bool:
        return (
            subprocess.run(["redis-cli", "-p", str(self.port), "ping"], check=False, capture_output=True).stdout
            == b"PONG\n"
        )


def _as_nobody() -> list[str]:
    """Return what goes before a command, so that root's tests don't run servers as root, which they refuse."""
    if os.getuid():
        return []
    nobody = pwd.getpwnam(NOBODY)
    return ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
