"""The sockets of the demo: on loopback alone, and answering at once."""

import os
import socket

HOST = "127.0.0.1"
ALL = "0.0.0.0"  # noqa: S104 - chosen in `bound`


def bound(port: int) -> socket.socket:
    """Listen on loopback; port 0 takes a free one. Raises `OSError` when the port is in use.

    In a container (podman, systemd and our Dockerfile set `container`) loopback is the container's own, so all its
    addresses there. Who may ask is decided by the Host header, and by whom the container's port is published to.
    """
    # asyncio switches Nagle's algorithm off only where the protocol is named; with it each answer takes 40 ms longer.
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        contained = os.environ.get("container")  # noqa: SIM112 - this is how it is spelt
        found.bind((ALL if contained else HOST, port))
        found.listen()
    except OSError:
        found.close()
        raise
    found.setblocking(False)  # noqa: FBT003 - the socket module's own signature
    return found
