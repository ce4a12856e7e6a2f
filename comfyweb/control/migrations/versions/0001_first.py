"""The first tables: intents, attempts, runs, sessions, keys."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "intent",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("machine", sa.String(), nullable=False),
        sa.Column("wanted", sa.String(), nullable=False),
        sa.Column("mode", sa.String(), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("asked_at", sa.DateTime(), nullable=False),
        sa.Column("ended_at", sa.DateTime()),
        sa.Column("fault", sa.JSON()),
    )
    op.create_index("ix_intent_machine", "intent", ["machine"])
    op.create_index("ix_intent_ended_at", "intent", ["ended_at"])
    op.create_table(
        "attempt",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("machine", sa.String(), nullable=False),
        sa.Column("intent_id", sa.Integer(), sa.ForeignKey("intent.id", name="fk_attempt_intent")),
        sa.Column("verb", sa.String(), nullable=False),
        sa.Column("zone", sa.String(), nullable=False),
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("made_at", sa.DateTime(), nullable=False),
        sa.Column("operation", sa.String(), nullable=False),
        sa.Column("ended_at", sa.DateTime()),
        sa.Column("fault", sa.JSON()),
        sa.UniqueConstraint("request_id", name="uq_attempt_request_id"),
    )
    op.create_index("ix_attempt_machine", "attempt", ["machine"])
    op.create_table(
        "run",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("machine", sa.String(), nullable=False),
        sa.Column("started_at", sa.DateTime(), nullable=False),
        sa.Column("asked_at", sa.DateTime()),
        sa.Column("ready_at", sa.DateTime()),
        sa.Column("ended_at", sa.DateTime()),
        sa.Column("reason", sa.String()),
        sa.Column("stops_at", sa.DateTime()),
        sa.Column("boot_id", sa.String(), nullable=False),
    )
    op.create_index("ix_run_machine", "run", ["machine"])
    op.create_table(
        "session",
        sa.Column("jti", sa.String(), primary_key=True),
        sa.Column("issued_at", sa.DateTime(), nullable=False),
        sa.Column("expires_at", sa.DateTime(), nullable=False),
        sa.Column("ended_at", sa.DateTime()),
        sa.Column("revoked_at", sa.DateTime()),
    )
    op.create_index("ix_session_expires_at", "session", ["expires_at"])
    op.create_table(
        "key",
        sa.Column("name", sa.String(), primary_key=True),
        sa.Column("value", sa.String(), nullable=False),
    )
