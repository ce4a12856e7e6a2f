"""What a PostgreSQL server takes that a file doesn't: several processes at once, and a network that falls silent."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError

T = TypeVar("T")

DRIVER = "postgresql+psycopg"
# A server that gives no answer for this long has failed, as far as the person who waits is concerned.
PATIENCE_SECONDS = 5.0
# The server lets go first: of what waits, and of what a process holds that stands still or has lost its network.
STATEMENT_MILLISECONDS = 4000
STANDING_STILL_MILLISECONDS = 2000
# Between its statements a migration reads its scripts, on a computer that has just been switched on.
MIGRATION_STANDING_STILL_MILLISECONDS = 30_000
CONNECT_SECONDS = 3
# Any number will do, as long as every comfyweb takes the same.
LOCK = 0x636F6D66
_CONNECTING: Final[dict[str, Any]] = {
    "application_name": "comfyweb",
    "client_encoding": "utf8",  # of a database in SQL_ASCII, psycopg would return bytes
    "connect_timeout": CONNECT_SECONDS,
    "tcp_user_timeout": STATEMENT_MILLISECONDS,
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "keepalives_count": 3,
}
# Or each network that was lost leaves connections at the server, by default for two hours.
_KEEPALIVES = {"tcp_keepalives_idle": 10, "tcp_keepalives_interval": 5, "tcp_keepalives_count": 3}
# Not as an option of the connection, which a pooler such as PgBouncer refuses or forgets.
_SETTINGS = (
    f"SET statement_timeout = {STATEMENT_MILLISECONDS}",
    f"SET idle_in_transaction_session_timeout = {STANDING_STILL_MILLISECONDS}",
    *(f"SET {name} = {value}" for name, value in _KEEPALIVES.items()),
)
# A migration takes as long as the database is large. It doesn't wait for others' locks, behind which all would queue.
MIGRATION_SETTINGS = (
    "SET LOCAL statement_timeout = 0",
    f"SET LOCAL lock_timeout = {STATEMENT_MILLISECONDS}",
    f"SET LOCAL idle_in_transaction_session_timeout = {MIGRATION_STANDING_STILL_MILLISECONDS}",
)
# Told in words of ours: the server's own repeat parts of DATABASE_URL, where a password may be in the wrong place.
_REFUSALS = {
    "password authentication failed": "the server refuses the user or the password",
    "no pg_hba.conf entry": "the server lets nobody in from this address",
    "does not exist": "there is no such database or user on the server",
    "resolve host": "the server's name is not known",
    "Connection refused": "nothing listens at the server's address",
    "timeout expired": "the server does not answer",
    "starting up": "the server is still starting",
}


def refusal(error: Exception) -> str:
    """Return why the database could not be used: in words where a server let nobody in, else the kind of the error."""
    if isinstance(error, TimeoutError):
        return "the server does not answer"
    if isinstance(error, DBAPIError):
        said = str(error.orig)
        if "statement timeout" in said:
            return "something else keeps the database busy"
        if error.statement is None:
            return next((words for mark, words in _REFUSALS.items() if mark in said), type(error).__name__)
    return type(error).__name__


class PostgreSQL:
    """One connection to a server. Its transactions wait for those of every other comfyweb, as in a file."""

    def __init__(self, url: str) -> None:
        address = make_url(url)
        if address.drivername == "postgresql":
            address = address.set(drivername=DRIVER)
        self.engine = create_engine(
            address,
            # What is read after the lock was waited for must be as it is then, not as it was before.
            isolation_level="READ COMMITTED",
            pool_size=1,
            max_overflow=0,
            pool_pre_ping=True,
            connect_args=_CONNECTING,
        )
        self._in_use: Any = None
        self._given_up = False
        event.listen(self.engine, "connect", _connected)
        event.listen(self.engine, "checkout", self._taken)
        event.listen(self.engine, "begin", self._begun)
        event.listen(self.engine, "commit", self._committing)

    def answers(self) -> None:
        """Wait until no other comfyweb is at work there, as each transaction does. Raises SQLAlchemyError."""
        with self.engine.begin():
            pass

    def anew(self, work: Callable[[], T]) -> Callable[[], T]:
        """Return this work, so that it doesn't end as what was given up before it."""

        def begun() -> T:
            self._given_up = False
            return work()

        return begun

    async def patiently(self, done: Future[T], seconds: float | None) -> T:
        """Return what the thread returns, unless the server keeps it waiting too long: raises TimeoutError then.

        With None it is waited for until it ends. What has not begun by then never does; under what has begun the
        connection is cut, so that the thread is free.
        """
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.wrap_future(done)
        except (TimeoutError, asyncio.CancelledError):
            if not done.done():
                self._given_up = True  # It may connect anew and go on: it stores nothing more.
                self._hang_up()
            raise

    def _begun(self, connection: Connection) -> None:
        self._committing(connection)
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")

    def _committing(self, _connection: Connection) -> None:
        if self._given_up:
            raise TimeoutError("nobody waits for this any more")

    def _taken(self, connection: Any, _record: object, _proxy: object) -> None:
        self._in_use = connection

    def _hang_up(self) -> None:
        """Wake the thread that waits for the server: what it waits on is closed under it."""
        if self._in_use is None:
            return  # It is still connecting, which ends by itself.
        closed = self.engine.dialect.loaded_dbapi.Error
        with contextlib.suppress(OSError, closed), socket.socket(fileno=os.dup(self._in_use.fileno())) as connection:
            connection.shutdown(socket.SHUT_RDWR)


def _connected(connection: Any, _record: object) -> None:
    with connection.cursor() as cursor:
        for setting in _SETTINGS:
            cursor.execute(setting)
    connection.commit()
