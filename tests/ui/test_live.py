"""The status room."""

import pytest

from comfyweb.machine.model import Phase
from comfyweb.machine.snapshot import Place, Snapshot, nothing_seen_yet
from comfyweb.ui import state
from comfyweb.ui.live import LOGGED_OUT, TAB, Live, delta
from tests.ui import bodies
from tests.ui.conftest import BODY, House

NEWS = Snapshot(phase=Phase.STOPPING, body={"phase": "stopping"})


async def test_one_emit_reaches_every_tab_that_is_logged_in(house: House) -> None:
    tabs = [await house.tab().open(await house.token()) for _ in range(3)]
    stranger = await house.tab().open()
    before = house.wire.emits
    await house.live.push(NEWS)
    assert house.wire.emits == before + 1
    assert [tab.shown["snapshot"] for tab in tabs] == [NEWS.body] * 3
    assert stranger.shown["snapshot"] == LOGGED_OUT


async def test_a_push_has_the_form_in_which_reflex_itself_sends_the_snapshot(house: House) -> None:
    tab = await house.tab().open(await house.token())
    sent = [update.delta[TAB] for update in tab.sent if TAB in getattr(update, "delta", {})]
    assert any(delta(BODY).delta[TAB].items() <= variables.items() for variables in sent)
    assert state.Tab.get_full_name() == TAB


async def test_a_sweep_shows_the_tabs_of_expired_logins_that_they_are_out(house: House) -> None:
    old = await house.tab().open(await house.token())
    house.clock.expire_sessions()
    new = await house.tab().open(await house.token())
    await house.live.sweep()
    await house.live.push(NEWS)
    assert old.shown["snapshot"] == LOGGED_OUT
    assert new.shown["snapshot"] == NEWS.body


async def test_a_sweep_leaves_everybody_else_alone(house: House) -> None:
    tab = await house.tab().open(await house.token())
    before = len(tab.sent)
    await house.live.sweep()
    assert len(tab.sent) == before


async def test_tabs_that_were_closed_are_forgotten(house: House) -> None:
    tab = await house.tab().open(await house.token())
    await tab.close()
    await house.live.sweep()
    assert house.live._tokens == {}


async def test_a_tab_that_left_while_its_event_waited_does_not_enter(house: House) -> None:
    await house.live.enter("gone", await house.token())
    assert "gone" not in house.wire.rooms["status"]


def test_the_bodies_of_these_tests_have_the_parts_of_the_real_picture() -> None:
    real = nothing_seen_yet(Place(project="demo-project", zone="us-central1-a", instance="comfyui-gpu")).body
    made_up = bodies.body("off")
    assert made_up.keys() == real.keys()
    assert made_up["machine"].keys() == real["machine"].keys()


async def test_the_room_exists_only_in_a_running_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Live, "_current", None)
    with pytest.raises(RuntimeError, match="not started"):
        Live.current()
