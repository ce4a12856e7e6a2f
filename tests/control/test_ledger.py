"""What survives a crash: every promise of the ledger, on a real SQLite file."""

import sqlite3
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine
from sqlmodel import SQLModel

from comfyweb.access.sessions import Session
from comfyweb.control import database as database_module
from comfyweb.control.database import LedgerError
from comfyweb.control.ledger import Ledger
from comfyweb.machine.faults import named
from comfyweb.machine.model import Guard, StopMode, StopReason, Verb, Wanted

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
async def ledger(path: Path) -> AsyncIterator[Ledger]:
    opened = Ledger(f"sqlite:///{path}", machine="p/z/m")
    await opened.open()
    yield opened
    await opened.close()


async def reopened(path: Path) -> Ledger:
    again = Ledger(f"sqlite:///{path}", machine="p/z/m")
    await again.open()
    return again


async def test_the_migrations_make_exactly_the_tables_of_the_code(ledger: Ledger, path: Path) -> None:
    await ledger.standing()
    with create_engine(f"sqlite:///{path}").connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), SQLModel.metadata) == []


async def test_an_intent_is_there_after_a_crash(ledger: Ledger, path: Path) -> None:
    asked = await ledger.ask(Wanted.ON, StopMode.DRAIN, "s", NOW)
    again = await reopened(path)
    assert (await again.standing()).open_intent == asked
    await again.close()


async def test_forty_five_clicks_are_one_intent(ledger: Ledger) -> None:
    asked = {(await ledger.ask(Wanted.ON, StopMode.DRAIN, f"s{n}", NOW)).id for n in range(45)}
    assert len(asked) == 1


async def test_another_wish_ends_the_one_before(ledger: Ledger) -> None:
    await ledger.ask(Wanted.ON, StopMode.DRAIN, "s", NOW)
    gentle = await ledger.ask(Wanted.OFF, StopMode.DRAIN, "s", NOW)
    now = await ledger.ask(Wanted.OFF, StopMode.NOW, "s", NOW)
    assert gentle.id != now.id
    standing = await ledger.standing()
    assert standing.open_intent == now
    await ledger.end_intent(now.id, None, NOW)
    assert (await ledger.standing()).open_intent is None


async def test_a_refused_intent_keeps_its_reason(ledger: Ledger) -> None:
    asked = await ledger.ask(Wanted.ON, StopMode.DRAIN, "s", NOW)
    await ledger.end_intent(asked.id, named("quota"), NOW)
    standing = await ledger.standing()
    assert standing.open_intent is None
    assert standing.last_intent_fault == named("quota")


async def test_a_fault_keeps_the_times_of_its_repetition(ledger: Ledger, path: Path) -> None:
    begun = await ledger.begin(Verb.START, "z", "r-1", None, NOW)
    await ledger.end_attempt(begun.id, named("rate-limit"), NOW)
    again = await reopened(path)
    (ended,) = (await again.standing()).attempts
    await again.close()
    assert ended.fault == named("rate-limit")


async def test_a_fault_that_an_older_comfyweb_stored_is_read(path: Path, ledger: Ledger) -> None:
    begun = await ledger.begin(Verb.START, "z", "r-1", None, NOW)
    await ledger.end_attempt(begun.id, named("quota"), NOW)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE attempt SET fault = json_set(fault, '$.retry', json('true'))")
    again = await reopened(path)
    (ended,) = (await again.standing()).attempts
    await again.close()
    assert ended.fault == named("quota")


async def test_an_attempt_is_known_before_its_answer(ledger: Ledger, path: Path) -> None:
    begun = await ledger.begin(Verb.START, "z", "r-1", None, NOW)
    again = await reopened(path)
    assert (await again.standing()).attempts == (begun,)
    await again.called(begun.id, "op-1")
    await again.end_attempt(begun.id, named("no-capacity"), NOW + timedelta(seconds=90))
    (ended,) = (await again.standing()).attempts
    assert (ended.operation, ended.fault, ended.in_flight) == ("op-1", named("no-capacity"), False)
    await again.close()


