"""Whatever lies in the database, comfyweb comes up: it goes on without the row, or says what it can't read."""

import asyncio
import contextlib
import json
import logging
import shutil
import sqlite3
import tempfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfyweb.access.sessions import Session
from comfyweb.control.database import LedgerError
from comfyweb.control.ledger import Ledger
from comfyweb.control.rows import fault_json, fault_of
from comfyweb.machine.faults import named
from comfyweb.machine.model import StopMode, Verb, Wanted
from tests.control.driving import Driver, driven

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
COLUMNS = {
    "intent": ["wanted", "mode", "by", "asked_at", "ended_at", "fault"],
    "attempt": ["verb", "zone", "request_id", "made_at", "operation", "ended_at", "fault", "intent_id"],
    "run": ["started_at", "asked_at", "ready_at", "ended_at", "reason", "stops_at", "boot_id"],
    "session": ["issued_at", "expires_at", "ended_at", "revoked_at"],
}
PLACES = [(table, column) for table, columns in COLUMNS.items() for column in columns]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["code", "title", "what", "todo", "passes", "retry", "more"]), inner, max_size=6
        )
    ),
)
STORED = (
    st.sampled_from(
        [
            "",
            "{",
            "null",
            "no such",
            "9999-12-31 23:59:59.999999",
            "0001-01-01 00:00:00.000000",
            "2026-13-45",
            "x" * 999,
        ]
    )
    | st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)
    | JSON.map(json.dumps)
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.binary(max_size=8)
)


@pytest.fixture
async def driver(tmp_path: Path) -> AsyncIterator[Driver]:
    async with driven(tmp_path) as made:
        yield made


def put(path: Path, table: str, column: str, value: object) -> None:
    """Write by hand what the ledger never would."""
    with sqlite3.connect(path) as db:
        db.execute(f'update "{table}" set "{column}" = ?', (value,))  # noqa: S608 - names of this file
    db.close()


async def filled(path: Path) -> Ledger:
    """Make a ledger with one row in each table."""
    ledger = Ledger(f"sqlite:///{path}", machine="p/z/m")
    await ledger.open()
    intent = await ledger.ask(Wanted.ON, StopMode.DRAIN, "s", NOW)
    attempt = await ledger.begin(Verb.START, "z", "r", intent.id, NOW)
    await ledger.end_attempt(attempt.id, named("quota"), NOW)
    await ledger.begin_run(NOW, NOW)
    await ledger.add(Session(jti="j", issued_at=NOW, expires_at=NOW.replace(year=2027)))
    return ledger


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fill a ledger once, since making its tables is what takes time."""
    path = tmp_path_factory.mktemp("ledger") / "template.db"

    async def make() -> None:
        await (await filled(path)).close()

    asyncio.run(make())
    return path


@settings(max_examples=40, derandomize=True, deadline=None)
@given(place=st.sampled_from(PLACES), value=STORED)
def test_whatever_is_stored_is_read_left_out_or_said(template: Path, place: tuple[str, str], value: object) -> None:
    async def run(path: Path) -> None:
        ledger = Ledger(f"sqlite:///{path}", machine="p/z/m")
        try:
            try:
                put(path, *place, value)
            except sqlite3.IntegrityError:
                return
            for read in (ledger.standing, lambda: ledger.live(NOW), lambda: ledger.unrevoked(NOW)):
                try:
                    await read()
                except LedgerError as error:
                    assert "can't be read" in str(error)  # noqa: PT017 - either is right
            try:
                await ledger.ask(Wanted.OFF, StopMode.NOW, "s", NOW)
            except LedgerError:
                return
            standing = await ledger.standing()
            assert standing.open_intent is not None, "what is asked for next is heard"
        except LedgerError:
            pass
        finally:
            await ledger.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(Path(shutil.copy(template, Path(folder) / "c.db"))))


@pytest.mark.parametrize(
    ("table", "column"), [("intent", "wanted"), ("intent", "mode"), ("attempt", "verb"), ("run", "reason")]
)
async def test_a_word_of_a_newer_comfyweb_is_left_out_and_said_once(
    table: str, column: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = await filled(tmp_path / "c.db")
    put(tmp_path / "c.db", table, column, "hibernate")
    standing = [await ledger.standing() for _ in range(3)][-1]
    await ledger.close()
    assert standing.open_intent is None if table == "intent" else standing.open_intent is not None
    assert standing.attempts == () if table == "attempt" else standing.attempts != ()
    assert standing.run is None if table == "run" else standing.run is not None
    told = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.getMessage() for record in told] == [
        f"the database's {table} 1 can't be read and is left out: 'hibernate' is not a valid "
        + {"wanted": "Wanted", "mode": "StopMode", "verb": "Verb", "reason": "StopReason"}[column]
    ]


async def test_a_broken_row_stops_no_loop_and_the_next_click_counts(driver: Driver) -> None:
    await driver.turn()
    await driver.ledger.ask(Wanted.ON, StopMode.DRAIN, "s", driver.now())
    put(driver.path, "intent", "wanted", "hibernate")
    await driver.turn()
    assert driver.publisher.snapshot.body["wanted"] == ""
    await driver.ledger.ask(Wanted.ON, StopMode.DRAIN, "s", driver.now())
    await driver.turn()
    assert driver.publisher.snapshot.body["wanted"] == "on"


async def test_a_row_that_cannot_even_be_fetched_is_told_on_the_page_and_once_in_the_log(
    driver: Driver, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    await driver.turn()
    await driver.ledger.begin_run(driver.now(), None)
    put(driver.path, "run", "started_at", "yesterday")
    turns = await turn_by_itself(driver, 3)
    assert turns == 3
    assert driver.publisher.snapshot.body["fault"]["code"] == "ledger"
    assert driver.loop.trouble is not None
    assert "can't be read" in driver.loop.trouble
    assert len([record for record in caplog.records if "can't be read" in record.getMessage()]) == 1


async def test_a_turn_that_fails_by_our_own_mistake_is_told_on_the_page_and_once_in_the_log(
    driver: Driver, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    await driver.turn()

    async def mistaken() -> float:
        raise ZeroDivisionError

    monkeypatch.setattr(driver.loop, "round", mistaken)
    await turn_by_itself(driver, 3)
    assert driver.publisher.snapshot.body["fault"]["code"] == "loop"
    assert len([record for record in caplog.records if record.exc_info]) == 1
    monkeypatch.undo()
    await driver.turn()
    assert driver.publisher.snapshot.body["fault"] is None


async def turn_by_itself(driver: Driver, times: int) -> int:
    """Let the loop turn so often as in production; return how often it began."""
    begun = 0
    turn = driver.loop.round

    async def counted() -> float:
        nonlocal begun
        begun += 1
        if begun > times:
            raise asyncio.CancelledError
        try:
            return await turn()
        finally:
            driver.loop.wake()

    driver.loop.round = counted  # pyright: ignore[reportAttributeAccessIssue] - to count
    with contextlib.suppress(asyncio.CancelledError):
        await driver.loop.run()
    driver.loop.round = turn  # pyright: ignore[reportAttributeAccessIssue] - as before
    return begun - 1


@given(JSON)
def test_of_a_fault_whose_words_cannot_be_read_it_is_known_that_there_was_one(value: object) -> None:
    assert (fault_of(value) is None) is (value is None)


@pytest.mark.parametrize("code", ["quota", "no-capacity", "ledger", "unknown"])
def test_a_fault_is_read_as_it_was_written(code: str) -> None:
    assert fault_of(json.loads(json.dumps(fault_json(named(code))))) == named(code)
