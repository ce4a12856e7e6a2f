"""A websocket on its way to ComfyUI: what one side says, the other hears, until one of them ends."""

import asyncio
import contextlib

from vm_setup.gate.wire import Head

_CHUNK = 65536
_CONNECT_SECONDS = 5.0
_NOT_HANDED_ON = frozenset({"cookie"})


class Unreachable(Exception):
    """ComfyUI can't be reached."""


async def join(
    head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, address: tuple[str, int]
) -> None:
    """Hand the request on without its cookie, then everything both ways. Raises `Unreachable`.

    Cancelled, it ends the connection to ComfyUI.
    """
    try:
        there, back = await asyncio.wait_for(asyncio.open_connection(*address), _CONNECT_SECONDS)
    except (OSError, asyncio.TimeoutError) as error:
        raise Unreachable from error
    back.write(_handed_on(head))
    ways = {asyncio.create_task(_carry(reader, back)), asyncio.create_task(_carry(there, writer))}
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        back.close()


def _handed_on(head: Head) -> bytes:
    lines = [f"{name}: {value}" for name, value in head.headers if name not in _NOT_HANDED_ON]
    return ("\r\n".join([f"{head.method} {head.target} HTTP/1.1", *lines]) + "\r\n\r\n").encode("latin-1")


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
