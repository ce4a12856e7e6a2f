"""`python -m comfyweb.demo --port P [--fast]`: Compute Engine on loopback port P, and its machine's ComfyUI on P+1."""

import argparse
import asyncio
import logging
import secrets
import signal
import socket
import sys
from collections.abc import Sequence

from comfyweb.demo.box import Box
from comfyweb.demo.clock import SystemClock
from comfyweb.demo.model import Times
from comfyweb.demo.server import HOST, Server, app_of, bound
from comfyweb.demo.world import World

PORT = 3001
LAST_PORT = 65534


def _port(said: str) -> int:
    port = int(said)
    if not 0 < port <= LAST_PORT:
        raise argparse.ArgumentTypeError(f"a port is a number from 1 to {LAST_PORT}")
    return port


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m comfyweb.demo", description="The cloud in a box, on loopback.")
    parser.add_argument(
        "--port", type=_port, default=PORT, help="of Compute Engine; ComfyUI gets the next (default: 3001)"
    )
    parser.add_argument("--fast", action="store_true", help="every transition in at most 0.3 s")
    return parser.parse_args(arguments)


async def run(*, port: int, fast: bool, listening: socket.socket) -> None:
    """Run the emulator on `listening`, which is `port`, until SIGTERM or SIGINT."""
    from comfyweb.demo.standin import FAST, StandIn  # noqa: PLC0415 - a slow import that a used port need not wait for

    clock = SystemClock()
    times = Times.fast() if fast else Times()
    box = Box(World(now=clock.now(), times=times, seed=secrets.randbits(64)), clock=clock)
    box.guest = StandIn(
        port=port + 1, metadata_url=f"http://{HOST}:{port}", poweroff=box.poweroff, pace=FAST if fast else 1.0
    )
    server = Server(app_of(box), box)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, server.end)
    await server.serve([listening])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT. Returns the exit code: 1 when a port is in use."""
    said = _arguments(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    port = int(said.port)
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
    asyncio.run(run(port=port, fast=bool(said.fast), listening=listening))
    return 0


if __name__ == "__main__":
    sys.exit(main())
