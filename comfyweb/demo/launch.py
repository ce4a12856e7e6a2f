"""`make run` and `make dev`: the cloud in a box and, beside it, the real app, in one terminal.

The app knows nothing of the demo: it is told another Compute Engine endpoint, and speaks to it as to Google's. Either
is started again when it dies, while the other goes on, as a supervisor would do it; so one can kill them and look. A
cloud that was killed has forgotten everything: it comes back with its machine off, as after a power cut.
"""

import argparse
import asyncio
import contextlib
import ctypes
import os
import secrets
import signal
import socket
import sys
import tempfile
import urllib.request
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

HOST = "127.0.0.1"
PORT = 3000
LAST_PORT = 60000
DEV_BACKEND = 5000  # above PORT: Reflex's own 8000
PATIENCE = 8.0  # seconds that a process gets to end by itself
READY_EVERY = 0.1
RESTART_SECONDS = 1.0
BAD_SETTINGS = 2  # the exit code of `python -m comfyweb` that no restart can mend
LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # prctl(2)
# What the surroundings may say about a real machine must not reach the demo's.
NOT_HERE = frozenset(
    {
        "ALLOWED_IP",
        "APP_EGRESS_IP",
        "CF_CERT_PATH",
        "CF_KEY_PATH",
        "COMFYUI_DOMAIN",
        "COMFYUI_GIT",
        "COMFYUI_RELEASE",
        "DATABASE_URL_FILE",
        "GATE_PRIVATE_KEY",
        "GATE_PRIVATE_KEY_FILE",
        "GCE_INSTANCE",
        "GCE_ZONE",
        "GCE_ZONES",
        "GCP_CREDENTIALS_PATH",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "JWT_SECRET_FILE",
        "PUBLIC_URL",
        "REDIS_URL",
        "REDIS_URL_FILE",
        "SERVICE_ACCOUNT_KEY",
        "SSL_EMAIL",
        "STARTUP_SCRIPT_URL",
        "TRUSTED_PROXY_HOPS",
    }
)


def say(line: str) -> None:
    """Tell the person at the terminal."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def app_environment(environ: Mapping[str, str], *, port: int, password: str, folder: Path) -> dict[str, str]:
    """Return the environment of the real app beside the demo's cloud; `folder` keeps its database."""
    kept = {name: value for name, value in environ.items() if name not in NOT_HERE}
    if "AUTH_PASSWORD_FILE" not in kept:
        kept["AUTH_PASSWORD"] = password
    return kept | {
        "COMFYUI_URL": f"http://localhost:{port + 2}",
        "COMFYWEB_ENV_FILE": "",  # .env is for a real machine
        "COMPUTE_ENDPOINT": f"http://{HOST}:{port + 1}",
        "DATABASE_URL": f"sqlite:///{folder / 'comfyweb.db'}",
        "GCP_PROJECT": "demo-project",
        "JWT_SECRET": secrets.token_hex(32),
        "PORT": str(port),
        "PYTHONUNBUFFERED": "1",
    }


def taken(ports: Sequence[int]) -> list[int]:
    """Return those of the ports on which somebody listens."""
    found: list[int] = []
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                found.append(port)
    return found


class Child:
    """A process in a group of its own, so that Ctrl-C reaches this one alone and nothing of it stays behind.

    `over` is done when it has ended and all that it had started is gone too; its result says how it ended.
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self.over = asyncio.create_task(self._over())

    @classmethod
    async def start(cls, command: Sequence[str], environ: Mapping[str, str]) -> "Child":
        """Start it. On Linux it is told to end should this process be killed."""
        return cls(
            await asyncio.create_subprocess_exec(
                *command, env=environ, stdin=DEVNULL, start_new_session=True, preexec_fn=_end_with_parent
            )
        )

    @property
    def code(self) -> int | None:
        """Its exit code, minus the signal that killed it, or None while it runs."""
        return self._process.returncode

    async def end(self) -> None:
        """End it: first asked, then told."""
        self._signal(signal.SIGTERM)
        await asyncio.wait({self.over}, timeout=PATIENCE)
        self._signal(signal.SIGKILL)
        await self.over

    async def _over(self) -> str:
        code = await self._process.wait()
        self._signal(signal.SIGKILL)
        await asyncio.to_thread(_bury, self._process.pid)
        return f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def _bury(group: int) -> None:
    """Reap what of this process group became ours when its own parent was killed."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-group, 0)[0]:
            pass


