"""What the gate does when the keeper says something, says nothing, or nonsense."""

import json
from collections.abc import AsyncGenerator

import pytest

from tests.gate.gating import Gating, gating
from vm_setup.host.gate import Told
from vm_setup.host.tokens import Trust


@pytest.fixture
async def gate() -> AsyncGenerator[Gating]:
    async with gating() as made:
        yield made


async def test_until_comfyui_answers_everybody_is_told_that_it_starts(gate: Gating) -> None:
    cookie = (await gate.enter()).cookie
    gate.say(ready=False)
    await gate.heard()
    assert await gate.closed(cookie) == "warming"
    assert await gate.closed() == "warming"
    assert (await gate.websocket(cookie)).answer.status == 401


async def test_a_drain_lets_everything_through_but_new_prompts(gate: Gating) -> None:
    cookie = (await gate.enter()).cookie
    gate.say(draining=True)
    await gate.heard()
    for uri in ("/prompt", "/api/prompt", "/api/prompt?x=1", "/api/%70rompt", "/prompt#x", "/api/prompt#?"):
        assert await gate.closed(cookie, method="POST", uri=uri) == "draining"
        assert await gate.closed(method="POST", uri=uri) == "stranger"
        assert await gate.closed(cookie, uri=uri) is None
    for uri in ("/api/interrupt", "/upload/image", "/prompts", "/"):
        assert await gate.closed(cookie, method="POST", uri=uri) is None
    gate.say(stays=True)
    await gate.heard()
    assert await gate.closed(cookie, method="POST", uri="/prompt") == "staying"
    gate.say(draining=False, stays=False)
    await gate.heard()
    assert await gate.closed(cookie, method="POST", uri="/prompt") is None


async def test_while_the_keeper_is_dead_nobody_new_is_let_in_and_nobody_is_thrown_out(gate: Gating) -> None:
    cookie, ticket = (await gate.enter()).cookie, gate.app.ticket
    gate.clocks.moved = 31
    answer = await gate.enter(ticket())
    assert answer.status == 503
    assert "set-cookie" not in answer.headers
    assert await gate.closed(cookie) is None
    gate.say()
    await gate.heard()
    assert (await gate.enter(ticket())).status == 303
    gate.world.told.unlink()
    await gate.heard()
    assert (await gate.enter(ticket())).status == 503
    assert await gate.closed(cookie) is None


@pytest.mark.parametrize(
    "said",
    [
        "",
        "[]",
        "null",
        '{"at": "now", "keys": [], "revoked": [], "ready": 1}',
        '{"at": 1e999}',
        '{"revoked": {"a": "b", "": 1, "x y": 2}}',
        "\x00",
    ],
)
async def test_nonsense_lets_nobody_in(gate: Gating, said: str) -> None:
    cookie = (await gate.enter()).cookie
    gate.world.told.unlink()
    gate.world.told.write_text(said)
    await gate.heard()
    assert (await gate.enter()).status == 503
    assert await gate.closed(cookie) == "warming"


async def test_a_gate_that_was_told_nothing_yet_is_closed() -> None:
    async with gating(lambda made: made.world.told.unlink()) as gate:
        assert (await gate.enter()).status == 503
        assert await gate.closed() == "warming"
        gate.say()
        await gate.heard()
        assert (await gate.enter()).status == 303


async def test_only_the_app_may_frame_what_is_let_through(gate: Gating) -> None:
    assert (await gate.verify()).headers["x-comfyweb-parent"] == gate.app.origin
    gate.say(trust=Trust())
    await gate.heard()
    assert (await gate.verify()).headers["x-comfyweb-parent"] == "'none'"


@pytest.mark.parametrize("origin", ["https://a.example\r\nSet-Cookie: x=y", "https://a.example; script-src *", 7, None])
def test_an_origin_that_would_say_more_than_itself_is_none(origin: object) -> None:
    assert Told.from_json({"issuer": origin}).trust.issuer == ""


@pytest.mark.parametrize("name", ["host:a/b/c d", "host:" + "x" * 300, "", 7, None])
def test_a_name_that_no_host_has_is_none(name: object) -> None:
    assert Told.from_json({"audience": name}).trust.audience == ""


def test_what_is_no_session_was_never_revoked() -> None:
    said = {"a": 9.0, "x y": 9.0, "": 9.0, "x" * 65: 9.0, "b": "soon", "c": None}
    assert Told.from_json({"revoked": said}).revoked == {"a": 9.0}


def test_a_keeper_that_never_spoke_is_not_alive_even_in_the_first_seconds_of_a_boot() -> None:
    assert not Told(at=None).is_fresh(1.0)
    assert Told(at=0.5).is_fresh(1.0)


async def test_what_is_said_arrives_as_it_was_meant(gate: Gating) -> None:
    told = Told.from_json(json.loads(json.dumps(gate.told.to_json())))
    assert told == gate.told
    gate.revoke("a-session")
    assert Told.from_json(json.loads(gate.world.told.read_text())) == gate.told


async def test_who_is_not_nginx_gets_nothing_of_it(gate: Gating) -> None:
    for path in (gate.world.calls, gate.world.tunnels):
        assert path.stat().st_mode & 0o777 == 0o660
    assert (await gate.call("/")).status == 404
    assert (await gate.call("/verify", Content_Length="5")).status == 0
    assert (await gate.call("/verify", Transfer_Encoding="chunked")).status == 0
    assert (await gate.call("/verify", **{"X ": "y"})).status == 0
