"""The ledger's promises on PostgreSQL: those that it keeps in a file, and those of several processes and a network."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, make_url
from sqlalchemy.exc import InternalError, OperationalError
from sqlmodel import SQLModel

from comfyweb.control.database import LedgerError
from comfyweb.control.ledger import Ledger
from comfyweb.control.postgresql import MIGRATION_SETTINGS, PATIENCE_SECONDS, PostgreSQL
from comfyweb.control.storage import examine
from comfyweb.machine.model import StopMode, Wanted
from tests.control.test_ledger import (
    test_a_key_is_made_once,
    test_a_persons_stop_takes_the_place_of_a_guards_and_not_the_other_way_round,
    test_a_refused_intent_keeps_its_reason,
    test_a_request_id_is_never_used_twice,
    test_a_stop_counts_until_it_is_refused_or_called_off,
    test_another_wish_ends_the_one_before,
    test_forty_five_clicks_are_one_intent,
    test_sessions_live_until_they_end_or_expire,
    test_the_usual_start_is_the_median_of_the_last_ones,
)
from tests.replicas.servers import PostgreSQLServer

# The promises that it keeps in a file, collected here once more with this ledger.
__all__ = [
    "test_a_key_is_made_once",
    "test_a_persons_stop_takes_the_place_of_a_guards_and_not_the_other_way_round",
    "test_a_refused_intent_keeps_its_reason",
    "test_a_request_id_is_never_used_twice",
    "test_a_stop_counts_until_it_is_refused_or_called_off",
    "test_another_wish_ends_the_one_before",
    "test_forty_five_clicks_are_one_intent",
    "test_sessions_live_until_they_end_or_expire",
    "test_the_usual_start_is_the_median_of_the_last_ones",
]

pytestmark = pytest.mark.slow
NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)


@pytest.fixture
def url(postgresql: PostgreSQLServer) -> str:
    return postgresql.url()


@pytest.fixture
async def ledger(url: str) -> AsyncIterator[Ledger]:
    opened = Ledger(url, machine="p/z/m")
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def four(url: str) -> AsyncIterator[list[Ledger]]:
    """Open it as four processes that start at once do."""
    ledgers = [Ledger(url, machine="p/z/m") for _ in range(4)]
    await asyncio.gather(*(each.open() for each in ledgers))
    yield ledgers
    for each in ledgers:
        await each.close()


async def test_the_migrations_make_exactly_the_tables_of_the_code(ledger: Ledger, url: str) -> None:
    await ledger.standing()
    engine = PostgreSQL(url).engine
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), SQLModel.metadata) == []
    engine.dispose()


async def test_a_migration_takes_longer_than_any_other_transaction_may(ledger: Ledger, url: str) -> None:
    slow = f"""
        DROP TABLE lease;
        UPDATE alembic_version SET version_num = '0001';
        CREATE FUNCTION slow() RETURNS trigger AS $$ BEGIN PERFORM pg_sleep({PATIENCE_SECONDS + 1}); RETURN NEW; END $$
            LANGUAGE plpgsql;
        CREATE TRIGGER slow BEFORE UPDATE ON alembic_version FOR EACH ROW EXECUTE FUNCTION slow();
    """  # noqa: S608 - a number of ours
    engine = PostgreSQL(url).engine
    with engine.begin() as connection:
        connection.exec_driver_sql(slow)
    upgraded = Ledger(url, machine="p/z/m")
    await upgraded.open()
    await upgraded.close()
    with engine.begin() as connection:
        assert compare_metadata(MigrationContext.configure(connection), SQLModel.metadata) == []
        with pytest.raises(OperationalError, match="statement timeout"):
            connection.exec_driver_sql(f"SELECT pg_sleep({PATIENCE_SECONDS})")
    engine.dispose()


async def test_a_migration_that_somebody_is_in_the_way_of_gives_up_and_is_whole_the_next_time(
    ledger: Ledger, url: str
) -> None:
    engine = PostgreSQL(url).engine
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE lease; UPDATE alembic_version SET version_num = '0001'")
    somebody = create_engine(engine.url)  # He doesn't take the lock of every comfyweb: a backup, or a person.
    upgraded = Ledger(url, machine="p/z/m")
    with somebody.begin() as connection:
        connection.exec_driver_sql("LOCK TABLE alembic_version")
        with pytest.raises(LedgerError, match="the database failed"):
            await upgraded.open()
    await upgraded.open()
    await upgraded.close()
    somebody.dispose()
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), SQLModel.metadata) == []
    engine.dispose()


async def test_the_server_notices_within_half_a_minute_that_a_network_was_lost(ledger: Ledger, url: str) -> None:
    engine = PostgreSQL(url).engine
    with engine.connect() as connection:
        of_keepalive = "SELECT name, setting::int FROM pg_settings WHERE name LIKE 'tcp_keepalives_%%'"
        told = {str(name): int(value) for name, value in connection.exec_driver_sql(of_keepalive)}
    engine.dispose()
    idle, interval, count = (told[f"tcp_keepalives_{each}"] for each in ("idle", "interval", "count"))
    assert 0 < idle + interval * count <= 30


async def test_during_anothers_migration_it_is_said_that_the_database_is_busy(ledger: Ledger, url: str) -> None:
    engine = PostgreSQL(url).engine
    other = Ledger(url, machine="p/z/m")
    with engine.begin() as connection:
        for setting in MIGRATION_SETTINGS:
            connection.exec_driver_sql(setting)
        with pytest.raises(LedgerError, match="something else keeps the database busy"):
            await other.open()
        assert "something else keeps the database busy" in await asyncio.to_thread(lambda: examine(url).trouble)
    await other.open()
    await other.close()
    engine.dispose()


async def test_a_database_without_an_encoding_holds_text(postgresql: PostgreSQLServer) -> None:
    ledger = Ledger(postgresql.url(encoding="SQL_ASCII"), machine="p/z/m")
    await ledger.open()
    assert await ledger.key("gate", lambda: "é") == await ledger.key("gate", lambda: "other") == "é"
    await ledger.close()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"database": "nowhere"}, "there is no such database or user on the server"),
        ({"username": "nobody"}, "there is no such database or user on the server"),
        ({"host": "nowhere.invalid"}, "the server's name is not known"),
        ({"port": 1}, "nothing listens at the server's address"),
    ],
)
async def test_why_a_server_lets_nobody_in_is_said_in_words_and_no_part_of_its_address(
    url: str, wrong: dict[str, Any], words: str
) -> None:
    address = make_url(url).set(**wrong).render_as_string(hide_password=False)
    ledger = Ledger(address, machine="p/z/m")
    with pytest.raises(LedgerError) as refused:
        await ledger.open()
    assert str(refused.value) == f"the database failed: {words}"
    assert examine(address).trouble == f"The database's server can't be used: {words}."
    await ledger.close()


async def test_forty_five_clicks_at_four_processes_are_one_intent(four: list[Ledger]) -> None:
    clicks = [four[n % 4].ask(Wanted.ON, StopMode.DRAIN, f"s{n}", NOW) for n in range(45)]
    assert len({intent.id for intent in await asyncio.gather(*clicks)}) == 1


async def test_four_processes_make_one_key(four: list[Ledger]) -> None:
    keys = [each.key("gate", lambda n=n: f"made by {n}") for n, each in enumerate(four)]
    assert len(set(await asyncio.gather(*keys))) == 1


async def test_what_the_server_is_set_to_does_not_let_two_processes_see_the_past(
    postgresql: PostgreSQLServer, url: str
) -> None:
    postgresql.set(url, "default_transaction_isolation", "repeatable read")
    ledgers = [Ledger(url, machine="p/z/m") for _ in range(4)]
    await asyncio.gather(*(each.open() for each in ledgers))
    clicks = [ledgers[n % 4].ask(Wanted.ON, StopMode.DRAIN, f"s{n}", NOW) for n in range(45)]
    assert len({intent.id for intent in await asyncio.gather(*clicks)}) == 1
    for each in ledgers:
        await each.close()


@pytest.fixture
def server() -> PostgreSQLServer:
    """A server that this test may hurt."""
    return PostgreSQLServer()


async def test_a_server_that_stands_still_is_a_clear_error_and_what_waited_is_not_stored(
    postgresql: PostgreSQLServer, server: PostgreSQLServer
) -> None:
    with server:
        ledger = Ledger(server.url(), machine="p/z/m")
        await ledger.open()
        server.stand_still()
        asked = (ledger.ask(Wanted.ON, StopMode.DRAIN, f"s{n}", NOW) for n in range(3))
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [LedgerError] * 3
        server.go_on()
        assert (await ledger.standing()).open_intent is None
        await ledger.close()


async def test_a_server_that_is_killed_is_a_clear_error_until_it_is_back(
    postgresql: PostgreSQLServer, server: PostgreSQLServer
) -> None:
    with server:
        ledger = Ledger(server.url(), machine="p/z/m")
        await ledger.open()
        before = await ledger.ask(Wanted.ON, StopMode.DRAIN, "s", NOW)
        server.kill()
        with pytest.raises(LedgerError, match="nothing listens at the server's address"):
            await ledger.standing()
        server.start()
        assert (await ledger.standing()).open_intent == before
        await ledger.close()


async def test_who_stands_still_in_a_transaction_keeps_nobody_waiting_for_long(four: list[Ledger], url: str) -> None:
    """The server lets go of the connection, and so of the lock that every transaction takes."""
    engine = PostgreSQL(url).engine
    held = engine.connect()
    held.begin()
    assert await four[0].ask(Wanted.ON, StopMode.DRAIN, "s", NOW)
    with pytest.raises(InternalError, match="idle-in-transaction"):
        held.exec_driver_sql("SELECT 1")
    held.close()
    engine.dispose()
