"""Sessions of people who are signed in to the pages."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

SCHEMA = "livejobs"
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "livejobs_sessions",
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("viewer", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text()),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("hash", name="pk_livejobs_sessions"),
        schema=SCHEMA,
    )
    op.create_index(
        "ix_livejobs_sessions_expires_at", "livejobs_sessions", ["expires_at"], schema=SCHEMA
    )
