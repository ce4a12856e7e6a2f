"""`python -m bench.paced PORT PATH COOKIE CONNECTIONS RATE SECONDS`: so many requests a second, whatever comes back.

Each connection has its own beat. A request counts from the moment at which it was due, so that one slow answer is not
hidden by the requests that it has kept from being sent. Prints how long each took, in seconds, as JSON.
"""

import json
import select
import socket
import sys
import time


def main(port: int, path: str, cookie: str, connections: int, rate: float, seconds: float) -> list[float]:
    """Return how long each request took. Raises RuntimeError for an answer that is no 200."""
    request = f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nCookie: {cookie}\r\n\r\n".encode()
    beat = connections / rate
    sockets: dict[int, socket.socket] = {}
    due: dict[int, float] = {}
    sent: dict[int, bool] = {}
    poll = select.epoll()
    begin = time.monotonic() + 0.1
    for index in range(connections):
        one = socket.create_connection(("127.0.0.1", port))
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        number = one.fileno()
        sockets[number], due[number], sent[number] = one, begin + index * beat / connections, False
        poll.register(one, select.EPOLLIN)
    took: list[float] = []
    while (now := time.monotonic()) < begin + seconds:
        for number, moment in due.items():
            if not sent[number] and moment <= now:
                sockets[number].sendall(request)
                sent[number] = True
        waiting = [moment for number, moment in due.items() if not sent[number]]
        for number, _ in poll.poll(max(0.0, min(waiting, default=now + 0.01) - time.monotonic())):
            data = sockets[number].recv(65536)
            if not data.startswith(b"HTTP/1.1 200 ") or not data.endswith(b"\n"):
                raise RuntimeError(f"an answer was {data[:60]!r}")
            took.append(time.monotonic() - due[number])
            due[number] += beat
            sent[number] = False
    return took


if __name__ == "__main__":
    where, what, who, width, pace, duration = sys.argv[1:]
    sys.stdout.write(json.dumps(main(int(where), what, who, int(width), float(pace), float(duration))))
