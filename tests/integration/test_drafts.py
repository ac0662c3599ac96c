"""What is kept of a document while it is read, on both databases."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select

from livejobs import attempts, transitions
from livejobs.cleanup import remove_jobs
from livejobs.database import Database
from livejobs.documents import NewChunk, NewDocument, chunks, documents
from livejobs.drafts import (
    Draft,
    DraftChunkRow,
    close_draft,
    drafts,
    find_draft,
    keep_draft,
    publish,
)
from livejobs.statements import jobs
from livejobs.transitions import NewJob
from tests.support.rows import change

PIECES = [NewChunk(number, number + 1, f"page {number + 1}") for number in range(6)]
NEW = NewDocument(
    owner="ann", name="a.pdf", media_type="application/pdf", size=1, sha256="0", title="A",
    pages=6, chunks=6, job_id="job",
)  # fmt: skip


@pytest.fixture
def claimed(database: Database) -> Database:
    """A database with a job that runs, in its first attempt."""
    change(database, transitions.create(NewJob(id="job", task="t", queue="q", message={})))
    change(database, attempts.claim("job", None, "worker", 30.0))
    return database


def read(pages: int) -> Draft:
    return Draft(pages=pages, blank=0, characters=6 * pages, chunks=pages)


def kept(database: Database) -> int:
    with database.begin() as connection:
        count = select(func.count()).select_from(DraftChunkRow)
        return int(connection.execute(count).scalar_one())


def texts(database: Database) -> list[str]:
    with database.begin() as connection:
        return list(connection.execute(select(chunks.c.text).order_by(chunks.c.id)).scalars())


def test_draft_becomes_a_document_at_the_end(claimed: Database) -> None:
    draft = claimed.run(keep_draft("job", 1, read(2), PIECES[:2]))
    assert draft == read(2)._replace(kept=2) == claimed.read(find_draft("job"))
    draft = claimed.run(keep_draft("job", 1, read(4)._replace(kept=2), PIECES[2:4]))
    assert draft == read(4)._replace(kept=4)
    assert texts(claimed) == []
    made = claimed.run(publish("job", 1, read(6)._replace(kept=4), NEW, PIECES[4:]))
    assert made is not None
    with claimed.begin() as connection:
        assert made.document_id == connection.execute(select(documents.c.id)).scalar_one()
    assert texts(claimed) == [piece.text for piece in PIECES]
    assert kept(claimed) == 0
    assert claimed.read(find_draft("job")).document_id == made.document_id
    claimed.run(close_draft("job"))
    assert claimed.read(find_draft("job")) == Draft()


def test_answer_that_was_lost_changes_nothing(claimed: Database) -> None:
    for _ in range(2):
        claimed.run(keep_draft("job", 1, read(4), PIECES[:4]))
    assert kept(claimed) == 4
    first, second = (
        claimed.run(publish("job", 1, read(6)._replace(kept=4), NEW, PIECES[4:])) for _ in range(2)
    )
    assert first is not None
    assert second is not None
    assert second.document_id == first.document_id
    assert (second.pages, second.chunks, second.characters) == (6, 6, 36)
    assert texts(claimed) == [piece.text for piece in PIECES]


def test_attempt_that_was_given_up_keeps_and_publishes_nothing(claimed: Database) -> None:
    claimed.run(keep_draft("job", 1, read(2), PIECES[:2]))
    change(claimed, attempts.release("job", 1))
    change(claimed, attempts.claim("job", 1, "another", 30.0))
    assert claimed.run(keep_draft("job", 1, read(4), PIECES[2:4])) is None
    assert claimed.run(publish("job", 1, read(6), NEW, PIECES)) is None
    assert kept(claimed) == claimed.read(find_draft("job")).pages == 2
    assert texts(claimed) == []
    assert claimed.run(keep_draft("job", 2, read(4), PIECES[2:4])) is not None
    assert kept(claimed) == 4


def test_draft_goes_with_its_job(claimed: Database) -> None:
    claimed.run(keep_draft("job", 1, read(2), PIECES[:2]))
    claimed.run(remove_jobs(jobs.c.id == "job"))
    assert kept(claimed) == 0
    with claimed.begin() as connection:
        assert connection.execute(select(drafts)).all() == []
