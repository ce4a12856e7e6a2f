"""Transactions on the ledger's database: one after another in a thread of their own, whole or not at all.

SQLite's file is one process's own; what PostgreSQL takes, with several processes, is in `postgresql.py`.
"""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, event, false
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session as Transaction
from sqlmodel import create_engine, update

from comfyweb.control.migrate import migrate
from comfyweb.control.postgresql import MIGRATION_SETTINGS, PATIENCE_SECONDS, PostgreSQL, refusal
from comfyweb.control.tables import KeyRow

T = TypeVar("T")

# A SQLite file that another process holds is waited for this long before `LedgerError`.
BUSY_SECONDS = 5
PRIVATE = 0o600
GONE = "the database's file was removed or replaced while it was in use: restart comfyweb"


class LedgerError(Exception):
    """The database could not be read or written; the transaction left no trace.

    One exception: where PostgreSQL falls silent just when it is told to commit, nobody knows whether it did.
    """


class Database:
    """One connection to the database, and a thread that uses it, so that the event loop never waits for a disk.

    No two transactions interleave: those of one process run in its thread, those of several wait for each other.
    """

    def __init__(self, url: str) -> None:
        self._server = None if url.startswith("sqlite") else PostgreSQL(url)
        self._engine = self._server.engine if self._server else _sqlite(url)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger")
        self._file: tuple[int, int] | None = None

    async def open(self) -> None:
        """Bring the tables up to date, which takes as long as it takes. Raises LedgerError."""

        def work() -> None:
            _keep_private(self._engine)
            migrate(self._engine, MIGRATION_SETTINGS if self._server else ())
            self._file = _identity(self._engine)

        if self._server:
            await self._in_thread(self._server.answers)
        await self._in_thread(work, seconds=None)

    async def probe(self) -> None:
        """Write, and change nothing by it. Raises LedgerError when nothing can be stored now.

        In a SQLite file it is a page of its own that is written, and is on the disk when this returns.
        """

        def work(db: Transaction) -> None:
            if self._server is None:
                version = int(db.connection().exec_driver_sql("PRAGMA user_version").scalar_one())
                db.connection().exec_driver_sql(f"PRAGMA user_version = {version}")
            else:
                db.exec(update(KeyRow).where(false()).values(name=KeyRow.name))

        await self._transact(work)

    async def close(self) -> None:
        """Finish what is being written, then let go of the database."""
        await asyncio.to_thread(self._thread.shutdown)
        self._engine.dispose()

    async def _transact(self, work: Callable[[Transaction], T]) -> T:
        def whole() -> T:
            # SQLite goes on with a file that has no name any more: what it stores there is lost with the process.
            if self._file not in {None, _identity(self._engine)}:
                raise LedgerError(GONE)
            with Transaction(self._engine, expire_on_commit=False) as db, db.begin():
                return work(db)

        return await self._in_thread(whole)

    async def _in_thread(self, work: Callable[[], T], *, seconds: float | None = PATIENCE_SECONDS) -> T:
        try:
            if self._server is None:
                return await asyncio.wrap_future(self._thread.submit(work))
            return await self._server.patiently(self._thread.submit(self._server.anew(work)), seconds)
        except (SQLAlchemyError, OSError) as error:
            raise LedgerError(f"the database failed: {refusal(error)}") from error
        except (ValueError, TypeError, OverflowError) as error:  # from fetching a row: broken JSON, or no time
            raise LedgerError(f"the database holds what can't be read: {error}") from error


def _sqlite(url: str) -> Engine:
    engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False})

    def connected(connection: Any, _record: object) -> None:
        # Left to itself, Python's sqlite3 opens no transaction for CREATE TABLE: a kill would leave half of the tables.
        connection.isolation_level = None
        # WAL: a reader such as a backup doesn't block the loop. FULL: an answered click survives a power cut.
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    def begun(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", begun)
    return engine


def _keep_private(engine: Engine) -> None:
    """Let nobody else on this computer read a SQLite file: it holds the key that opens the machine's gate.

    SQLite gives its -wal and -shm files the same mode.
    """
    name = engine.url.database
    if engine.url.get_backend_name() != "sqlite" or not name or name == ":memory:":
        return  # Nothing that others could read.
    os.close(os.open(name, os.O_RDWR | os.O_CREAT, PRIVATE))
    for file in (Path(f"{name}{end}") for end in ("", "-wal", "-shm")):
        if file.exists() and file.stat().st_mode & ~PRIVATE & 0o777:
            file.chmod(PRIVATE)


def _identity(engine: Engine) -> tuple[int, int] | None:
    """Tell one file from another of the same name; None for what is no file, or is gone."""
    name = engine.url.database
    if engine.url.get_backend_name() != "sqlite" or not name or name == ":memory:":
        return None  # Nothing that could be replaced.
    try:
        found = Path(name).stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