async def test_a_request_id_is_never_used_twice(ledger: Ledger) -> None:
    await ledger.begin(Verb.START, "z", "r-1", None, NOW)
    with pytest.raises(LedgerError):
        await ledger.begin(Verb.START, "z", "r-1", None, NOW)
    assert len((await ledger.standing()).attempts) == 1


async def test_the_usual_start_is_the_median_of_the_last_ones(ledger: Ledger) -> None:
    for n, seconds in enumerate((60, 300, 90)):
        asked = NOW + timedelta(hours=n)
        await ledger.begin_run(asked + timedelta(seconds=20), asked)
        run = (await ledger.standing()).run
        assert run is not None
        await ledger.note_run(run.id, ready_at=asked + timedelta(seconds=seconds), stops_at=None, boot_id="b")
        await ledger.end_run(run.id, asked + timedelta(minutes=30), StopReason.IDLE)
    standing = await ledger.standing()
    assert standing.usual_start == timedelta(seconds=90)
    assert standing.last_run is not None
    assert standing.last_run.reason is StopReason.IDLE


async def test_a_stop_counts_until_it_is_refused_or_called_off(ledger: Ledger) -> None:
    assert (await ledger.standing()).stop is None
    stop = await ledger.ask(Wanted.OFF, StopMode.NOW, "s", NOW)
    assert (await ledger.standing()).stop == stop
    start = await ledger.ask(Wanted.ON, StopMode.DRAIN, "s", NOW)
    assert (await ledger.standing()).stop == stop
    await ledger.end_intent(start.id, None, NOW)
    assert (await ledger.standing()).stop is None
    refused = await ledger.ask(Wanted.OFF, StopMode.NOW, "s", NOW)
    await ledger.end_intent(refused.id, named("permission"), NOW)
    assert (await ledger.standing()).stop is None


async def test_sessions_live_until_they_end_or_expire(ledger: Ledger) -> None:
    sessions = [
        Session(jti=jti, issued_at=NOW, expires_at=NOW + timedelta(hours=hours))
        for jti, hours in (("a", 24), ("b", 24), ("c", 1))
    ]
    for session in sessions:
        await ledger.add(session)
    await ledger.end("a", NOW)
    later = NOW + timedelta(hours=2)
    assert list(await ledger.live(later)) == [sessions[1]]
    assert await ledger.unrevoked(later) == ["a"]
    await ledger.revoked(["a"], later)
    assert await ledger.unrevoked(later) == []
    await ledger.end_all(later)
    assert list(await ledger.live(later)) == []


async def test_a_key_is_made_once(ledger: Ledger) -> None:
    assert await ledger.key("gate", lambda: "first") == "first"
    assert await ledger.key("gate", lambda: "second") == "first"


async def test_nobody_else_on_the_computer_may_read_it(ledger: Ledger, path: Path) -> None:
    await ledger.key("gate", lambda: "secret")
    files = list(path.parent.glob("ledger.db*"))
    assert len(files) == 3
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    await ledger.close()
    path.chmod(0o644)
    again = await reopened(path)
    assert path.stat().st_mode & 0o777 == 0o600
    await again.close()


async def test_a_locked_database_is_an_error_that_leaves_no_trace(
    ledger: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ledger.close()
    monkeypatch.setattr(database_module, "BUSY_SECONDS", 0)
    ledger = await reopened(path)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(LedgerError):
        await ledger.ask(Wanted.ON, StopMode.DRAIN, "s", NOW)
    holder.execute("ROLLBACK")
    holder.close()
    assert (await ledger.standing()).open_intent is None
    await ledger.close()


async def test_a_database_that_cannot_be_opened_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="the database failed"):
        await Ledger(f"sqlite:///{tmp_path}/no/such/folder/x.db", machine="m").open()


async def test_a_persons_stop_takes_the_place_of_a_guards_and_not_the_other_way_round(ledger: Ledger) -> None:
    await ledger.ask(Wanted.OFF, StopMode.DRAIN, Guard.SESSION_CAP, NOW)
    persons = await ledger.ask(Wanted.OFF, StopMode.DRAIN, "s", NOW)
    assert persons.guard is None
    assert await ledger.ask(Wanted.OFF, StopMode.DRAIN, Guard.SESSION_CAP, NOW) == persons
    assert await ledger.ask(Wanted.OFF, StopMode.DRAIN, "other", NOW) == persons
