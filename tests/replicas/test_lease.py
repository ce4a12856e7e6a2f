"""Who holds the lease, on a real PostgreSQL, by clocks that the test moves."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from comfyweb.control.lease import MARGIN, TERM, Deposed, Lease
from comfyweb.control.ledger import Ledger
from comfyweb.machine.model import StopMode, Verb, Wanted
from tests.replicas.servers import PostgreSQLServer

pytestmark = pytest.mark.slow
NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
TERM_SECONDS = TERM.total_seconds()


class Process:
    """One process's lease, with a clock of its own: nobody compares two."""

    def __init__(self, url: str, name: str, clock: float) -> None:
        self.clock = clock
        self.url = url
        self.lease = Lease(url, machine="p/z/m", holder=name, clock=lambda: self.clock)

    def later(self, seconds: float) -> None:
        self.clock += seconds


@pytest.fixture
def url(postgresql: PostgreSQLServer) -> str:
    return postgresql.url()


@pytest.fixture
async def two(url: str) -> AsyncIterator[tuple[Process, Process]]:
    one, other = Process(url, "one", 1000.0), Process(url, "other", 5.0)
    await asyncio.gather(one.lease.open(), other.lease.open())
    yield one, other
    await one.lease.close()
    await other.lease.close()


async def test_of_two_that_want_it_at_once_one_has_it(two: tuple[Process, Process]) -> None:
    taken = await asyncio.gather(*(process.lease.take() for process in two))
    assert sorted(taken) == [False, True]
    assert [process.lease.held for process in two] == taken


async def test_a_holder_that_lives_keeps_it_for_ever(two: tuple[Process, Process]) -> None:
    one, other = two
    assert await one.lease.take()
    for _ in range(20):
        one.later(TERM_SECONDS / 2)
        assert await one.lease.renew()
        assert not await other.lease.take()
        other.later(TERM_SECONDS / 2)


async def test_a_holder_that_is_dead_is_followed_after_a_term_and_has_stopped_before(
    two: tuple[Process, Process],
) -> None:
    one, other = two
    assert await one.lease.take()
    assert not await other.lease.take()
    other.later(TERM_SECONDS - 0.1)
    one.later(TERM_SECONDS - 0.1)
    assert not one.lease.held, "it counts less than a term"
    assert not await other.lease.take()
    other.later(0.1)
    assert await other.lease.take()
    assert other.lease.epoch == 2


async def test_the_holder_counts_from_before_it_asked(two: tuple[Process, Process]) -> None:
    one, _ = two
    assert await one.lease.take()
    one.later((TERM - MARGIN).total_seconds())
    assert not one.lease.held
    assert await one.lease.renew(), "nobody has taken it meanwhile"
    assert one.lease.held


async def test_whoever_has_stood_still_looks_before_taking_it_over(two: tuple[Process, Process]) -> None:
    one, other = two
    assert await one.lease.take()
    assert not await other.lease.take()
    one.later(1)
    await one.lease.renew()
    other.later(1000)
    assert not await other.lease.take(), "the holder has been alive since"


async def test_what_was_given_back_is_taken_at_once(two: tuple[Process, Process]) -> None:
    one, other = two
    assert await one.lease.take()
    assert not await other.lease.take()
    await one.lease.give_back()
    assert not one.lease.held
    assert await other.lease.take()
    await one.lease.give_back()
    assert await other.lease.renew(), "who gives it back twice takes it from nobody"


async def test_a_deposed_holder_stores_nothing_more(two: tuple[Process, Process]) -> None:
    one, other = two
    assert await one.lease.take()
    old = Ledger(one.url, machine="p/z/m", fence=one.lease.fence())
    attempt = await old.begin(Verb.START, "z", "r-1", None, NOW)
    assert not await other.lease.take()
    other.later(TERM_SECONDS)
    assert await other.lease.take()
    new = Ledger(one.url, machine="p/z/m", fence=other.lease.fence())
    with pytest.raises(Deposed):
        await old.end_attempt(attempt.id, None, NOW)
    with pytest.raises(Deposed):
        await old.ask(Wanted.OFF, StopMode.NOW, "guard:session-cap", NOW)
    assert (await new.standing()).attempts == (attempt,)
    assert not await one.lease.renew()
    assert not one.lease.held
    await old.close()
    await new.close()


async def test_what_can_not_be_undone_is_not_begun_without_it(two: tuple[Process, Process]) -> None:
    one, other = two
    with pytest.raises(Deposed):
        one.lease.must_be_held()()
    assert await one.lease.take()
    look = one.lease.must_be_held()
    look()
    assert not await other.lease.take()
    one.later(TERM_SECONDS)
    other.later(TERM_SECONDS)
    with pytest.raises(Deposed):
        look()
    assert await other.lease.take()
    await other.lease.give_back()
    assert await one.lease.take()
    with pytest.raises(Deposed):
        look()
    one.lease.must_be_held()()
