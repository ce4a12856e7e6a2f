"""A cable between an app and a server: cut, it swallows what is sent, and nobody is told."""

import contextlib
import selectors
import socket
import threading
from typing import Self

from comfyweb.demo.listening import HOST, bound


class Cable:
    """Passes bytes on to `to`, in a thread of its own, until it is cut."""

    def __init__(self, to: int) -> None:
        self._to = to
        self._listener = bound(0)
        self._listener.listen()
        self.port: int = self._listener.getsockname()[1]
        self._whole = threading.Event()
        self._whole.set()
        self._ended = threading.Event()
        self._ends: dict[socket.socket, socket.socket] = {}
        self._thread = threading.Thread(target=self._run, daemon=True)

    def cut(self) -> None:
        """Pass nothing on any more; connections stay open on both sides."""
        self._whole.clear()

    def mend(self) -> None:
        """Pass on again. What was swallowed meanwhile is lost, so the connections of that time are ended."""
        for end in list(self._ends):
            with contextlib.suppress(OSError):  # ended by the other side just now
                end.shutdown(socket.SHUT_RDWR)
        self._whole.set()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            while not self._ended.is_set():
                for key, _ in selector.select(0.1):
                    if key.fileobj is self._listener:
                        self._connect(selector)
                    elif isinstance(key.fileobj, socket.socket) and key.fileobj in self._ends:
                        self._pass_on(selector, key.fileobj)

    def _connect(self, selector: selectors.BaseSelector) -> None:
        here, _ = self._listener.accept()
        there = socket.create_connection((HOST, self._to))
        self._ends |= {here: there, there: here}
        selector.register(here, selectors.EVENT_READ)
        selector.register(there, selectors.EVENT_READ)

    def _pass_on(self, selector: selectors.BaseSelector, end: socket.socket) -> None:
        other = self._ends[end]
        try:
            some = end.recv(65536)
            if some and self._whole.is_set():
                other.sendall(some)
        except OSError:
            some = b""
        if not some:
            for each in (end, other):
                selector.unregister(each)
                del self._ends[each]
                each.close()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self._thread.join()
        for end in (*self._ends, self._listener):
            end.close()
