"""What answers at an address, over real connections on loopback."""

import asyncio
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from comfyweb.cloud import answering
from comfyweb.cloud.answering import NoAnswer, certificate_at, script_at, time_at
from tests.cloud.wire import RESET, SILENCE, answer, wire
from tests.web.forwarding import certificate


@asynccontextmanager
async def serving(context: ssl.SSLContext) -> AsyncGenerator[int]:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=context)
    async with server:
        yield int(server.sockets[0].getsockname()[1])


async def test_the_time_is_told_by_any_answer() -> None:
    async with wire(answer(404, Date="Sat, 28 Nov 2026 12:00:00 GMT")) as there:
        assert await time_at(there.url) == datetime(2026, 11, 28, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize("reply", [RESET, SILENCE, answer(200), answer(200, Date="noon"), b"garbage\r\n\r\n"])
async def test_what_tells_no_time_is_no_answer(reply: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "TIMEOUT_SECONDS", 0.5)
    async with wire(reply) as there:
        with pytest.raises(NoAnswer):
            await time_at(there.url)


async def test_a_certificate_that_nobody_signed_is_read_and_not_trusted(tmp_path: Path) -> None:
    async with serving(certificate(tmp_path)) as port:
        seen = await certificate_at("localhost", host="127.0.0.1", port=port)
    assert (seen.name, seen.trusted) == ("localhost", False)
    assert seen.until is not None
    assert seen.until > datetime.now(UTC)


async def test_a_certificate_that_this_computer_trusts_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(certificate(tmp_path)) as port:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "localhost.pem"))
        assert (await certificate_at("localhost", host="127.0.0.1", port=port)).trusted
        other = await certificate_at("comfy.example.com", host="127.0.0.1", port=port)
    assert (other.name, other.trusted) == ("localhost", False)


async def test_where_nobody_speaks_tls_there_is_no_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "TIMEOUT_SECONDS", 0.5)
    async with wire(answer(200)) as there:
        with pytest.raises(NoAnswer):
            await certificate_at("localhost", host="127.0.0.1", port=int(there.url.rpartition(":")[2]))
    with pytest.raises(NoAnswer):
        await certificate_at("localhost", host="127.0.0.1", port=1)


async def test_a_stored_script_is_read() -> None:
    async with wire(answer(200, b"#!/bin/bash\n# comfyweb host bundle 0.1.0+a\n")) as there:
        assert "0.1.0+a" in await script_at(f"{there.url}/host.sh")


@pytest.mark.parametrize("reply", [answer(404), answer(403), RESET, answer(200, b"x" * 600_000)])
async def test_what_is_no_script_is_no_answer(reply: bytes) -> None:
    async with wire(reply) as there:
        with pytest.raises(NoAnswer):
            await script_at(f"{there.url}/host.sh")
