"""Places for children that are not to run all at a time, and the sums that they hand in."""

import sqlalchemy as sa
from alembic import context, op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

SCHEMA = "livejobs"
OPEN = sa.text("at_once IS NOT NULL AND completed_at IS NULL")


def upgrade() -> None:
    """Create the columns and the index."""
    for column in (
        sa.Column("at_once", sa.Integer()),
        sa.Column("held", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("children_before", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("children_sums", sa.Text()),
    ):
        # ALTER TABLE takes no heed of the translation of schemas that the others rely on.
        op.add_column("livejobs_jobs", column, schema=context.config.attributes["schema"])
    op.create_index(
        "ix_livejobs_jobs_places",
        "livejobs_jobs",
        ["parent_id", "held", "ordinal"],
        schema=SCHEMA,
        sqlite_where=OPEN,
        postgresql_where=OPEN,
    )
