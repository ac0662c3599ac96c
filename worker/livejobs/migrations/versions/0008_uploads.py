"""Whose uploads are, what jobs have ended when, and when a schedule's entries ran."""

import sqlalchemy as sa
from alembic import context, op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

SCHEMA = "livejobs"
NAME = "livejobs_uploads"
TIME = sa.DateTime(timezone=True)
ENDED = sa.text("completed_at IS NOT NULL")


def upgrade() -> None:
    """Create the tables and the index; give the files that are there their rows."""
    op.create_table(
        "livejobs_uploads",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_livejobs_uploads"),
        schema=SCHEMA,
    )
    for column in ("created_at", "owner", "job_id"):
        op.create_index(
            f"ix_livejobs_uploads_{column}", "livejobs_uploads", [column], schema=SCHEMA
        )
    # ALTER TABLE takes no heed of the translation of schemas that the others rely on.
    schema = context.config.attributes["schema"]
    op.add_column("livejobs_documents", sa.Column("upload", sa.Text()), schema=schema)
    op.create_index("ix_livejobs_documents_upload", "livejobs_documents", ["upload"], schema=SCHEMA)
    op.create_index(
        "ix_livejobs_jobs_ended",
        "livejobs_jobs",
        ["status", "completed_at"],
        schema=SCHEMA,
        sqlite_where=ENDED,
        postgresql_where=ENDED,
    )
    op.create_table(
        "livejobs_schedule",
        sa.Column("app", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("schedule", sa.Text(), nullable=False),
        sa.Column("last_run_at", TIME, nullable=False),
        sa.Column("next_run_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("app", "name", name="pk_livejobs_schedule"),
        schema=SCHEMA,
    )
    _take_over(schema)


def _take_over(schema: str | None) -> None:
    """Give the files that are there their rows; how large they are the server did not keep."""
    uploads, jobs, documents = (
        sa.table(f"livejobs_{name}", *map(sa.column, columns), schema=schema)
        for name, columns in {
            "uploads": ("name", "owner", "job_id", "size", "created_at"),
            "jobs": ("id", "task", "owner", "idempotency_key", "created_at"),
            "documents": ("job_id", "upload"),
        }.items()
    )
    # The server named a job of `rag.ingest` by its file.
    sent = sa.select(
        jobs.c.idempotency_key, jobs.c.owner, jobs.c.id, sa.literal(0), jobs.c.created_at
    ).where(jobs.c.task == "rag.ingest", jobs.c.idempotency_key.is_not(None))
    op.execute(sa.insert(uploads).from_select([column.name for column in uploads.c], sent))
    made_of = sa.select(uploads.c.name).where(uploads.c.job_id == documents.c.job_id)
    op.execute(sa.update(documents).values(upload=made_of.limit(1).scalar_subquery()))