def _end_with_parent() -> None:
    if sys.platform == "linux":
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _adopt_orphans() -> None:
    """Become the parent of processes whose own was killed, or they would stay as zombies where nobody reaps."""
    if sys.platform == "linux":
        LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1)


async def answering(url: str) -> None:
    """Return when something answers there."""

    def asked() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - our own address
                return True
        except OSError:
            return False

    while True:
        if await asyncio.to_thread(asked):
            return
        await asyncio.sleep(READY_EVERY)


async def _greet(port: int, password: str) -> None:
    await answering(f"http://{HOST}:{port}/login")
    say(
        f"\n  comfyweb   http://localhost:{port}"
        f"\n  password   {password}"
        f"\n  its cloud  http://localhost:{port + 1}   (lets things go wrong)"
        "\n  Ctrl-C ends both.\n"
    )


async def keep(
    name: str,
    command: Sequence[str],
    environ: Mapping[str, str],
    ends: set[asyncio.Task[object]],
    *,
    again: Callable[[int], bool],
) -> int:
    """Run a program, again and again, until one of `ends` is done or it ends in a way that no restart can mend.

    Returns its exit code; 0 when it was ended here.
    """
    while not any(end.done() for end in ends):
        child = await Child.start(command, environ)
        await asyncio.wait({child.over, *ends}, return_when=asyncio.FIRST_COMPLETED)
        if not child.over.done():
            await child.end()
            return 0
        if not again(code := child.code or 0):
            return code
        say(f"{name} {child.over.result()}. The other goes on; starting {name.lower()} again.")
        await asyncio.wait(ends, timeout=RESTART_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    return 0


async def run(*, port: int, dev: bool, fast: bool) -> int:
    """Run both until SIGINT, SIGTERM or SIGHUP. Returns the exit code."""
    _adopt_orphans()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    made = "-".join(secrets.token_hex(2) for _ in range(4))
    given = os.environ.get("AUTH_PASSWORD") or os.environ.get("AUTH_PASSWORD_FILE")
    ports = ["--frontend-port", str(port), "--backend-port", str(port + DEV_BACKEND)]
    serve = (
        [str(Path(sys.executable).with_name("reflex")), "run", *ports] if dev else [sys.executable, "-m", "comfyweb"]
    )
    with tempfile.TemporaryDirectory(prefix="comfyweb-demo-") as folder:
        environ = app_environment(os.environ, port=port, password=given or made, folder=Path(folder))
        demo = [sys.executable, "-m", "comfyweb.demo", "--port", str(port + 1), *(["--fast"] if fast else [])]
        app_ended = asyncio.Event()
        after_the_app: set[asyncio.Task[object]] = {asyncio.create_task(app_ended.wait())}
        cloud = asyncio.create_task(keep("The cloud", demo, os.environ, after_the_app, again=lambda code: code < 0))
        stopped = asyncio.create_task(stop.wait())
        greeting = asyncio.create_task(_greet(port, "the one in AUTH_PASSWORD" if given else made))
        try:
            code = await keep("The app", serve, environ, {stopped, cloud}, again=lambda code: code != BAD_SETTINGS)
        finally:
            greeting.cancel()
            app_ended.set()
            cloud_code = await cloud
        if code == 0 and not stopped.done():
            say(f"The cloud ended with code {cloud_code}, so the app was ended too.")
            return 1
        return code


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo at PORT and the two ports after it. Returns the exit code: 1 when one is in use."""
    parser = argparse.ArgumentParser(prog="python -m comfyweb.demo.launch", description="The app and a cloud in a box.")
    parser.add_argument("--dev", action="store_true", help="reload the app when its source changes")
    parser.add_argument("--fast", action="store_true", help="let the machine start and stop within a second")
    said = parser.parse_args(arguments)
    written = os.environ.get("PORT") or str(PORT)
    if not written.isdecimal() or not 0 < int(written) <= LAST_PORT:
        say(f"PORT must be a number from 1 to {LAST_PORT}.")
        return 1
    port = int(written)
    if busy := taken([port, port + 1, port + 2, *([port + DEV_BACKEND] if said.dev else [])]):
        say(f"Port {busy[0]} is in use by another program. Take others: PORT={port + 100} make run")
        return 1
    return asyncio.run(run(port=port, dev=bool(said.dev), fast=bool(said.fast)))


if __name__ == "__main__":
    sys.exit(main())
