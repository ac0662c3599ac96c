"""What of a document is kept while it is read."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

SCHEMA = "livejobs"


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "livejobs_drafts",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("pages", sa.Integer(), nullable=False),
        sa.Column("blank", sa.Integer(), nullable=False),
        sa.Column("characters", sa.Integer(), nullable=False),
        sa.Column("chunks", sa.Integer(), nullable=False),
        sa.Column("document_id", sa.Text()),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("job_id", name="pk_livejobs_drafts"),
        sa.ForeignKeyConstraint(
            ["job_id"],
            [f"{SCHEMA}.livejobs_jobs.id"],
            name="fk_livejobs_drafts_job_id",
            ondelete="CASCADE",
        ),
        schema=SCHEMA,
    )
    op.create_table(
        "livejobs_draft_chunks",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("page", sa.Integer()),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "ordinal", name="pk_livejobs_draft_chunks"),
        sa.ForeignKeyConstraint(
            ["job_id"],
            [f"{SCHEMA}.livejobs_drafts.job_id"],
            name="fk_livejobs_draft_chunks_job_id",
            ondelete="CASCADE",
        ),
        schema=SCHEMA,
    )
