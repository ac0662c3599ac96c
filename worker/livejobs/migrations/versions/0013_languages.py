"""Languages of documents: the stems of their words are searched beside the words."""

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

SCHEMA = "livejobs"

# As in 0002: PostgreSQL's parser would else keep together what FTS5's unicode61 breaks.
SEPARATORS = "!\"#$&'()*+,-./;<=>?@[\\]^_`{|}~:"
SEPARATORS += "\u00a0¡«·»¿\u2013—\u2018\u2019“”„•…\u2039\u203a"


def upgrade() -> None:
    """Add the columns, and make the search anew over both."""
    # ALTER TABLE takes no heed of the translation of schemas that the others rely on.
    schema = context.config.attributes["schema"]
    op.add_column("livejobs_documents", sa.Column("language", sa.Text()), schema=schema)
    for table in ("livejobs_chunks", "livejobs_draft_chunks"):
        op.add_column(table, sa.Column("stems", sa.Text()), schema=schema)
    if op.get_bind().dialect.name == "sqlite":
        _search_table()
        return
    op.drop_column("livejobs_chunks", "search", schema=schema)  # and its index
    op.add_column("livejobs_chunks", _search_column(), schema=schema)
    op.create_index(
        "ix_livejobs_chunks_search",
        "livejobs_chunks",
        ["search"],
        schema=SCHEMA,
        postgresql_using="gin",
    )


def _search_column() -> sa.Column[str]:
    """Words have weight A, stems B: a query says which it means, and words rank higher."""
    separators = SEPARATORS.replace("'", "''")
    words = f"translate(text, '{separators}', repeat(' ', {len(SEPARATORS)}))"
    return sa.Column(
        "search",
        postgresql.TSVECTOR(),
        sa.Computed(
            f"setweight(to_tsvector('simple'::regconfig, {words}), 'A') || "
            "setweight(to_tsvector('simple'::regconfig, coalesce(stems, '')), 'B')",
            persisted=True,
        ),
    )


def _search_table() -> None:
    for event in ("insert", "delete", "update"):
        op.execute(f"DROP TRIGGER livejobs_chunks_fts_{event}")
    op.execute("DROP TABLE livejobs_chunks_fts")
    op.execute(
        "CREATE VIRTUAL TABLE livejobs_chunks_fts USING fts5("
        "text, stems, content='livejobs_chunks', content_rowid='id', "
        "tokenize='unicode61 remove_diacritics 0')"
    )
    # An external-content table forgets a row only when it is given the row's old text.
    add = (
        "INSERT INTO livejobs_chunks_fts (rowid, text, stems) VALUES (new.id, new.text, new.stems);"
    )
    forget = (
        "INSERT INTO livejobs_chunks_fts (livejobs_chunks_fts, rowid, text, stems) "
        "VALUES ('delete', old.id, old.text, old.stems);"
    )
    for event, body in {"INSERT": add, "DELETE": forget, "UPDATE": f"{forget} {add}"}.items():
        op.execute(
            f"CREATE TRIGGER livejobs_chunks_fts_{event.lower()} AFTER {event} ON livejobs_chunks "
            f"BEGIN {body} END"
        )
    op.execute("INSERT INTO livejobs_chunks_fts (livejobs_chunks_fts) VALUES ('rebuild')")
