"""Nobody without a login gets a handler to run, or anything private: not by any event that exists now or later."""

import copy
from functools import partial
from typing import Any

import pytest
from reflex.state import State
from reflex_base.registry import RegistrationContext
from reflex_base.utils.format import json_dumps

from comfyweb.ui.guard import PUBLIC
from tests.ui.conftest import BODY, ROOT, SECRET, TAB, TOKEN_VAR, House, Tab
from tests.ui.stand_ins import PASSWORD

EVENTS = sorted(RegistrationContext.get().event_handlers)
# Handlers take what they like; these are the arguments that today's take, and too many for any of them.
PAYLOADS: list[dict[str, Any]] = [{}, {"notice": "a notice"}, {"form": {"password": "x"}}, {"value": True}]


def received(tab: Tab) -> str:
    return json_dumps(tab.sent)


async def stranger(house: House) -> Tab:
    return await house.tab().open()


async def expired(house: House) -> Tab:
    tab = await house.tab().open(await house.token())
    house.clock.expire_sessions()
    return tab


async def logged_out(house: House) -> Tab:
    tab = await house.tab().open(await house.token())
    await tab.send("logout")
    return tab


async def ended_elsewhere(house: House) -> Tab:
    tab = await house.tab().open(await house.token())
    await house.sessions.end_all()
    return tab


async def with_a_forged_login(house: House) -> Tab:
    return await house.tab().open("eyJhbGciOiJub25lIn0.eyJzdWIiOiJvd25lciJ9.")


async def never_hydrated(house: House) -> Tab:
    return await house.tab().open(hydrate=False)


NOBODY = [stranger, expired, logged_out, ended_elsewhere, with_a_forged_login, never_hydrated]


@pytest.mark.parametrize("become", NOBODY)
async def test_no_event_of_any_state_does_anything_for_somebody_without_a_login(become: Any, house: House) -> None:
    tab = await become(house)
    tab.sent.clear()
    house.machine.asked.clear()
    for name in EVENTS:
        for payload in PAYLOADS:
            await tab.send(name, **payload)
    assert house.machine.asked == []
    assert SECRET not in received(tab)
    await house.live.sweep()
    assert tab.socket not in house.wire.rooms["status"]


@pytest.mark.parametrize("name", [name for name in EVENTS if name not in PUBLIC])
async def test_a_denied_event_never_reaches_its_handler(name: str, house: House, monkeypatch: Any) -> None:
    ran: list[str] = []
    registered = RegistrationContext.get().event_handlers[name]
    handler = copy.copy(registered.handler)
    object.__setattr__(handler, "fn", partial(ran.append, name))
    monkeypatch.setitem(
        RegistrationContext.get().event_handlers, name, type(registered)(handler=handler, states=registered.states)
    )
    tab = await stranger(house)
    await tab.send(name)
    assert ran == []
    assert tab.shown["snapshot"] == {"phase": "logged-out"}


def test_only_what_a_stranger_needs_is_public() -> None:
    ours = {name.removeprefix(f"{TAB}.") for name in PUBLIC if name.startswith(TAB)}
    assert ours == {"join", "login", "failed"}
    assert {name for name in PUBLIC if not name.startswith(TAB)} <= set(EVENTS)
    assert all(name.startswith(ROOT) for name in PUBLIC)


async def test_no_private_word_is_in_what_the_page_is_built_from(house: House) -> None:
    built = State(_reflex_internal_init=True).dict(initial=True)  # pyright: ignore[reportCallIssue]
    assert SECRET not in json_dumps(built)
    assert built[TAB]["snapshot_rx_state_"] == {"phase": "logged-out"}


async def test_a_login_is_shown_the_snapshot_as_soon_as_its_tab_hydrates(house: House) -> None:
    tab = await house.tab().open(await house.token())
    assert tab.shown["snapshot"] == BODY


GARBAGE = [
    "",
    "x",
    "null",
    "{}",
    0,
    7,
    -1.5,
    True,
    None,
    [],
    {},
    {"token": {"token": 1}},
    "a" * 1_000_000,
    ["a"],
    "\x00",
]


@pytest.mark.parametrize("stored", GARBAGE, ids=lambda value: repr(value)[:20])
async def test_whatever_the_storage_holds_the_tab_lives_and_is_a_strangers(stored: Any, house: House) -> None:
    tab = house.tab(path="/login")
    await tab.open()
    await tab.send(f"{ROOT}.hydrate_and_load", vars={TOKEN_VAR: stored})
    await tab.send(
        f"{ROOT}.reflex___state____update_vars_internal_state.update_vars_internal", vars={TOKEN_VAR: stored}
    )
    assert tab.shown["snapshot"] == {"phase": "logged-out"}
    await tab.send("login", form={"password": PASSWORD})
    assert tab.shown["snapshot"] == BODY


HIJACKS: list[list[tuple[str, dict[str, Any]]]] = [
    [],
    [("join", {})],
    [("failed", {})],
    [(f"{ROOT}.hydrate", {})],
    [(f"{ROOT}.hydrate_and_load", {})],
    [(f"{ROOT}.hydrate_and_load", {"made_up": 1})],
    [(f"{ROOT}.hydrate", {"made_up": 1})],
    [(f"{ROOT}.set_is_hydrated", {"value": True})],
]


@pytest.mark.parametrize("first", HIJACKS, ids=str)
async def test_who_comes_back_with_the_id_of_anothers_tab_gets_nothing(
    first: list[tuple[str, dict[str, Any]]], house: House
) -> None:
    theirs = await house.tab().open(token := await house.token())
    await theirs.send("dismiss", notice="a notice")
    await theirs.close()
    stranger = await house.tab(tab_id=theirs.tab_id).open(hydrate=False)
    for name, payload in [*first, ("start", {}), ("join", {}), ("dismiss", {"notice": "a notice"})]:
        await stranger.send(name, **payload)
    assert house.machine.asked == []
    assert not any(private in received(stranger) for private in (SECRET, token, "a notice"))
    assert stranger.socket not in house.wire.rooms["status"]


async def test_a_tab_that_reconnects_is_still_logged_in(house: House) -> None:
    before = await house.tab().open(token := await house.token())
    await before.close()
    after = await house.tab(tab_id=before.tab_id).open(token)
    assert after.shown["snapshot"] == BODY
    await after.send("start")
    assert house.machine.asked == ["start"]


async def test_an_id_that_is_in_use_gives_a_stranger_a_tab_of_his_own(house: House) -> None:
    theirs = await house.tab().open(await house.token())
    stranger = await house.tab(tab_id=theirs.tab_id).open()
    await stranger.send("start")
    assert house.machine.asked == []
    assert SECRET not in received(stranger)
    assert theirs.shown["snapshot"] == BODY
