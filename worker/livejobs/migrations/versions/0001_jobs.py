"""Jobs, their timeline and entries, keys, tickets, answers and beats."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SCHEMA = "livejobs"
TIME = sa.DateTime(timezone=True)
JSON_OBJECT = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    """Create the tables."""
    _jobs()
    _events_and_entries()
    _access()
    op.create_table(
        "livejobs_beats",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_livejobs_beats"),
        schema=SCHEMA,
    )


def _jobs() -> None:
    op.create_table(
        "livejobs_jobs",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("max_attempts", sa.Integer()),
        sa.Column("rerun_when_lost", sa.Boolean(), nullable=False),
        sa.Column("dispatches", sa.Integer(), nullable=False),
        sa.Column("run_at", TIME),
        sa.Column("due_at", TIME),
        sa.Column("lease_until", TIME),
        sa.Column("worker", sa.Text()),
        sa.Column("cancel_requested_at", TIME),
        sa.Column("expires_at", TIME),
        sa.Column("reported_at", TIME),
        sa.Column("progress", sa.Text()),
        sa.Column("progress_seq", sa.BigInteger(), nullable=False),
        sa.Column("last_n", sa.BigInteger(), nullable=False),
        sa.Column("result", sa.Text()),
        sa.Column("error", sa.Text()),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("tags", JSON_OBJECT, nullable=False),
        sa.Column("parent_id", sa.Text()),
        sa.Column("children_total", sa.Integer(), nullable=False),
        sa.Column("children_completed", sa.Integer(), nullable=False),
        sa.Column("children_failed", sa.Integer(), nullable=False),
        sa.Column("children_cancelled", sa.Integer(), nullable=False),
        sa.Column("idempotency_key", sa.Text()),
        sa.Column("idempotency_hash", sa.Text()),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("started_at", TIME),
        sa.Column("updated_at", TIME, nullable=False),
        sa.Column("completed_at", TIME),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_livejobs_jobs"),
        sa.UniqueConstraint(
            "owner", "idempotency_key", name="uq_livejobs_jobs_owner_idempotency_key"
        ),
        schema=SCHEMA,
    )
    for name, columns in {
        "owner_created_at": ["owner", "created_at", "id"],
        "created_at": ["created_at", "id"],
        "due": ["due_at"],
        "lease": ["lease_until"],
        "expires": ["expires_at"],
        "updated_at": ["updated_at"],
        "parent_id": ["parent_id"],
        "worker": ["worker"],
    }.items():
        op.create_index(f"ix_livejobs_jobs_{name}", "livejobs_jobs", columns, schema=SCHEMA)


def _events_and_entries() -> None:
    op.create_table(
        "livejobs_events",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("detail", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_livejobs_events"),
        _job_key("livejobs_events"),
        schema=SCHEMA,
    )
    op.create_index("ix_livejobs_events_job_id", "livejobs_events", ["job_id", "id"], schema=SCHEMA)
    op.create_table(
        "livejobs_entries",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "attempt", "n", name="pk_livejobs_entries"),
        _job_key("livejobs_entries"),
        schema=SCHEMA,
    )


def _job_key(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["job_id"],
        [f"{SCHEMA}.livejobs_jobs.id"],
        name=f"fk_{table}_job_id",
        ondelete="CASCADE",
    )


def _access() -> None:
    op.create_table(
        "livejobs_api_keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("expires_at", TIME),
        sa.Column("revoked_at", TIME),
        sa.PrimaryKeyConstraint("id", name="pk_livejobs_api_keys"),
        schema=SCHEMA,
    )
    op.create_table(
        "livejobs_tickets",
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("viewer", sa.Text(), nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("hash", name="pk_livejobs_tickets"),
        schema=SCHEMA,
    )
    op.create_index(
        "ix_livejobs_tickets_expires_at", "livejobs_tickets", ["expires_at"], schema=SCHEMA
    )
    op.create_table(
        "livejobs_answers",
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("request_hash", sa.Text(), nullable=False),
        sa.Column("status", sa.Integer()),
        sa.Column("headers", sa.Text()),
        sa.Column("body", sa.Text()),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("owner", "key", name="pk_livejobs_answers"),
        schema=SCHEMA,
    )
    op.create_index(
        "ix_livejobs_answers_created_at", "livejobs_answers", ["created_at"], schema=SCHEMA
    )
