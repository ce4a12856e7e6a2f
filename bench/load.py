"""`python -m bench.load PORT PATH TOKEN CONNECTIONS SECONDS`: as many requests as go; prints how many were answered.

Every connection sends its next request when its answer is there. Plain sockets and epoll, because the generator shares
the machine with the server, and what it takes the server lacks.
"""

import re
import select
import socket
import sys
import time


def main(port: int, path: str, token: str, connections: int, seconds: float) -> int:
    """Return the number of answers. Raises RuntimeError for an answer that is not like the first one."""
    request = f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nX-Auth-Token: {token}\r\n\r\n".encode()
    length = _answer_length(port, request)
    sockets: dict[int, socket.socket] = {}
    missing: dict[int, int] = {}
    poll = select.epoll()
    for _ in range(connections):
        one = socket.create_connection(("127.0.0.1", port))
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sockets[one.fileno()] = one
        missing[one.fileno()] = length
        poll.register(one, select.EPOLLIN)
        one.sendall(request)
    answered, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        for number, _ in poll.poll(0.1):
            data = sockets[number].recv(65536)
            if not data or (missing[number] == length and not data.startswith(b"HTTP/1.1 200 ")):
                raise RuntimeError(f"an answer was {data[:60]!r}")
            missing[number] -= len(data)
            if missing[number] < 0:
                raise RuntimeError("an answer was longer than the first one")
            if missing[number] == 0:
                answered += 1
                missing[number] = length
                sockets[number].sendall(request)
    return answered


def _answer_length(port: int, request: bytes) -> int:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(request)
        data = b""
        while b"\r\n\r\n" not in data:
            data += connection.recv(65536)
    head = data.partition(b"\r\n\r\n")[0]
    found = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    if not head.startswith(b"HTTP/1.1 200 ") or not found:
        raise RuntimeError(f"the answer was {head[:60]!r}")
    return len(head) + 4 + int(found[1])


if __name__ == "__main__":
    where, what, who, width, duration = sys.argv[1:]
    sys.stdout.write(f"{main(int(where), what, who, int(width), float(duration))}\n")
