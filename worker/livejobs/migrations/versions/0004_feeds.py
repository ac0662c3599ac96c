"""What feeds read: jobs by their last change, and which jobs were deleted."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

SCHEMA = "livejobs"
OPEN = sa.text("completed_at IS NULL")


def upgrade() -> None:
    """Create the indexes and the table."""
    op.create_index(
        "ix_livejobs_jobs_owner_updated_at",
        "livejobs_jobs",
        ["owner", "updated_at"],
        schema=SCHEMA,
    )
    op.create_index(
        "ix_livejobs_jobs_open",
        "livejobs_jobs",
        ["owner", "updated_at"],
        schema=SCHEMA,
        sqlite_where=OPEN,
        postgresql_where=OPEN,
    )
    op.create_table(
        "livejobs_deletions",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("parent_id", sa.Text()),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("job_id", name="pk_livejobs_deletions"),
        schema=SCHEMA,
    )
    op.create_index("ix_livejobs_deletions_at", "livejobs_deletions", ["at"], schema=SCHEMA)
