"""What customers have used, and the batches in which it goes to Stripe."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

SCHEMA = "livejobs"
TIME = sa.DateTime(timezone=True)
PENDING = sa.text("batch_id IS NULL")


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "livejobs_usage",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("customer", sa.Text(), nullable=False),
        sa.Column("meter", sa.Text(), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("recorded_at", TIME, nullable=False),
        sa.Column("batch_id", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_livejobs_usage"),
        sa.UniqueConstraint("owner", "key", name="uq_livejobs_usage_owner_key"),
        schema=SCHEMA,
    )
    _index("livejobs_usage", "at", ["at"])
    _index("livejobs_usage", "owner_at", ["owner", "at"])
    _index("livejobs_usage", "batch_id", ["batch_id"])
    _index("livejobs_usage", "pending", ["at"], PENDING)
    _index("livejobs_usage", "group", ["customer", "meter", "owner", "at"], PENDING)
    op.create_table(
        "livejobs_usage_batches",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("customer", sa.Text(), nullable=False),
        sa.Column("meter", sa.Text(), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.Column("events", sa.Integer(), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("in_doubt_since", TIME),
        sa.Column("due_at", TIME, nullable=False),
        sa.Column("error", sa.Text()),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("ended_at", TIME),
        sa.PrimaryKeyConstraint("id", name="pk_livejobs_usage_batches"),
        schema=SCHEMA,
    )
    _index("livejobs_usage_batches", "created_at", ["created_at", "id"])
    _index("livejobs_usage_batches", "owner_created_at", ["owner", "created_at", "id"])
    _index("livejobs_usage_batches", "status", ["status", "due_at"])


def _index(table: str, name: str, columns: list[str], where: sa.TextClause | None = None) -> None:
    op.create_index(
        f"ix_{table}_{name}",
        table,
        columns,
        schema=SCHEMA,
        sqlite_where=where,
        postgresql_where=where,
    )
