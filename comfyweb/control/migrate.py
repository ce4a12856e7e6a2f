"""Brings the ledger's tables up to date by itself, at each start, with alembic."""

from collections.abc import Iterable
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Engine

MIGRATIONS = Path(__file__).parent / "migrations"


def migrate(engine: Engine, settings: Iterable[str] = ()) -> None:
    """Run every migration that the database has not had, under these settings. Does nothing when it has had them all.

    Raises ValueError, and changes nothing, when it has had some that are not known here.
    """
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        for setting in settings:
            connection.exec_driver_sql(setting)
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise ValueError(
                "it is of a newer comfyweb. Start that one, or restore a backup from before the upgrade"
            ) from error
