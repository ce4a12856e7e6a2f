"""A door between the loop and the emulator: while it is shut, nobody listens there and connections are refused."""

import asyncio
from asyncio import AbstractServer, StreamReader, StreamWriter, Task
from typing import Self, cast

from comfyweb.demo.listening import HOST, bound


class Relay:
    """Passes bytes on to `port`. `url` stays the same when it is shut and opened again."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._socket = bound(0)
        self._port: int = self._socket.getsockname()[1]
        self.url = f"http://{HOST}:{self._port}"
        self._server: AbstractServer | None = None
        self._open: set[StreamWriter] = set()
        self._tasks: set[Task[None]] = set()

    async def open(self) -> None:
        """Listen."""
        if self._socket.fileno() < 0:
            self._socket = bound(self._port)
        self._server = await asyncio.start_server(self._pass_on, sock=self._socket)

    async def shut(self) -> None:
        """Listen no more, and end the connections that there are."""
        assert self._server is not None
        self._server.close()
        for writer in self._open.copy():
            writer.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _pass_on(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = cast("Task[None]", asyncio.current_task())
        self._tasks.add(task)
        there_reader, there = await asyncio.open_connection(HOST, self._to)
        self._open |= {writer, there}
        try:
            await asyncio.gather(_pump(reader, there), _pump(there_reader, writer))
        finally:
            self._open -= {writer, there}
            self._tasks.discard(task)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.shut()


async def _pump(reader: StreamReader, writer: StreamWriter) -> None:
    try:
        while some := await reader.read(65536):
            writer.write(some)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()
