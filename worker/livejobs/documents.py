"""Documents that people put in, cut into chunks that a search finds; see `searching`.

Workers write them, servers list them; both take their statements from here.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Final
from uuid import uuid4

from sqlalchemy import (
    BigInteger,
    ForeignKey,
    Index,
    Integer,
    Row,
    Table,
    Text,
    UniqueConstraint,
    delete,
    literal,
    select,
    tuple_,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.sql.base import Executable
from sqlalchemy.sql.expression import ColumnElement

from .file_kinds import ACCEPTED, IngestError, document_name, sniff
from .models import SCHEMA_TOKEN, Base, UtcDateTime, db_now
from .statements import Batch, Rows

__all__ = [
    "ACCEPTED",
    "ChunkRow",
    "DocumentRow",
    "IngestError",
    "NewChunk",
    "NewDocument",
    "chunks",
    "document_name",
    "documents",
    "find_document",
    "list_documents",
    "remove_document",
    "replace_document",
    "sniff",
]

Steps = Generator[Executable | Batch, Rows, Any]

CHUNKS_IN_A_BATCH: Final = 500


class DocumentRow(Base):
    """A document; an owner has one of each name."""

    __tablename__ = "livejobs_documents"
    __table_args__ = (
        UniqueConstraint("owner", "name"),
        Index("ix_livejobs_documents_upload", "upload"),
    )

    id: Mapped[str] = mapped_column(Text, primary_key=True, doc="Stays when it is replaced.")
    owner: Mapped[str] = mapped_column(Text, doc="Empty: nobody's.")
    name: Mapped[str] = mapped_column(Text, doc="The file's name, without folders.")
    media_type: Mapped[str] = mapped_column(Text)
    size: Mapped[int] = mapped_column(BigInteger, doc="Of the file, in bytes.")
    sha256: Mapped[str] = mapped_column(Text, doc="Of the file, hex.")
    title: Mapped[str] = mapped_column(Text)
    pages: Mapped[int | None] = mapped_column(Integer, doc="None: its kind has no pages.")
    chunks: Mapped[int] = mapped_column(Integer)
    language: Mapped[str | None] = mapped_column(Text, doc="Of its stems; None: it has none.")
    job_id: Mapped[str | None] = mapped_column(Text, doc="The job that ingested it last.")
    upload: Mapped[str | None] = mapped_column(Text, doc="The file it is made of, see `uploads`.")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ChunkRow(Base):
    """A piece of a document's text, small enough to be shown and searched."""

    __tablename__ = "livejobs_chunks"
    __table_args__ = (UniqueConstraint("document_id", "ordinal"),)

    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=True
    )
    document_id: Mapped[str] = mapped_column(
        Text, ForeignKey(f"{SCHEMA_TOKEN}.livejobs_documents.id", ondelete="CASCADE")
    )
    ordinal: Mapped[int] = mapped_column(Integer, doc="Its place in the document, from 0.")
    page: Mapped[int | None] = mapped_column(Integer, doc="From 1; None: the kind has no pages.")
    text: Mapped[str] = mapped_column(Text)
    stems: Mapped[str | None] = mapped_column(Text, doc="Of its words, in the document's language.")


documents: Final[Table] = Base.metadata.tables[f"{SCHEMA_TOKEN}.livejobs_documents"]
chunks: Final[Table] = Base.metadata.tables[f"{SCHEMA_TOKEN}.livejobs_chunks"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDocument:
    """A document to keep; see `DocumentRow` for the fields."""

    owner: str
    name: str
    media_type: str
    size: int
    sha256: str
    title: str
    pages: int | None
    chunks: int
    language: str | None = None
    job_id: str | None = None
    upload: str | None = None


@dataclass(frozen=True, slots=True)
class NewChunk:
    """A chunk to keep; see `ChunkRow` for the fields."""

    ordinal: int
    page: int | None
    text: str
    stems: str | None = None


def replace_document(
    new: NewDocument,
    pieces: Iterable[NewChunk],
    before: Callable[[str], Steps] | None = None,
) -> Generator[Executable | Batch, Rows, str]:
    """A program, like those of `transitions`, that keeps a document in place of its predecessor.

    The first statement locks the row of this owner and name, so that of two ingests at a time the
    second waits, and then replaces the first's chunks too.

    Args:
        before: A program that adds the chunks before `pieces`, given the document's id.

    Returns:
        The document's id; the predecessor's, where there was one.
    """
    values = asdict(new)
    added = insert(documents).values(
        **values, id=uuid4().hex, created_at=db_now(), updated_at=db_now()
    )
    changed = [name for name in values if name not in ("owner", "name")] + ["updated_at"]
    rows = yield added.on_conflict_do_update(
        index_elements=["owner", "name"], set_={name: added.excluded[name] for name in changed}
    ).returning(documents.c.id)
    document_id: str = rows[0].id
    yield delete(chunks).where(chunks.c.document_id == document_id)
    if before is not None:
        yield from before(document_id)
    yield from add_chunks(insert(chunks).values(document_id=document_id), pieces)
    return document_id


def add_chunks(into: Executable, pieces: Iterable[NewChunk]) -> Steps:
    """A program that adds chunks, by an INSERT that says whose they are."""
    remaining = iter(pieces)
    while batch := list(islice(remaining, CHUNKS_IN_A_BATCH)):
        yield into, [asdict(piece) for piece in batch]


def list_documents(
    owner: str | None, after: tuple[str, str] | None, limit: int
) -> Generator[Executable | Batch, Rows, Rows]:
    """A program that reads documents by name.

    Args:
        owner: Whose; None: everybody's.
        after: Name and id of the last one of the page before.
        limit: Most rows.
    """
    statement = select(documents).order_by(documents.c.name, documents.c.id).limit(limit)
    if owner is not None:
        statement = statement.where(documents.c.owner == owner)
    if after is not None:
        last = tuple_(literal(after[0], Text), literal(after[1], Text))
        statement = statement.where(tuple_(documents.c.name, documents.c.id) > last)
    return (yield statement)


def find_document(
    document_id: str, owner: str | None
) -> Generator[Executable | Batch, Rows, Row[Any] | None]:
    """A program that reads a document; None: there is none, or it is another one's."""
    rows = yield select(documents).where(*_one(document_id, owner))
    return rows[0] if rows else None


def remove_document(
    document_id: str, owner: str | None
) -> Generator[Executable | Batch, Rows, Row[Any] | None]:
    """A program that deletes a document and its chunks; the row that was."""
    rows = yield delete(documents).where(*_one(document_id, owner)).returning(documents)
    return rows[0] if rows else None


def _one(document_id: str, owner: str | None) -> list[ColumnElement[bool]]:
    mine = [] if owner is None else [documents.c.owner == owner]
    return [documents.c.id == document_id, *mine]
