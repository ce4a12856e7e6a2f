"""Whether a password is right costs the same whatever is sent, and never the event loop's time."""

import asyncio
import threading
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from comfyweb.access.passwords import AT_ONCE, IN_LINE, LONGEST, Busy, Passwords
from tests.access.conftest import PASSWORD, CountingHasher

WRONG: list[object] = [
    "",
    "wrong",
    PASSWORD + " ",
    PASSWORD.upper(),
    "x" * (LONGEST + 1),
    "\ud800",
    None,
    0,
    True,
    [PASSWORD],
    {"password": PASSWORD},
    PASSWORD.encode(),
]


class HeldHasher(CountingHasher):
    """Answers only when let go, as a slow machine would."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.at_once: set[str] = set()

    def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:  # noqa: A002 - argon2's name
        self.at_once.add(threading.current_thread().name)
        self.go.wait(timeout=10)
        return super().verify(hash, password)


class SteppedHasher(CountingHasher):
    """Ends one check for each of its `steps`; `begun` are those that it has begun with, in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = threading.Semaphore(0)
        self.begun: list[str] = []

    def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:  # noqa: A002 - argon2's name
        self.begun.append(password.decode() if isinstance(password, bytes) else password)
        self.steps.acquire(timeout=10)
        return super().verify(hash, password)

    async def has_begun(self, count: int) -> None:
        """Wait until it has begun with so many."""
        async with asyncio.timeout(10):
            while len(self.begun) < count:
                await asyncio.sleep(0.001)


def passwords(hasher: CountingHasher) -> Passwords:
    return Passwords(SecretStr(PASSWORD), hasher=hasher)


async def test_the_password_matches_plain_or_as_its_hash() -> None:
    hasher = CountingHasher()
    assert await passwords(hasher).matches(PASSWORD) is True
    assert await Passwords(SecretStr(hasher.hash(PASSWORD)), hasher=hasher).matches(PASSWORD) is True


async def test_the_plain_password_is_not_kept() -> None:
    assert PASSWORD not in str(vars(passwords(CountingHasher())))


@pytest.mark.parametrize("candidate", WRONG)
async def test_every_wrong_candidate_costs_exactly_one_check(candidate: object) -> None:
    hasher = CountingHasher()
    assert await passwords(hasher).matches(candidate) is False
    assert hasher.checked == 1


async def test_what_is_too_long_is_not_cut_to_what_would_match() -> None:
    hasher = CountingHasher()
    longest = "x" * LONGEST
    knows = Passwords(SecretStr(longest), hasher=hasher)
    assert await knows.matches(longest) is True
    assert await knows.matches(longest + "x") is False


async def test_the_empty_hash_lets_nothing_in_that_is_no_text() -> None:
    hasher = CountingHasher()
    assert await Passwords(SecretStr(hasher.hash("")), hasher=hasher).matches(None) is False


async def test_a_hash_that_cannot_be_checked_lets_nobody_in(caplog: pytest.LogCaptureFixture) -> None:
    assert await Passwords(SecretStr("$argon2id$broken"), hasher=CountingHasher()).matches("$argon2id$broken") is False
    assert "could not be checked" in caplog.text


@given(st.text() | st.integers() | st.binary() | st.none())
def test_no_candidate_breaks_it(candidate: object) -> None:
    async def ask() -> bool:
        knows = passwords(CountingHasher())
        try:
            return await knows.matches(candidate)
        finally:
            knows.close()

    assert asyncio.run(ask()) is (candidate == PASSWORD)


async def test_two_are_checked_at_once_a_few_wait_and_more_are_turned_away_until_there_is_room() -> None:
    hasher = HeldHasher()
    knows = passwords(hasher)
    asked = [asyncio.create_task(knows.matches(PASSWORD)) for _ in range(AT_ONCE + IN_LINE)]
    await asyncio.sleep(0)
    with pytest.raises(Busy):
        await knows.matches(PASSWORD)
    hasher.go.set()
    assert await asyncio.gather(*asked) == [True] * (AT_ONCE + IN_LINE)
    assert len(hasher.at_once) == AT_ONCE
    assert await knows.matches(PASSWORD) is True


async def test_a_client_that_goes_away_keeps_its_place_until_its_check_is_done() -> None:
    hasher = HeldHasher()
    knows = passwords(hasher)
    asked = [asyncio.create_task(knows.matches(PASSWORD)) for _ in range(AT_ONCE + IN_LINE)]
    await asyncio.sleep(0)
    asked[0].cancel()
    await asyncio.sleep(0)
    with pytest.raises(Busy):
        await knows.matches(PASSWORD)
    hasher.go.set()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert answers[1:] == [True] * (AT_ONCE + IN_LINE - 1)


async def test_who_stands_in_line_is_looked_at_by_rank_and_then_as_they_came() -> None:
    hasher = SteppedHasher()
    knows = passwords(hasher)
    ranks = [0] * AT_ONCE + [3, 1, 1, -1, 0]
    asked = [asyncio.create_task(knows.matches(f"wrong {name}", rank)) for name, rank in enumerate(ranks)]
    for begun in range(AT_ONCE, len(ranks)):
        await hasher.has_begun(begun)
        hasher.steps.release()
    await hasher.has_begun(len(ranks))
    hasher.steps.release(AT_ONCE)
    await asyncio.gather(*asked)
    knows.close()
    assert hasher.begun[AT_ONCE:] == [f"wrong {name}" for name in (5, 6, 3, 4, 2)]


async def test_in_a_full_line_the_last_in_rank_makes_room_for_who_goes_before() -> None:
    hasher = HeldHasher()
    knows = passwords(hasher)
    flood = [asyncio.create_task(knows.matches("wrong", 5)) for _ in range(AT_ONCE + IN_LINE)]
    await asyncio.sleep(0)
    owner = asyncio.create_task(knows.matches(PASSWORD, 0))
    await asyncio.sleep(0)
    with pytest.raises(Busy):
        await flood[-1]
    hasher.go.set()
    assert await owner is True
    assert await asyncio.gather(*flood[:-1]) == [False] * (AT_ONCE + IN_LINE - 1)


async def test_who_goes_away_while_in_line_leaves_it() -> None:
    hasher = HeldHasher()
    knows = passwords(hasher)
    asked = [asyncio.create_task(knows.matches(PASSWORD)) for _ in range(AT_ONCE + IN_LINE)]
    await asyncio.sleep(0)
    asked[-1].cancel()
    await asyncio.sleep(0)
    another = asyncio.create_task(knows.matches(PASSWORD))
    hasher.go.set()
    assert await another is True
    await asyncio.gather(*asked, return_exceptions=True)
    assert hasher.checked == AT_ONCE + IN_LINE
    assert await knows.matches(PASSWORD) is True


async def test_who_is_called_and_has_just_gone_passes_the_turn_on() -> None:
    hasher = HeldHasher()
    hasher.go.set()
    knows = passwords(hasher)
    first = [asyncio.create_task(knows.matches("wrong")) for _ in range(AT_ONCE)]
    await asyncio.sleep(0)
    gone, next_ = asyncio.create_task(knows.matches(PASSWORD)), asyncio.create_task(knows.matches(PASSWORD))
    await asyncio.sleep(0)
    knows._call_next()  # a thread is free, and in the same moment the client leaves
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    assert await next_ is True
    await asyncio.gather(*first)
