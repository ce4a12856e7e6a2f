"""Who comes in at the gate: with a good ticket, once; and until when the cookie is good."""

import json
import time
from collections.abc import AsyncGenerator

import pytest

from tests.demo.standin_machine import SESSION, App
from tests.gate.gating import Gating, gating


@pytest.fixture
async def gate() -> AsyncGenerator[Gating]:
    async with gating() as made:
        yield made


async def test_a_ticket_gets_a_cookie_that_opens_comfyui(gate: Gating) -> None:
    answer = await gate.enter()
    assert (answer.status, answer.headers["location"]) == (303, "/")
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"
    assert await gate.closed(answer.cookie) is None


async def test_the_cookie_is_hidden_from_scripts_and_over_https_a_frame_of_another_site_gets_it(gate: Gating) -> None:
    plain = (await gate.enter(X_Forwarded_Proto="http")).headers["set-cookie"]
    assert plain.endswith("; Path=/; HttpOnly; SameSite=Lax")
    https = (await gate.enter(X_Forwarded_Proto="https")).headers["set-cookie"]
    assert https.endswith("; Path=/; HttpOnly; Secure; SameSite=None; Partitioned")
    assert "max-age" not in (plain + https).lower()


@pytest.mark.parametrize("mode", ["no-cors", "cors", "same-origin", "websocket"])
async def test_a_renewal_by_the_page_is_quiet(gate: Gating, mode: str) -> None:
    answer = await gate.enter(Sec_Fetch_Mode=mode)
    assert answer.status == 204
    assert not {"location", "content-length"} & answer.headers.keys()
    assert await gate.closed(answer.cookie) is None


async def test_a_ticket_opens_once_even_over_a_restart(gate: Gating) -> None:
    ticket = gate.app.ticket()
    assert (await gate.enter(ticket)).status == 303
    assert (await gate.enter(ticket)).status == 401
    await gate.kill()
    await gate.start()
    assert (await gate.enter(ticket)).status == 401


async def test_only_get_spends_a_ticket(gate: Gating) -> None:
    ticket = gate.app.ticket()
    for method in ("HEAD", "POST", "PUT", "OPTIONS"):
        answer = await gate.call(f"/enter?ticket={ticket}", method)
        assert (answer.status, answer.headers["allow"]) == (405, "GET")
    assert (await gate.enter(ticket)).status == 303


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "host:demo-project/us-central1-a/another"},
        {"iss": "https://evil.example.com"},
        {"exp": -1},
        {"exp": 3600},
        {"session_exp": -1},
        {"purpose": "host"},
        {"purpose": "command"},
        {"sub": ""},
        {"jti": None},
    ],
    ids=str,
)
async def test_a_ticket_that_says_something_else_opens_nothing(gate: Gating, claims: dict[str, object]) -> None:
    times = {name: time.time() + value for name, value in claims.items() if isinstance(value, int)}
    answer = await gate.enter(gate.app.token(**{"purpose": "ticket", **claims, **times}))
    assert answer.status == 401
    assert "set-cookie" not in answer.headers


async def test_a_ticket_of_another_key_or_changed_on_the_way_opens_nothing(gate: Gating) -> None:
    stranger = App(gate.clocks, gate.app.origin)
    head, body, signature = gate.app.ticket().split(".")
    _, other_body, _ = gate.app.ticket(sub="somebody-else").split(".")
    unsigned = "eyJhbGciOiJub25lIn0"
    for ticket in (
        stranger.ticket(),
        f"{head}.{other_body}.{signature}",
        f"{head}.{body}.{'A' * 86}",
        f"{head}.{body}.",
        f"{unsigned}.{body}.",
        "",
        "x.y.z",
        "%ff" * 50,
        "a" * 9000,
    ):
        answer = await gate.enter(ticket)
        assert answer.status == 401
        assert "set-cookie" not in answer.headers
    assert (await gate.enter(f"{head}.{body}.{signature}")).status == 303


async def test_a_ticket_minted_before_a_revoke_is_dead_too_and_so_it_stays(gate: Gating) -> None:
    early = gate.app.ticket()
    gate.revoke(SESSION)
    await gate.heard()
    assert (await gate.enter(early)).status == 401
    gate.say(revoked={})  # a keeper that has lost its memory
    await gate.heard()
    assert (await gate.enter(gate.app.ticket())).status == 401
    assert (await gate.enter(gate.app.ticket(sub="another"))).status == 303


