"""Virtual time: nothing waits, everything is in order, and the same program makes the same moves."""

import asyncio
import time

import pytest

from tests.simulation.virtual_time import BEGAN, Deadlock, VirtualTimeLoop


async def sleeps(order: list[str], name: str, seconds: float) -> None:
    await asyncio.sleep(seconds)
    order.append(name)


async def in_order() -> list[str]:
    order: list[str] = []
    async with asyncio.TaskGroup() as tasks:
        for name, seconds in (("a year", 365 * 86400.0), ("a day", 86400.0), ("a moment", 0.001)):
            tasks.create_task(sleeps(order, name, seconds))
    return order


def test_a_year_passes_in_a_moment_and_in_order() -> None:
    loop = VirtualTimeLoop()
    began = time.monotonic()
    assert loop.run_until_complete(in_order()) == ["a moment", "a day", "a year"]
    assert time.monotonic() - began < 60
    assert round((loop.now() - BEGAN).total_seconds()) == 365 * 86400
    loop.close()


def test_a_timeout_is_virtual_too() -> None:
    async def waits() -> None:
        async with asyncio.timeout(3600):
            await asyncio.Event().wait()

    loop = VirtualTimeLoop()
    with pytest.raises(TimeoutError):
        loop.run_until_complete(waits())
    assert loop.elapsed == pytest.approx(3600)
    loop.close()


def test_waiting_for_nothing_is_an_error_and_not_a_hang() -> None:
    loop = VirtualTimeLoop()
    waiting = loop.create_task(asyncio.Event().wait())
    with pytest.raises(Deadlock):
        loop.run_until_complete(waiting)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(waiting)
    loop.close()
