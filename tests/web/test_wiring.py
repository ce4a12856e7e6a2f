"""Where the app listens, and what it changes in Reflex's files."""

import asyncio
import gc
import weakref

import pytest

import rxconfig
from comfyweb.__main__ import address, in_use
from comfyweb.settings import load
from tests.launching import REQUIRED, free_ports


@pytest.mark.parametrize(
    ("more", "environ", "listens"),
    [
        ({}, {}, "127.0.0.1"),
        ({"PUBLIC_URL": "http://127.0.0.1:8080"}, {}, "127.0.0.1"),
        ({"PUBLIC_URL": "https://app.example.com"}, {}, "0.0.0.0"),
        ({}, {"container": "docker"}, "0.0.0.0"),
    ],
)
def test_it_listens_where_it_is_reached(more: dict[str, str], environ: dict[str, str], listens: str) -> None:
    assert address(load(REQUIRED | more, None), environ) == listens


def test_a_free_port_is_free() -> None:
    assert not in_use("127.0.0.1", free_ports())


def test_a_file_is_changed_once() -> None:
    changed = rxconfig._put("a b c", "b", "d")
    assert changed == "a d c"
    assert rxconfig._put(changed, "b", "d") == changed


@pytest.mark.parametrize("code", ["a c", "a b b"])
def test_a_reflex_that_has_changed_is_noticed_by_the_build(code: str) -> None:
    with pytest.raises(RuntimeError, match="look up"):
        rxconfig._put(code, "b", "d")


class Knot:
    """Something that only the collector can free."""

    def __init__(self) -> None:
        self.itself = self


async def test_what_tabs_have_left_is_given_back_in_time_and_not_only_when_there_is_much_of_it() -> None:
    from comfyweb.comfyweb import _collect_in_time  # noqa: PLC0415 - the whole app; not while tests are being collected

    before = gc.get_threshold()
    gc.set_threshold(0)
    try:
        left = weakref.ref(Knot())
        assert left() is not None
        collecting = asyncio.create_task(_collect_in_time(every_seconds=0))
        async with asyncio.timeout(10):
            while left() is not None:
                await asyncio.sleep(0)
        collecting.cancel()
    finally:
        gc.set_threshold(*before)
