"""Ends what a revoked session has under way, downloads and uploads too: the gate ends websockets alone.

nginx asks ComfyUI for each session from an address of its own, and the kernel ends the connections of one
(SOCK_DESTROY, which Debian's and Ubuntu's kernels have). So no byte of them need pass through a program of ours.
"""

import logging
import threading

from vm_setup.base.processes import run
from vm_setup.host.gate import source_of

_LOG = logging.getLogger(__name__)
# The gate hears of a revoke within a fifth of a second. What it let through just before may come to ComfyUI late.
_PAUSES_SECONDS = (1.0, 4.0)


def cut(session: str, port: int) -> None:
    """End the connections of a session to ComfyUI's port."""
    code, _ = run(["ss", "--kill", "--tcp", "--no-header", "src", source_of(session), "dport", "=", f":{port}"])
    if code:
        _LOG.error("What a session that is over has under way could not be ended: ss ended with code %d.", code)


def cut_soon(session: str, port: int, *, over: threading.Event) -> None:
    """Do so when the gate has heard that the session is over, and once more; in a thread of its own."""

    def follow() -> None:
        for pause in _PAUSES_SECONDS:
            if over.wait(pause):
                return
            cut(session, port)

    threading.Thread(target=follow, name="cutting", daemon=True).start()
