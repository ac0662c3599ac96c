"""`rag.ingest` on real files and both databases, without a broker."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib.resources import as_file
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from livejobs import attempts, transitions
from livejobs.database import Database
from livejobs.documents import ACCEPTED, IngestError, chunks, documents
from livejobs.drafts import Draft, find_draft
from livejobs.errors import JobCancelled
from livejobs.results import error_of
from livejobs.running import RunningJob
from livejobs.searching import search
from livejobs.settings import Settings
from livejobs.transitions import NewJob
from livejobs_worker.demo import HIDDEN_WORDS, demo_documents
from livejobs_worker.rag.ingest import PAGES_AT_ONCE, ingest, ingest_file, uploaded
from tests.files import pdf_file
from tests.support.rows import change

Upload = Callable[[str, bytes], str]


class WatchedJob(RunningJob):
    """A job that remembers what was reported to it; without an id, so that it needs no row.

    Attributes:
        reports: Stage, current and total of each progress.
        lines: The log.
        cancel_at: The stage in which somebody asks for it to be cancelled.
    """

    def __init__(self, owner: str = "", cancel_at: str | None = None) -> None:
        super().__init__("", 0, "", owner=owner)
        self.reports: list[tuple[str | None, float | None, float | None]] = []
        self.lines: list[str] = []
        self.cancel_at = cancel_at

    def progress(
        self,
        current: float | None = None,
        total: float | None = None,
        *,
        message: str | None = None,
        stage: str | None = None,
        **data: Any,
    ) -> None:
        """Remember it."""
        self.reports.append((stage, current, total))
        if stage == self.cancel_at:
            self.cancel_requested = True

    def log(self, text: str, level: str = "info") -> None:
        """Remember it."""
        self.lines.append(text)


@pytest.fixture
def upload(settings: Settings) -> Upload:
    """Leaves a file where the server leaves uploads; returns its name there."""
    folder = settings.data_dir / "uploads"
    folder.mkdir(parents=True)

    def leave(name: str, content: bytes) -> str:
        (folder / name).write_bytes(content)
        return name

    return leave


def names_found(
    database: Database, query: str, owner: str | None = None
) -> list[tuple[str, int | None]]:
    with database.begin() as connection:
        rows = connection.execute(search(owner, query, 10, database.engine.dialect.name))
        return [(row.name, row.page) for row in rows]


def test_ingested_pdf_is_found_by_its_last_page(database: Database, upload: Upload) -> None:
    content = pdf_file(["first page", "second page", "the marzipan page"], "A Title")
    result = ingest(upload("u1", content), "book.pdf", "ann")
    with database.begin() as connection:
        document = connection.execute(select(documents)).one()
    assert result == {
        "document_id": document.id,
        "name": "book.pdf",
        "pages": 3,
        "chunks": 3,
        "characters": len("first page" + "second page" + "the marzipan page"),
    }
    assert (document.owner, document.title, document.pages) == ("ann", "A Title", 3)
    assert (document.media_type, document.size) == (ACCEPTED[".pdf"], len(content))
    assert document.sha256 == hashlib.sha256(content).hexdigest()
    assert names_found(database, "marzipan", "ann") == [("book.pdf", 3)]


def test_demo_documents_are_found_by_their_hidden_words(database: Database, upload: Upload) -> None:
    for resource in demo_documents():
        with as_file(resource) as path:
            ingest(upload(resource.name, path.read_bytes()), resource.name)
    for name, word in HIDDEN_WORDS.items():
        ((found, page),) = names_found(database, word)
        assert (found, page) == (name, 30 if name.endswith(".pdf") else None)


def test_second_ingest_replaces_the_first(database: Database, upload: Upload) -> None:
    first = ingest(upload("u1", b"the old garden"), "notes.txt", "ann")
    second = ingest(upload("u2", b"the new house"), "notes.txt", "ann")
    assert second["document_id"] == first["document_id"]
    assert names_found(database, "garden") == []
    assert names_found(database, "house") == [("notes.txt", None)]


def test_stages_are_reported_with_totals(database: Database, upload: Upload) -> None:
    path = uploaded(upload("u1", pdf_file(["one", "", "three"])), "book.pdf")
    job = WatchedJob()
    ingest_file(path, "book.pdf", "ann", job)
    assert job.reports == [
        ("parse", 0, None),
        *[("parse", page, 3) for page in (1, 2, 3)],
        *[("index", chunk, 2) for chunk in (0, 2)],
    ]
    assert job.lines == [
        "1 page without text, perhaps pictures",
        "read “book”: 3 pages, 8 characters in 2 chunks",
        "book.pdf can be found now",
    ]


@pytest.mark.parametrize("stage", ["parse", "index"])
def test_cancelled_ingest_leaves_the_earlier_version(
    database: Database, upload: Upload, stage: str
) -> None:
    ingest(upload("u1", b"the old garden"), "notes.md", "ann")
    path = uploaded(upload("u2", b"the new house\n\n" * 10_000), "notes.md")
    with pytest.raises(JobCancelled):
        ingest_file(path, "notes.md", "ann", WatchedJob(cancel_at=stage))
    assert names_found(database, "garden") == [("notes.md", None)]
    assert names_found(database, "house") == []


def test_refused_file_is_an_error_in_words(database: Database, upload: Upload) -> None:
    with pytest.raises(IngestError) as refusal:
        ingest(upload("u1", pdf_file(["x"], user_password="secret")), "book.pdf", "ann")
    shown = error_of(refusal.value)
    assert (shown["type"], shown["code"]) == ("IngestError", "encrypted_file")
    assert shown["message"] == (
        "book.pdf is protected by a password: save it without one and send that."
    )
    with database.begin() as connection:
        assert connection.execute(select(chunks)).all() == []


def test_uploads_are_looked_for_only_in_their_folder(
    settings: Settings, upload: Upload, tmp_path: Path
) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_bytes(b"secret")
    folder = settings.data_dir / "uploads"
    (folder / "link").symlink_to(outside)
    (folder / "circle").symlink_to(folder / "circle")
    names = ["../../outside.txt", str(outside), "link", "circle", "", ".", "..", "gone", "a\0b"]
    for name in [*names, "x" * 5000]:
        with pytest.raises(IngestError, match=r"upload of notes\.txt is gone") as refusal:
            ingest(name, "notes.txt")
        assert refusal.value.code == "upload_missing"
    assert uploaded(upload("u1", b"text"), "notes.txt") == (folder / "u1").resolve()


def test_document_belongs_to_the_owner_of_the_job(
    database: Database, upload: Upload, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload("u1", b"the garden")
    for job_owner, asked_for, owner in [("ann", "bob", "ann"), ("", "bob", "bob")]:
        monkeypatch.setattr(
            "livejobs_worker.rag.ingest.current_job", lambda who=job_owner: WatchedJob(who)
        )
        ingest("u1", "notes.txt", asked_for)
        assert names_found(database, "garden", owner) == [("notes.txt", None)]


def test_attempt_after_one_that_died_when_all_was_done_says_what_came_of_it(
    database: Database, upload: Upload
) -> None:
    """It died between the commit of the document and that of the job's end."""
    pages = [f"page{number}" for number in range(PAGES_AT_ONCE + 5)]
    path = uploaded(upload("u1", pdf_file(pages)), "book.pdf")
    change(database, transitions.create(NewJob(id="job", task="t", queue="q", message={})))
    results = []
    for attempt in (1, 2):
        change(database, attempts.claim("job", attempt - 1, f"worker-{attempt}", 30.0))
        job = RunningJob("job", attempt, f"worker-{attempt}")
        results.append(ingest_file(path, "book.pdf", "ann", job))
        path.write_bytes(b"nobody reads it again")
        if attempt == 1:
            change(database, attempts.release("job", 1))
    assert results[0] == results[1]
    assert results[0]["pages"] == len(pages)
    assert len(job.along) == 1
    change(database, attempts.complete("job", 2, results[1], along=job.along))
    assert database.read(find_draft("job")) == Draft()
    assert names_found(database, "page3") == [("book.pdf", 4)]