async def test_a_revoke_kills_the_cookies_of_its_session_alone(gate: Gating) -> None:
    mine, other = await gate.enter(), await gate.enter(gate.app.ticket(sub="another"))
    gate.revoke(SESSION)
    await gate.heard()
    assert await gate.closed(mine.cookie) == "stranger"
    assert await gate.closed(other.cookie) is None


@pytest.mark.parametrize(
    "cookie",
    [
        "",
        "comfyweb_gate=",
        "comfyweb_gate=x",
        "comfyweb_gate=" + "A" * 43,
        "auth-token=x",
        "; ;=;",
        "\xff\xfe",
        "a" * 9000,
    ],
)
async def test_a_cookie_that_is_none_opens_nothing(gate: Gating, cookie: str) -> None:
    await gate.enter()
    assert await gate.closed(cookie) == "stranger"


async def test_a_cookie_that_is_one_character_off_opens_nothing(gate: Gating) -> None:
    cookie = (await gate.enter()).cookie
    last = "B" if cookie[-1] == "A" else "A"
    assert await gate.closed(cookie[:-1] + last) == "stranger"
    assert await gate.closed(cookie.lower()) == "stranger"
    assert await gate.closed(f"other=1; {cookie}; comfyweb_gate=x") is None


async def test_a_cookie_lives_an_hour_past_its_last_use_and_never_past_its_session(gate: Gating) -> None:
    cookie = (await gate.enter(gate.app.ticket(session_exp=time.time() + 10_000))).cookie
    for hours in (0.9, 1.8, 2.7):
        gate.clocks.moved = hours * 3600
        assert await gate.closed(cookie) is None
    gate.clocks.moved = 10_001
    assert await gate.closed(cookie) == "stranger"
    gate.say()
    await gate.heard()
    unused = (await gate.enter()).cookie
    gate.clocks.moved += 3601
    assert await gate.closed(unused) == "stranger"


async def test_a_running_job_keeps_cookies_alive(gate: Gating) -> None:
    cookie = (await gate.enter(gate.app.ticket(session_exp=time.time() + 86400))).cookie
    gate.say(busy=True)
    for hours in (0.9, 1.8, 2.7):
        gate.clocks.moved = hours * 3600
        await gate.heard()
    gate.say(busy=False)
    assert await gate.closed(cookie) is None


async def test_a_restart_throws_nobody_out_but_a_reboot_everybody(gate: Gating) -> None:
    cookie = (await gate.enter()).cookie
    await gate.kill()
    await gate.start()
    assert await gate.closed(cookie) is None
    await gate.stop()
    (gate.root / "proc/sys/kernel/random/boot_id").write_text("boot-2\n")
    await gate.start()
    assert await gate.closed(cookie) == "stranger"


async def test_a_ticket_that_was_used_before_a_quick_reboot_stays_used(gate: Gating) -> None:
    ticket = gate.app.ticket()
    assert (await gate.enter(ticket)).status == 303
    await gate.stop()
    gate.world.memory.unlink()  # it lies in /run
    (gate.root / "proc/sys/kernel/random/boot_id").write_text("boot-2\n")
    gate.clocks.moved += 5
    gate.clocks.reboot()
    gate.say()
    await gate.start()
    assert (await gate.enter(ticket)).status == 401
    assert (await gate.enter()).status == 303


async def test_what_the_gate_keeps_opens_nothing(gate: Gating) -> None:
    cookie = (await gate.enter()).cookie
    kept = gate.world.memory
    assert cookie.partition("=")[2] not in kept.read_text()
    assert kept.stat().st_mode & 0o777 == 0o600
    assert json.loads(kept.read_text())["cookies"]["passes"]


@pytest.mark.parametrize(
    "spoilt", ["", "[]", "{", '{"cookies": {"boot_id": "boot-1", "passes": [1, {}]}}', "\x00" * 99]
)
async def test_a_spoilt_memory_lets_nobody_in_and_keeps_nobody_out(gate: Gating, spoilt: str) -> None:
    cookie = (await gate.enter()).cookie
    await gate.stop()
    gate.world.memory.write_text(spoilt)
    await gate.start()
    assert await gate.closed(cookie) == "stranger"
    assert (await gate.enter()).status == 303


async def test_a_ticket_that_can_not_be_remembered_opens_nothing(gate: Gating) -> None:
    beside = gate.world.paths.gate / ".memory.json.new"
    beside.mkdir()
    answer = await gate.enter()
    assert answer.status == 503
    assert "set-cookie" not in answer.headers
    beside.rmdir()
    assert (await gate.enter()).status == 303
