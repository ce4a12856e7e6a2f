"""`python -m comfyweb`: check the settings, then serve the built page, REST and the loop from one worker process.

One worker, because there is one loop per machine; it is started again when it dies. Nothing is compiled here and no
node or bun is needed: `make build` has done that. This process only supervises and never imports the app.
"""

import logging
import os
import socket
import sys
from collections.abc import Mapping

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server import Server

from comfyweb import logs
from comfyweb import settings_checks as check
from comfyweb.settings import Settings, SettingsError, of_process
from comfyweb.ui.idle import places
from comfyweb.ui.static import BuiltPage, NotBuiltError

ALL = "0.0.0.0"  # noqa: S104 - chosen in `address`
LOOPBACK = "127.0.0.1"
# More connections than there are places for wait in the system, which keeps at most net.core.somaxconn of them.
BACKLOG = 4096
# Whoever has not sent a request's head by then is cut off, and so is who keeps a connection for a next one.
HEAD_WITHIN_MILLISECONDS = 10_000
LARGEST_HEAD_BYTES = 32768  # of which each connection may fill a buffer
END_SECONDS = 10
# A tab whose network has gone silently says so within the sum of both.
PING_EVERY_SECONDS, PONG_WITHIN_SECONDS = 10, 10
LARGEST_EVENT_BYTES = 16384  # what a tab sends is a password or a click; Reflex would take 1 MB from anybody

log = logging.getLogger("comfyweb")


def address(settings: Settings, environ: Mapping[str, str]) -> str:
    """Return the address to listen on: loopback when the app is reached there only, else all.

    In a container loopback is the container's own, so all addresses there too; podman, systemd and our Dockerfile set
    `container`. Who may ask is then decided by the Host header (ui/hosts.py).
    """
    return LOOPBACK if check.host_of(settings.public_url) in check.LOOPBACK and not environ.get("container") else ALL


def in_use(host: str, port: int) -> bool:
    """Tell whether somebody listens there. Granian wouldn't notice: its workers share their port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


def main() -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code: 2 when it can't even start, and why is on stderr."""
    try:
        settings = of_process()
        BuiltPage.read()
    except (SettingsError, NotBuiltError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    logs.write_as(settings.log_format)
    host = address(settings, os.environ)
    if in_use(host, settings.port):
        sys.stderr.write(f"Port {settings.port} can't be had: another process listens there. Set PORT to another.\n")
        return 2
    for warning in settings.warnings:
        log.warning(warning)
    os.environ |= {
        "REFLEX_ENV_MODE": "prod",
        "__REFLEX_SKIP_COMPILE": "true",
        "REFLEX_TRUSTED_PROXY_HOPS": str(settings.trusted_proxy_hops),
        "REFLEX_SOCKET_INTERVAL": f"{PING_EVERY_SECONDS}s",
        "REFLEX_SOCKET_TIMEOUT": f"{PONG_WITHIN_SECONDS}s",
        "REFLEX_SOCKET_MAX_HTTP_BUFFER_SIZE": str(LARGEST_EVENT_BYTES),
    }
    log.info("serving %s, listening on %s:%s", settings.public_url, host, settings.port)
    Server(
        target="comfyweb.comfyweb:serve",
        factory=True,
        address=host,
        port=settings.port,
        interface=Interfaces.ASGI,
        workers=1,
        respawn_failed_workers=True,
        workers_kill_timeout=END_SECONDS,
        backlog=BACKLOG,
        backpressure=places(),
        # Waiting to see which version of HTTP comes, granian waits for ever; and HTTP/2 has no time limits at all.
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=HEAD_WITHIN_MILLISECONDS, max_buffer_size=LARGEST_HEAD_BYTES),
        log_level=LogLevels.warning,
        log_dictconfig=logs.GRANIAN,
    ).serve()
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["doctor"]:
        from comfyweb.doctor import command  # what serves needs none of it

        command.main(sys.argv[2:])
    sys.exit(main())
