"""Whatever anybody sends to any handler, nothing of it gets to the machine without a login, and no tab breaks."""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reflex_base.registry import RegistrationContext

from comfyweb.comfyweb import app
from comfyweb.control.services import Bound, services
from tests.ui.conftest import BODY, ROOT, SECRET, TOKEN_VAR, House, Tab
from tests.ui.test_guard import EVENTS, expired, logged_out, received, stranger

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
STATE = st.sampled_from([TOKEN_VAR, f"{ROOT}.no_such", "token", ""])
WORDS = JSON | st.dictionaries(STATE, JSON, max_size=3)


def arguments(name: str) -> list[str]:
    """Return the names of a handler's arguments."""
    handler = RegistrationContext.get().event_handlers[name].handler
    return list(inspect.signature(handler.fn).parameters)[1:]


@st.composite
def events(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """Make an event that its handler takes: right names, anything as their values."""
    name = draw(st.sampled_from(EVENTS))
    return name, {argument: draw(WORDS) for argument in arguments(name)}


async def live(house: House) -> Tab:
    return await house.tab().open(await house.token())


def in_a_house(run: Callable[[House], Awaitable[None]]) -> None:
    async def running(patch: pytest.MonkeyPatch) -> None:
        house = House(patch)
        services.bind(Bound(settings=cast("Any", None), sessions=house.sessions, controller=cast("Any", house.machine)))
        try:
            async with app._setup_event_processor():
                await run(house)
        finally:
            services.bind(None)

    with pytest.MonkeyPatch.context() as patch:
        asyncio.run(running(patch))


class Heard(logging.Handler):
    """What our own modules log as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(f"{record.getMessage()} {record.exc_info}")


@settings(max_examples=60, derandomize=True, deadline=None)
@given(become=st.sampled_from([stranger, expired, logged_out]), sent=st.lists(events(), max_size=4))
def test_without_a_login_no_event_of_any_state_does_anything(
    become: Callable[[House], Awaitable[Tab]], sent: list[tuple[str, dict[str, Any]]]
) -> None:
    async def run(house: House) -> None:
        tab = await become(house)
        tab.sent.clear()
        house.machine.asked.clear()
        for name, payload in sent:
            await tab.send(name, **payload)
        assert house.machine.asked == []
        assert SECRET not in received(tab)

    in_a_house(run)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(sent=st.lists(events(), max_size=4), who=st.sampled_from([live, stranger]))
def test_no_value_breaks_a_handler_or_the_tab(
    sent: list[tuple[str, dict[str, Any]]], who: Callable[[House], Awaitable[Tab]]
) -> None:
    heard = Heard()

    async def run(house: House) -> None:
        tab = await who(house)
        for name, payload in sent:
            await tab.send(name, **payload)
        await tab.send(f"{ROOT}.hydrate_and_load", vars={TOKEN_VAR: await house.token()})
        assert tab.shown["snapshot"] == BODY, "a browser that hydrates again sees the machine"

    logging.getLogger("comfyweb").addHandler(heard)
    try:
        in_a_house(run)
    finally:
        logging.getLogger("comfyweb").removeHandler(heard)
    assert heard.said == []
