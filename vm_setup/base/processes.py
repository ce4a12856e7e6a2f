"""Processes: running one that must not keep us waiting, and telling systemd how our own is."""

import contextlib
import os
import socket
import subprocess
from collections.abc import Sequence

_COMMAND_SECONDS = 5.0
_OUTPUT_LIMIT = 1_000_000


def run(argv: Sequence[str], *, seconds: float = _COMMAND_SECONDS) -> tuple[int, bytes]:
    """Run a command and return its exit code and output; 127 when there is no such, 124 when it takes too long."""
    try:
        process = subprocess.Popen(  # noqa: S603 - the words are ours, and no shell reads them
            list(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except OSError:
        return 127, b""
    said = end_of(process, seconds=seconds)
    return (124, b"") if said is None else (process.returncode, said[0][-_OUTPUT_LIMIT:])


def end_of(process: "subprocess.Popen[bytes]", *, seconds: float) -> tuple[bytes, bytes] | None:
    """Wait for a process and return what it has said; None when it takes too long, and then it is killed.

    One that can't be killed (a driver that hangs) is left behind rather than waited for.
    """
    try:
        return process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
        return None
    finally:
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def notify(*said: str) -> None:
    """Tell systemd, if it started us (sd_notify(3)). What it doesn't hear is lost, as it is meant to be."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as out:
        out.sendto("\n".join(said).encode(errors="replace"), "\0" + address[1:] if address[0] == "@" else address)
