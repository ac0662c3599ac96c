"""What of a document is kept while it is read, so that another attempt goes on after it.

The pages that are done are kept as their chunks, beside those of documents, where no search finds
them; at the end they become the document's, in one statement. All programs here are fenced like
those of `attempts`: of a job, only the attempt that runs can keep or publish anything. Without a
job, for code that calls the task's function, nothing is kept and there is nothing to fence.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import ForeignKey, Integer, Table, Text, delete, literal, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.sql.base import Executable

from .documents import NewChunk, NewDocument, add_chunks, chunks, replace_document
from .models import SCHEMA_TOKEN, Base, UtcDateTime, db_now
from .statements import Batch, Rows, jobs, running_attempt

Steps = Generator[Executable | Batch, Rows, Any]


class DraftRow(Base):
    """How far a job has come with its document; it goes with the job, at the latest."""

    __tablename__ = "livejobs_drafts"

    job_id: Mapped[str] = mapped_column(
        Text, ForeignKey(f"{SCHEMA_TOKEN}.livejobs_jobs.id", ondelete="CASCADE"), primary_key=True
    )
    pages: Mapped[int] = mapped_column(Integer, doc="So many of them are kept.")
    blank: Mapped[int] = mapped_column(Integer, doc="Of these, those without text.")
    characters: Mapped[int] = mapped_column(Integer)
    chunks: Mapped[int] = mapped_column(Integer)
    document_id: Mapped[str | None] = mapped_column(Text, doc="What it has become.")
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class DraftChunkRow(Base):
    """A chunk of the pages that are kept; see `ChunkRow`."""

    __tablename__ = "livejobs_draft_chunks"

    job_id: Mapped[str] = mapped_column(
        Text,
        ForeignKey(f"{SCHEMA_TOKEN}.livejobs_drafts.job_id", ondelete="CASCADE"),
        primary_key=True,
    )
    ordinal: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    page: Mapped[int | None] = mapped_column(Integer)
    text: Mapped[str] = mapped_column(Text)
    stems: Mapped[str | None] = mapped_column(Text)


drafts: Final[Table] = Base.metadata.tables[f"{SCHEMA_TOKEN}.livejobs_drafts"]
_kept: Final[Table] = Base.metadata.tables[f"{SCHEMA_TOKEN}.livejobs_draft_chunks"]


class Draft(NamedTuple):
    """How far a document has been read.

    Attributes:
        pages: So many pages, or pieces of a kind that has none.
        blank: Of these, those without text.
        characters: Of text.
        chunks: It was cut into.
        kept: So many of the pages are in the database.
        document_id: What it has become; None: nothing yet.
    """

    pages: int = 0
    blank: int = 0
    characters: int = 0
    chunks: int = 0
    kept: int = 0
    document_id: str | None = None


def find_draft(job_id: str) -> Generator[Executable | Batch, Rows, Draft]:
    """A program that reads how far earlier attempts of a job have come."""
    rows = yield select(drafts).where(drafts.c.job_id == job_id)
    return Draft() if not rows else _draft(rows[0])


def keep_draft(
    job_id: str, attempt: int, draft: Draft, pieces: Iterable[NewChunk]
) -> Generator[Executable | Batch, Rows, Draft | None]:
    """A program that keeps what was read since the last time.

    Args:
        draft: With all of it.
        pieces: The chunks that are not kept yet.

    Returns:
        The draft as it is kept; None: the attempt is not what runs any more.
    """
    if not (yield from _stands(job_id, attempt)):
        return None
    sums = {**_sums(draft), "updated_at": db_now()}
    added = insert(drafts).values(job_id=job_id, **sums)
    yield added.on_conflict_do_update(index_elements=["job_id"], set_=sums)
    # Those that are there were committed by a try whose answer was lost.
    into = insert(_kept).values(job_id=job_id).on_conflict_do_nothing()
    yield from add_chunks(into, pieces)
    return draft._replace(kept=draft.pages)


def publish(
    job_id: str, attempt: int, draft: Draft, new: NewDocument, pieces: Iterable[NewChunk]
) -> Generator[Executable | Batch, Rows, Draft | None]:
    """A program that makes a document of a draft, in place of its predecessor.

    Args:
        draft: All that was read.
        pieces: The chunks that are not kept.

    Returns:
        The draft with its document; None: the attempt is not what runs any more.
    """
    if job_id and not (yield from _stands(job_id, attempt)):
        return None
    if not draft.kept:
        document_id = yield from replace_document(new, pieces)
        return draft._replace(document_id=document_id)
    before = yield from find_draft(job_id)
    if before.document_id is not None:
        return before  # by a try whose answer was lost
    document_id = yield from replace_document(new, pieces, lambda made: _hand_over(job_id, made))
    done = update(drafts).where(drafts.c.job_id == job_id)
    yield done.values(**_sums(draft), document_id=document_id, updated_at=db_now())
    return draft._replace(document_id=document_id)


def close_draft(job_id: str) -> Steps:
    """A program for the end of a job: what is known of its draft goes."""
    return (yield delete(drafts).where(drafts.c.job_id == job_id))


def _hand_over(job_id: str, document_id: str) -> Steps:
    """What was kept becomes the document's."""
    columns = ("ordinal", "page", "text", "stems")
    mine = _kept.c.job_id == job_id
    kept = select(literal(document_id), *(_kept.c[name] for name in columns)).where(mine)
    yield insert(chunks).from_select(["document_id", *columns], kept.order_by(_kept.c.ordinal))
    yield delete(_kept).where(mine)


def _sums(draft: Draft) -> dict[str, int]:
    return {name: getattr(draft, name) for name in ("pages", "blank", "characters", "chunks")}


def _stands(job_id: str, attempt: int) -> Generator[Executable | Batch, Rows, bool]:
    # The weakest lock there is: it holds off a deletion, and leases are renewed meanwhile.
    standing = select(jobs.c.id).where(running_attempt(job_id, attempt))
    return bool((yield standing.with_for_update(read=True, key_share=True)))


def _draft(row: Any) -> Draft:
    return Draft(
        pages=row.pages,
        blank=row.blank,
        characters=row.characters,
        chunks=row.chunks,
        kept=row.pages,
        document_id=row.document_id,
    )
