"""The ledger's tables. A change here needs a migration beside it; a test compares the two."""

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import JSON, DateTime, Dialect, TypeDecorator
from sqlmodel import Field, SQLModel

EARLIEST, LATEST = 2000, 2200


class Utc(TypeDecorator[datetime]):
    """A point in time: timezone-aware in Python, UTC in the database (SQLite keeps no zone)."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 (SQLAlchemy's signature)
        """Refuse a time without a zone: it would be read back as another one."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 (SQLAlchemy's signature)
        """Give the zone back. Raises ValueError for a time that nobody can have stored."""
        if value is not None and not EARLIEST <= value.year <= LATEST:
            raise ValueError(f"a time in the year {value.year}")
        return None if value is None else value.replace(tzinfo=UTC)


class IntentRow(SQLModel, table=True):
    """What somebody asked for. Open while `ended_at` is empty; at most one is open for each machine."""

    __tablename__: ClassVar[Any] = "intent"

    id: int | None = Field(default=None, primary_key=True)
    machine: str = Field(index=True)
    wanted: str
    mode: str
    by: str
    asked_at: datetime = Field(sa_type=Utc)
    ended_at: datetime | None = Field(default=None, sa_type=Utc, index=True)
    fault: dict[str, Any] | None = Field(default=None, sa_type=JSON)


class AttemptRow(SQLModel, table=True):
    """A call to Compute Engine, stored before it is made."""

    __tablename__: ClassVar[Any] = "attempt"

    id: int | None = Field(default=None, primary_key=True)
    machine: str = Field(index=True)
    intent_id: int | None = Field(default=None, foreign_key="intent.id")
    verb: str
    zone: str
    request_id: str = Field(unique=True)
    made_at: datetime = Field(sa_type=Utc)
    operation: str = ""
    ended_at: datetime | None = Field(default=None, sa_type=Utc)
    fault: dict[str, Any] | None = Field(default=None, sa_type=JSON)


class RunRow(SQLModel, table=True):
    """A period during which the machine was on."""

    __tablename__: ClassVar[Any] = "run"

    id: int | None = Field(default=None, primary_key=True)
    machine: str = Field(index=True)
    started_at: datetime = Field(sa_type=Utc)
    asked_at: datetime | None = Field(default=None, sa_type=Utc)
    ready_at: datetime | None = Field(default=None, sa_type=Utc)
    ended_at: datetime | None = Field(default=None, sa_type=Utc)
    reason: str | None = None
    stops_at: datetime | None = Field(default=None, sa_type=Utc)
    boot_id: str = ""


class SessionRow(SQLModel, table=True):
    """A login. `revoked_at` is when the host was told of its end, so that its ComfyUI cookies died too."""

    __tablename__: ClassVar[Any] = "session"

    jti: str = Field(primary_key=True)
    issued_at: datetime = Field(sa_type=Utc)
    expires_at: datetime = Field(sa_type=Utc, index=True)
    ended_at: datetime | None = Field(default=None, sa_type=Utc)
    revoked_at: datetime | None = Field(default=None, sa_type=Utc)


class KeyRow(SQLModel, table=True):
    """A key that comfyweb made for itself, because none was given."""

    __tablename__: ClassVar[Any] = "key"

    name: str = Field(primary_key=True)
    value: str


class LeaseRow(SQLModel, table=True):
    """Who runs the machine's loop, where several processes could. `beats` grows as long as the holder lives.

    `epoch` is that of the holder: whoever takes the lease over raises it. `holder` is empty once it was given back.
    """

    __tablename__: ClassVar[Any] = "lease"

    machine: str = Field(primary_key=True)
    holder: str
    epoch: int
    beats: int
