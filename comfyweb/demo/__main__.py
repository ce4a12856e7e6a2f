"""`python -m comfyweb.demo --port P`: Compute Engine on loopback port P, and its machine's ComfyUI on P+1."""

import argparse
import asyncio
import logging
import secrets
import signal
import socket
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from comfyweb.demo.bodies import object_in
from comfyweb.demo.box import Box
from comfyweb.demo.clock import SystemClock
from comfyweb.demo.cloud import Cloud
from comfyweb.demo.identity import Identity
from comfyweb.demo.listening import HOST, bound
from comfyweb.demo.model import Refusal, Times
from comfyweb.demo.server import Server, app_of
from comfyweb.demo.world import World

PORT = 3001
LAST_PORT = 65534


def _port(said: str) -> int:
    port = int(said)
    if not 0 < port <= LAST_PORT:
        raise argparse.ArgumentTypeError(f"a port is a number from 1 to {LAST_PORT}")
    return port


def parser() -> argparse.ArgumentParser:
    """Make what reads the command line."""
    made = argparse.ArgumentParser(prog="python -m comfyweb.demo", description="The cloud in a box, on loopback.")
    made.add_argument(
        "--port", type=_port, default=PORT, help="of Compute Engine; ComfyUI gets the next (default: 3001)"
    )
    made.add_argument("--fast", action="store_true", help="every transition in at most 0.3 s")
    made.add_argument(
        "--keys",
        action="append",
        default=[],
        metavar="FILE",
        help="a service account's key file; then calls are answered only with a token of such a key or of the machine",
    )
    made.add_argument(
        "--project",
        action="append",
        default=[],
        metavar="NAME[:ZONE,...]",
        help="another, empty project, with the zones of the first one unless it has others",
    )
    return made


def identity_of(files: Sequence[str]) -> Identity:
    """Make the keys in these files known, and verify if there are any. Raises `Refusal` for a file that holds none."""
    identity = Identity(verifies=bool(files))
    for file in files:
        try:
            identity.register(object_in(Path(file).read_bytes()))
        except OSError as error:
            raise Refusal.invalid(f"{file} can't be read: {error.strerror}.") from error
        except Refusal as error:
            raise Refusal.invalid(f"{file}: {error}") from error
    return identity


def cloud_of(*, fast: bool, projects: Sequence[str], now: datetime) -> Cloud:
    """Make the first project and the others. Raises `Refusal` for one that can't be."""
    times = Times.fast() if fast else Times()
    cloud = Cloud(World(now=now, times=times, seed=secrets.randbits(64)))
    for said in projects:
        name, _, zones = said.partition(":")
        cloud.create(name, [zone for zone in zones.split(",") if zone])
    return cloud


async def run(*, port: int, fast: bool, cloud: Cloud, identity: Identity, listening: socket.socket) -> None:
    """Run the emulator on `listening`, which is `port`, until SIGTERM or SIGINT."""
    from comfyweb.demo.standin import FAST, StandIn  # noqa: PLC0415 - a slow import that a used port need not wait for

    box = Box(cloud, clock=SystemClock(), identity=identity)
    box.guest = StandIn(
        port=port + 1, metadata_url=f"http://{HOST}:{port}", poweroff=box.poweroff, pace=FAST if fast else 1.0
    )
    server = Server(app_of(box), box)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, server.end)
    await server.serve([listening])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT. Returns the exit code: 1 when a port is in use."""
    said = parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    port = int(said.port)
    try:
        identity = identity_of(said.keys)
        cloud = cloud_of(fast=bool(said.fast), projects=said.project, now=SystemClock().now())
    except Refusal as refused:
        sys.stderr.write(f"{refused}\n")
        return 1
    try:
        listening = bound(port)
        bound(port + 1).close()
    except OSError as error:
        sys.stderr.write(
            f"Ports {port} and {port + 1} must both be free. {error.strerror}: choose others with --port.\n"
        )
        return 1
    sys.stdout.write(f"The cloud in a box: http://localhost:{port}\n")
    sys.stdout.flush()
    asyncio.run(run(port=port, fast=bool(said.fast), cloud=cloud, identity=identity, listening=listening))
    return 0


if __name__ == "__main__":
    sys.exit(main())
