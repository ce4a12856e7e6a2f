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
