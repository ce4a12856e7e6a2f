"""Each request has an id: the proxy's, or one of ours; the answer carries it, and the log while it lasts."""

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from comfyweb.logs import current
from comfyweb.ui.request_ids import RequestIds

OWN = "0123456789abcdef"


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the id that the log would name."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(current("request_id")).encode()})


async def asked(*sent: str) -> httpx.Response:
    transport = httpx.ASGITransport(app=RequestIds(echo))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        return await http.get("/", headers=[("X-Request-Id", each) for each in sent])


async def test_the_id_that_came_is_kept_and_sent_back() -> None:
    answer = await asked(OWN)
    assert (answer.headers["x-request-id"], answer.text) == (OWN, OWN)
    assert current("request_id") is None


@pytest.mark.parametrize(
    "sent", [(), ("short",), ("a" * 65,), ("a" * 20 + "\t",), ("a.b.c.d.e.f.g",), ("x" * 10 + '"}',), (OWN, OWN)]
)
async def test_anything_else_gets_a_new_one(sent: tuple[str, ...]) -> None:
    first, second = await asked(*sent), await asked(*sent)
    ids = {first.headers["x-request-id"], second.headers["x-request-id"]}
    assert len(ids) == 2
    assert all(len(each) == 32 for each in ids)
    assert first.text == first.headers["x-request-id"]


async def test_a_websocket_has_one_for_as_long_as_it_is_open() -> None:
    seen: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend([current("request_id"), current("request_id")])
        await send({"type": "websocket.accept"})

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError

    await RequestIds(app)({"type": "websocket", "headers": [(b"x-request-id", OWN.encode())]}, receive, send)
    assert seen == [OWN, OWN]
    assert sent == [{"type": "websocket.accept"}]
