"""Children: their ordinals, and what is to be added to the counts of their parents."""

import sqlalchemy as sa
from alembic import context, op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

SCHEMA = "livejobs"
OF_A_PARENT = sa.text("parent_id IS NOT NULL")


def upgrade() -> None:
    """Create the columns, the index and the table."""
    for column in (
        sa.Column("ordinal", sa.Integer()),
        sa.Column("children_from", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("counted_at", sa.DateTime(timezone=True)),
    ):
        # ALTER TABLE takes no heed of the translation of schemas that the others rely on.
        op.add_column("livejobs_jobs", column, schema=context.config.attributes["schema"])
    op.create_index(
        "uq_livejobs_jobs_parent_id_ordinal",
        "livejobs_jobs",
        ["parent_id", "ordinal"],
        unique=True,
        schema=SCHEMA,
        sqlite_where=OF_A_PARENT,
        postgresql_where=OF_A_PARENT,
    )
    op.drop_index("ix_livejobs_jobs_parent_id", "livejobs_jobs", schema=SCHEMA)
    op.create_table(
        "livejobs_tallies",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("parent_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_livejobs_tallies"),
        schema=SCHEMA,
    )
    op.create_index(
        "ix_livejobs_tallies_parent_id", "livejobs_tallies", ["parent_id"], schema=SCHEMA
    )
