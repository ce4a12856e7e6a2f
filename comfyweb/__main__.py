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

LONGEST_LINE = 2000
LINES_A_MINUTE = 30
CAUSED_BY_STRANGERS = frozenset({"comfyweb.ui.state", "comfyweb.ui.door", "comfyweb.api.frame", "comfyweb.api.events"})

log = logging.getLogger("comfyweb")


class OneLine(logging.Formatter):
    """A record is one line of bounded length, whatever a stranger managed to put into it.

    Only our own modules' tracebacks are printed, each below its line and bounded too.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Escape what could begin a line or move a terminal's cursor."""
        ours = record.name.split(".")[0] == "comfyweb"
        trace = record.exc_info if ours else None
        shown = logging.makeLogRecord({**record.__dict__, "exc_info": None, "exc_text": None, "stack_info": None})
        line = super().format(shown)[:LONGEST_LINE]
        line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
        return f"{line}\n{self.formatException(trace)[-LONGEST_LINE:]}" if trace and trace[0] else line


class NotTooOften(logging.Filter):
    """Lets the libraries, and ours who tell of failed requests, say so much a minute: strangers cause it."""

    def __init__(self) -> None:
        super().__init__()
        self._minute, self._said = 0, 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether to print it. What else is our own is never held back."""
        if record.name.split(".")[0] == "comfyweb" and record.name not in CAUSED_BY_STRANGERS:
            return True
        minute = int(record.created // 60)
        self._said = self._said + 1 if minute == self._minute else 1
        self._minute = minute
        return self._said <= LINES_A_MINUTE


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
    printed = logging.StreamHandler()
    printed.setFormatter(OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    printed.addFilter(NotTooOften())
    logging.basicConfig(level=logging.WARNING, handlers=[printed])
    for name in ("engineio.server", "socketio.server"):  # Without a level they make a handler of their own.
        logging.getLogger(name).setLevel(logging.ERROR)
    log.setLevel(logging.INFO)
    try:
        settings = of_process()
        BuiltPage.read()
    except (SettingsError, NotBuiltError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
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
    ).serve()
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["doctor"]:
        from comfyweb.doctor import command  # what serves needs none of it

        command.main(sys.argv[2:])
    sys.exit(main())
