"""What a tab's buttons do, and what it says afterwards."""

from datetime import timedelta

import pytest

from comfyweb.access.sessions import SessionsUnavailable
from comfyweb.control.controller import NotNow, Unavailable
from comfyweb.control.services import services
from tests.ui.conftest import BODY, House, Tab
from tests.ui.stand_ins import PASSWORD


async def logged_in(house: House) -> Tab:
    return await house.tab().open(await house.token())


async def test_the_right_password_logs_in_and_leads_to_the_machine(house: House) -> None:
    tab = await house.tab(path="/login").open()
    await tab.send("login", form={"username": "comfyweb", "password": PASSWORD})
    assert tab.redirects == ["/"]
    assert tab.shown["snapshot"] == BODY
    assert house.sessions.verify(tab.shown["token"], house.clock.now()) is not None
    assert tab.shown["checking"] is False


@pytest.mark.parametrize("form", [{"password": "wrong"}, {"password": 7}, {}, {"password": "x" * 10**6}])
async def test_every_wrong_password_is_answered_with_the_same_words(form: object, house: House) -> None:
    tab = await house.tab(path="/login").open()
    await tab.send("login", form=form)
    assert tab.shown["login_words"] == "That is not the password."
    assert tab.redirects == []
    assert tab.shown["checking"] is False


async def test_who_tries_too_often_is_told_when_to_come_back(house: House) -> None:
    tab = await house.tab(path="/login").open()
    for _ in range(20):
        await tab.send("login", form={"password": "wrong"})
    assert tab.shown["login_words"].startswith("Too many attempts. Try again in ")


async def test_when_sessions_cannot_be_stored_the_login_says_so(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(_password: object, _address: str) -> None:
        raise SessionsUnavailable

    monkeypatch.setattr(house.sessions, "login", fail)
    tab = await house.tab(path="/login").open()
    await tab.send("login", form={"password": PASSWORD})
    assert "database does not answer" in tab.shown["login_words"]


async def test_who_would_be_turned_away_by_comfyui_is_told_so_once_he_is_logged_in(house: House) -> None:
    house.machine.turned_away = {"192.0.2.7": "You would lock yourself out."}
    stranger = await house.tab().open()
    assert stranger.shown["own_notices"] == []
    tab = await logged_in(house)
    assert tab.shown["own_notices"] == ["You would lock yourself out."]
    await tab.send("dismiss", notice="You would lock yourself out.")
    assert tab.shown["dismissed"] == ["You would lock yourself out."]
    await tab.send("logout")
    assert tab.shown["own_notices"] == []


async def test_who_is_not_logged_in_is_led_to_the_login(house: House) -> None:
    assert (await house.tab().open()).redirects == ["/login"]


async def test_who_is_logged_in_is_led_past_the_login(house: House) -> None:
    assert (await house.tab(path="/login").open(await house.token())).redirects == ["/"]


async def test_a_stranger_stays_at_the_login(house: House) -> None:
    assert (await house.tab(path="/login").open()).redirects == []


@pytest.mark.parametrize(
    ("event", "asked"), [("start", "start"), ("stop", "stop drain"), ("stop_now", "stop now"), ("extend", "extend 30")]
)
async def test_a_button_asks_the_controller_and_shows_its_words(event: str, asked: str, house: House) -> None:
    tab = await logged_in(house)
    await tab.send(event)
    assert house.machine.asked == [asked]
    assert tab.shown["words"] == f"Words about {asked}."
    assert tab.shown["words_since"] == "2026-11-24T12:00:00Z"


@pytest.mark.parametrize("refusal", [NotNow("Not now, as it is off."), Unavailable("The ledger is away.")])
async def test_a_refusal_is_shown_in_its_own_words(refusal: NotNow | Unavailable, house: House) -> None:
    house.machine.refusal = refusal
    tab = await logged_in(house)
    await tab.send("start")
    assert tab.shown["words"] == refusal.words


async def test_a_handler_that_fails_leaves_one_plain_line(house: House, caplog: pytest.LogCaptureFixture) -> None:
    house.machine.refusal = ValueError("a bug")
    tab = await logged_in(house)
    await tab.send("start")
    assert tab.shown["words"].startswith("That did not work.")
    assert "a bug" not in str(tab.sent)
    assert "a bug" in caplog.text


async def test_the_same_words_twice_are_still_two_answers(house: House) -> None:
    tab = await logged_in(house)
    await tab.send("start")
    first = tab.shown["words_count"]
    await tab.send("start")
    assert tab.shown["words_count"] > first


async def test_a_notice_can_be_put_away_and_a_made_up_one_is_not_kept(house: House) -> None:
    tab = await logged_in(house)
    await tab.send("dismiss", notice="a notice")
    await tab.send("dismiss", notice="x" * 1000)
    await tab.send("dismiss", notice=["a notice"])
    assert tab.shown["dismissed"] == ["a notice"]


async def test_logging_out_ends_the_session_and_empties_the_storage(house: House) -> None:
    token = await house.token()
    tab = await house.tab().open(token)
    await tab.send("logout")
    assert house.sessions.verify(token, house.clock.now()) is None
    assert tab.shown["token"] == ""
    assert tab.shown["snapshot"] == {"phase": "logged-out"}
    assert tab.redirects == ["/login"]


async def test_logging_out_reaches_the_other_tabs_of_the_same_login_and_no_others(house: House) -> None:
    token = await house.token()
    one, other, stays = [await house.tab().open(its) for its in (token, token, await house.token())]
    await one.send("logout")
    assert other.shown["snapshot"] == {"phase": "logged-out"}
    assert stays.shown["snapshot"] == BODY


async def test_logging_out_everyone_reaches_every_tab(house: House) -> None:
    tabs = [await logged_in(house) for _ in range(3)]
    await tabs[0].send("logout_everyone")
    assert [tab.shown["snapshot"] for tab in tabs] == [{"phase": "logged-out"}] * 3
    assert house.wire.rooms["status"] == set()


async def test_a_logout_that_cannot_be_stored_still_counts_here(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(_jti: str, _at: object) -> None:
        raise OSError

    tab = await logged_in(house)
    monkeypatch.setattr(house.sessions._store, "end", fail)
    await tab.send("logout")
    assert tab.redirects == ["/login"]
    assert tab.shown["snapshot"] == {"phase": "logged-out"}


async def test_a_tab_whose_login_ran_out_is_told_at_its_next_click(house: House) -> None:
    tab = await logged_in(house)
    house.clock.at += timedelta(hours=25)
    await tab.send("start")
    assert tab.shown["snapshot"] == {"phase": "logged-out"}
    assert house.machine.asked == []


async def test_nothing_can_be_read_before_the_process_has_started(house: House) -> None:
    services.bind(None)
    tab = await house.tab(path="/login").open()
    await tab.send("login", form={"password": PASSWORD})
    assert tab.shown["login_words"].startswith("That did not work.")


async def test_the_words_of_the_last_click_are_gone_after_the_next_arrival(house: House) -> None:
    tab = await logged_in(house)
    await tab.send("start")
    assert tab.shown["words"] == "Words about start."
    tab.path = "/login"
    await tab.send("join")
    assert tab.shown["words"] == ""
    assert tab.shown.get("login_words", "") == ""


async def test_the_words_of_a_failed_login_do_not_follow_to_the_machine(house: House) -> None:
    tab = await house.tab(path="/login").open()
    await tab.send("login", form={"password": "wrong"})
    assert "words" not in tab.shown or tab.shown["words"] == ""
    await tab.send("login", form={"password": PASSWORD})
    assert tab.shown["login_words"] == ""
