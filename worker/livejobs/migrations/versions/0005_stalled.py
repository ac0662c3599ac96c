"""Whether a running job has been silent for long."""

import sqlalchemy as sa
from alembic import context, op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column(
        "livejobs_jobs",
        sa.Column("stalled", sa.Boolean(), nullable=False, server_default=sa.false()),
        # ALTER TABLE takes no heed of the translation of schemas that the others rely on.
        schema=context.config.attributes["schema"],
    )
