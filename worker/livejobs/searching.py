"""The search in documents: by the database's own full-text search, which migrations set up.

On SQLite it is an FTS5 table kept in step by triggers, ranked by bm25, on PostgreSQL a generated
column `search` with a GIN index, ranked by `ts_rank_cd`. Both index two texts of a chunk: its
words, which are runs of letters and digits in any case, and their stems, where the document has a
language. What a query means is decided in `search_query`, once for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    Integer,
    Row,
    Select,
    Text,
    column,
    false,
    func,
    literal,
    literal_column,
    select,
    table,
)
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.sql.expression import ColumnElement

from .documents import chunks, documents
from .search_query import fts5_query, parse_query, snippet, tsquery

Rows = Sequence[Row[Any]]

# Only in the database: neither exists on the other one, so they are no part of the tables above.
_fts5 = table("livejobs_chunks_fts", column("rowid", Integer))
_fts5_itself: ColumnElement[str] = literal_column("livejobs_chunks_fts", Text)
_tsvector: ColumnElement[Any] = literal_column("livejobs_chunks.search", TSVECTOR)


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that a search found.

    Attributes:
        document_id: Its document.
        name: The document's name.
        page: From 1; None where the kind has no pages.
        ordinal: Its place in the document, from 0.
        snippet: HTML: escaped text, each word hit within ``<mark>``.
        score: Larger is better; it compares only within one answer.
    """

    document_id: str
    name: str
    page: int | None
    ordinal: int
    snippet: str
    score: float


def search(
    owner: str | None, query: str, limit: int, dialect: str, language: str | None = None
) -> Select[Any]:
    """The chunks that hold all terms of a person's query, the best first; see `search_query`.

    Args:
        owner: Whose documents; None: everybody's.
        query: What the person typed. Without a word in it nothing is found; nothing is an error.
        limit: Most rows.
        dialect: `sqlite` or `postgresql`.
        language: Whose forms of words are found too, in documents of that language; None: none.

    Returns:
        Rows of document_id, name, page, ordinal, text and score, for `hits`.
    """
    terms = parse_query(query, language)
    if not terms:
        return _found(literal(0.0)).where(false())
    if dialect == "sqlite":
        # bm25 is the smaller the better.
        found = _found(-func.bm25(_fts5_itself, *_WEIGHTS)).join(
            _fts5, _fts5.c.rowid == chunks.c.id
        )
        found = found.where(_fts5_itself.op("MATCH")(fts5_query(terms)))
    else:
        wanted = func.to_tsquery("simple", tsquery(terms))
        found = _found(func.ts_rank_cd(_tsvector, wanted, _BY_LOG_OF_LENGTH))
        found = found.where(_tsvector.op("@@")(wanted))
    if owner is not None:
        found = found.where(documents.c.owner == owner)
    return found.order_by(column("score").desc(), chunks.c.id).limit(limit)


def hits(rows: Rows, query: str, language: str | None = None) -> list[Hit]:
    """What `search` found, with snippets.

    Made here, so that both databases give the same ones, with the text escaped around the marks.
    It takes some milliseconds: on an event loop, leave it to a thread.
    """
    terms = parse_query(query, language)
    return [
        Hit(row.document_id, row.name, row.page, row.ordinal, snippet(row.text, terms), row.score)
        for row in rows
    ]


_WEIGHTS: Final = (1.0, 0.4)
"""Of words and of stems in bm25; PostgreSQL's weights A and B are the same."""
_BY_LOG_OF_LENGTH: Final = 1
"""Normalisation of `ts_rank_cd`: a long chunk does not win by its length alone."""


def _found(score: ColumnElement[float]) -> Select[Any]:
    return select(
        chunks.c.document_id,
        documents.c.name,
        chunks.c.page,
        chunks.c.ordinal,
        chunks.c.text,
        score.label("score"),
    ).join_from(chunks, documents, documents.c.id == chunks.c.document_id)
