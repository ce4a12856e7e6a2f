"""Looks whether the ledger's place can be used, without making or changing anything that stays there. Blocking."""

import shutil
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import make_url, text
from sqlalchemy.exc import SQLAlchemyError

from comfyweb.control.postgresql import PostgreSQL, refusal

WAIT_SECONDS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """What was found. `trouble` is empty when it can be written; `free_bytes` is None where that can't be known."""

    trouble: str = ""
    free_bytes: int | None = None


def examine(url: str) -> Storage:
    """Look at the place that DATABASE_URL names. No word of it is repeated: it may hold a password."""
    if not url.startswith("sqlite"):
        return Storage(trouble=_server(url))
    name = make_url(url).database
    if not name or name == ":memory:":
        return Storage(trouble="The database is in memory, so everything is forgotten when the app ends.")
    file = Path(name).absolute()
    try:
        return Storage(trouble=_file(file), free_bytes=shutil.disk_usage(file.parent).free)
    except OSError as error:
        return Storage(trouble=f"The folder {file.parent} can't be used: {error.strerror}.")


def _file(file: Path) -> str:
    if not file.exists():
        with tempfile.TemporaryFile(dir=file.parent):  # raises where the app couldn't make its file either
            return ""
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=rw", uri=True, timeout=WAIT_SECONDS)) as database:
            database.isolation_level = None
            # The lock of a writer, given back at once. A file that can't be written or is no database refuses it.
            database.execute("BEGIN IMMEDIATE")
            database.execute("ROLLBACK")
    except sqlite3.Error as error:
        return f"The database can't be written: {error}."
    return ""


def _server(url: str) -> str:
    try:
        engine = PostgreSQL(url).engine
        try:
            with engine.connect() as connection:
                only_read = str(connection.execute(text("SHOW transaction_read_only")).scalar())
        finally:
            engine.dispose()
    except (SQLAlchemyError, ImportError, OSError) as error:
        return f"The database's server can't be used: {refusal(error)}."
    return "The database's server takes no writes." if only_read == "on" else ""
