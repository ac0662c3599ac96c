"""Who is to be told of the end of a job, and owners' defaults."""

import sqlalchemy as sa
from alembic import context, op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

SCHEMA = "livejobs"
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the column and the table."""
    # ALTER TABLE takes no heed of the translation of schemas that the others rely on.
    column = sa.Column("webhook_url", sa.Text())
    op.add_column("livejobs_jobs", column, schema=context.config.attributes["schema"])
    op.create_table(
        "livejobs_webhooks",
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("changed_at", TIME, nullable=False),
        sa.Column("disabled_at", TIME),
        sa.PrimaryKeyConstraint("owner", name="pk_livejobs_webhooks"),
        schema=SCHEMA,
    )
