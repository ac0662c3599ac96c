"""Documents, their chunks, and the full-text search over them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

SCHEMA = "livejobs"
TIME = sa.DateTime(timezone=True)

# Separators for PostgreSQL, whose parser would else keep file names, hosts, hyphenated words and
# signed numbers together; FTS5's unicode61 breaks words at all of these by itself. The percent sign
# separates anyway, and drivers read something into it.
SEPARATORS = "!\"#$&'()*+,-./;<=>?@[\\]^_`{|}~:"
SEPARATORS += "\u00a0¡«·»¿\u2013—\u2018\u2019“”„•…\u2039\u203a"  # dashes and quotes as typeset


def upgrade() -> None:
    """Create the tables and the search."""
    sqlite = op.get_bind().dialect.name == "sqlite"
    _documents()
    op.create_table(
        "livejobs_chunks",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("document_id", sa.Text(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("page", sa.Integer()),
        sa.Column("text", sa.Text(), nullable=False),
        *([] if sqlite else [_search_column()]),
        sa.PrimaryKeyConstraint("id", name="pk_livejobs_chunks"),
        sa.UniqueConstraint(
            "document_id", "ordinal", name="uq_livejobs_chunks_document_id_ordinal"
        ),
        sa.ForeignKeyConstraint(
            ["document_id"],
            [f"{SCHEMA}.livejobs_documents.id"],
            name="fk_livejobs_chunks_document_id",
            ondelete="CASCADE",
        ),
        schema=SCHEMA,
    )
    if sqlite:
        _search_table()
    else:
        op.create_index(
            "ix_livejobs_chunks_search",
            "livejobs_chunks",
            ["search"],
            schema=SCHEMA,
            postgresql_using="gin",
        )


def _documents() -> None:
    op.create_table(
        "livejobs_documents",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("pages", sa.Integer()),
        sa.Column("chunks", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.Text()),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_livejobs_documents"),
        sa.UniqueConstraint("owner", "name", name="uq_livejobs_documents_owner_name"),
        schema=SCHEMA,
    )


def _search_column() -> sa.Column[str]:
    separators = SEPARATORS.replace("'", "''")
    words = f"translate(text, '{separators}', repeat(' ', {len(SEPARATORS)}))"
    return sa.Column(
        "search",
        postgresql.TSVECTOR(),
        sa.Computed(f"to_tsvector('simple'::regconfig, {words})", persisted=True),
    )


def _search_table() -> None:
    # Accents count, as they do on PostgreSQL.
    op.execute(
        "CREATE VIRTUAL TABLE livejobs_chunks_fts USING fts5("
        "text, content='livejobs_chunks', content_rowid='id', "
        "tokenize='unicode61 remove_diacritics 0')"
    )
    # An external-content table forgets a row only when it is given the row's old text.
    add = "INSERT INTO livejobs_chunks_fts (rowid, text) VALUES (new.id, new.text);"
    forget = (
        "INSERT INTO livejobs_chunks_fts (livejobs_chunks_fts, rowid, text) "
        "VALUES ('delete', old.id, old.text);"
    )
    for event, body in {"INSERT": add, "DELETE": forget, "UPDATE": f"{forget} {add}"}.items():
        op.execute(
            f"CREATE TRIGGER livejobs_chunks_fts_{event.lower()} AFTER {event} ON livejobs_chunks "
            f"BEGIN {body} END"
        )
