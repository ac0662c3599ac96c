"""What has had its time is removed, what is needed stays, and a person can be forgotten."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import Table, func, insert, select, text, update

from livejobs import attempts, transitions
from livejobs.cleanup import BATCH, Cleanup, Counts
from livejobs.database import Database
from livejobs.documents import NewChunk, NewDocument, documents, replace_document
from livejobs.drafts import Draft, drafts, keep_draft
from livejobs.entries import entries_key, head_key
from livejobs.live import Live
from livejobs.mails import mail_name, maildir, mails, message_id, prepare
from livejobs.models import SCHEMA_TOKEN, Base, db_now
from livejobs.purge import purge
from livejobs.running import RunningJob
from livejobs.settings import Settings
from livejobs.statements import Program, jobs
from livejobs.transitions import NewJob
from livejobs.uploads import add_upload, upload_folder, uploads
from livejobs.usage import NewUsage, record, usage
from livejobs.views import Status
from livejobs.webhooks import find_default, set_default
from tests.support.rows import change

DAY = 86_400.0


@pytest.fixture
def live(settings: Settings) -> Iterator[Live]:
    """Redis, as a worker uses it."""
    live = Live(settings)
    yield live
    live.close()


def table(name: str) -> Table:
    found: Table = Base.metadata.tables[f"{SCHEMA_TOKEN}.livejobs_{name}"]
    return found


def count(database: Database, of: Table) -> int:
    with database.begin() as connection:
        return int(connection.execute(select(func.count()).select_from(of)).scalar_one())


def clean(database: Database, live: Live, *, dry_run: bool = False) -> Counts:
    """What a run removes, without the kinds of which there was nothing."""
    run = Cleanup(database, live, live.settings, dry_run=dry_run)
    return {kind: count for kind, count in run.run(RunningJob("", 0, "")).items() if count}


def ended(database: Database, job_id: str, days: float, how: str = "completed", **more: Any) -> str:
    """A job that ended so many days ago."""
    new = NewJob(id=job_id, task="some.task", queue="celery", message={"headers": {}}, **more)
    change(database, transitions.create(new))
    row = change(database, attempts.claim(job_id, None, f"worker-{job_id}", 30.0))
    ends: dict[str, Program] = {
        "completed": attempts.complete(job_id, row.attempt, None),
        "failed": attempts.fail(job_id, row.attempt, {"type": "E", "message": "m"}),
        "cancelled": attempts.cancelled(job_id, row.attempt),
    }
    change(database, ends[how])
    with database.begin() as connection:
        connection.execute(
            update(jobs).where(jobs.c.id == job_id).values(completed_at=db_now(-days * DAY))
        )
    return job_id


def left(database: Database) -> set[str]:
    with database.begin() as connection:
        return set(connection.execute(select(jobs.c.id)).scalars())


def uploaded(database: Database, settings: Settings, name: str, job_id: str, days: float) -> Path:
    """An upload that came so many days ago, with its row."""
    database.run(add_upload(name, "ann", job_id, 1))
    with database.begin() as connection:
        connection.execute(
            update(uploads).where(uploads.c.name == name).values(created_at=db_now(-days * DAY))
        )
    return stored(settings, name, days)


def stored(settings: Settings, name: str, days: float) -> Path:
    """A file in the folder of uploads, so many days old."""
    folder = upload_folder(settings)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(b"x")
    moment = time.time() - days * DAY
    os.utime(path, (moment, moment))
    return path


def document(database: Database, name: str, upload: str | None, owner: str = "ann") -> None:
    new = NewDocument(
        owner=owner, name=name, media_type="text/plain", size=1, sha256="0", title=name,
        pages=None, chunks=1, upload=upload,
    )  # fmt: skip
    database.run(replace_document(new, [NewChunk(0, None, name)]))


# -- jobs ------------------------------------------------------------------------------------------


def test_jobs_are_kept_as_long_as_their_status_says(database: Database, live: Live) -> None:
    for how, days in (("completed", 30), ("failed", 90), ("cancelled", 30)):
        ended(database, f"old-{how}", days + 0.1, how)
        ended(database, f"young-{how}", days - 0.1, how)
    running = NewJob(id="running", task="t", queue="q", message={})
    change(database, transitions.create(running))
    expected = {"completed_jobs": 1, "failed_jobs": 1, "cancelled_jobs": 1}
    assert clean(database, live, dry_run=True) == expected
    assert len(left(database)) == 7
    assert clean(database, live) == expected
    assert left(database) == {"young-completed", "young-failed", "young-cancelled", "running"}
    assert clean(database, live) == {}


def test_zero_days_keep_jobs_for_ever(database: Database, settings: Settings, live: Live) -> None:
    ended(database, "old", 10_000)
    for_ever = settings.model_copy(update={"keep_completed_days": 0.0})
    Cleanup(database, live, for_ever).run(RunningJob("", 0, ""))
    assert left(database) == {"old"}


def test_removed_jobs_leave_nothing_in_database_and_redis(
    database: Database, settings: Settings, live: Live
) -> None:
    ended(database, "old", 31)
    with database.begin() as connection:
        values = {"job_id": "old", "attempt": 1, "n": 1, "kind": "log", "body": "{}"}
        connection.execute(insert(table("entries")).values(at=db_now(), **values))
    with redis.Redis.from_url(settings.redis_url) as client:
        client.hset(head_key("old"), "attempt", 1)
        client.xadd(entries_key("old"), {"x": 1})
        told = client.pubsub()
        told.subscribe("lj:{old}")
        told.get_message(timeout=5)
        assert clean(database, live) == {"completed_jobs": 1}
        assert client.exists(head_key("old"), entries_key("old")) == 0
        message = told.get_message(timeout=5)
        assert message is not None
        assert b" gone\n" in message["data"]
        told.close()
    for name in ("jobs", "events", "entries"):
        assert count(database, table(name)) == 0, name
    with database.begin() as connection:
        assert connection.execute(select(table("deletions").c.job_id)).scalars().all() == ["old"]


def test_children_stay_as_long_as_their_parent_runs(database: Database, live: Live) -> None:
    for parent in ("open", "over"):
        change(database, transitions.create(NewJob(id=parent, task="t", queue="q", message={})))
        ended(database, f"child-{parent}", 40, parent_id=parent)
    row = change(database, attempts.claim("over", None, "worker", 30.0))
    change(database, attempts.complete("over", row.attempt, None))
    clean(database, live)
    assert left(database) == {"open", "over", "child-open"}


def test_more_jobs_than_a_batch_go_in_several(database: Database, live: Live) -> None:
    with database.begin() as connection:
        old = {"task": "t", "queue": "q", "message": {}, "status": Status.COMPLETED}
        times = dict.fromkeys(("created_at", "updated_at", "completed_at"), db_now(-40 * DAY))
        rows = [{"id": f"job-{n}", **old} for n in range(2 * BATCH + 1)]
        connection.execute(insert(jobs).values(**times), rows)
    assert clean(database, live) == {"completed_jobs": 2 * BATCH + 1}
    assert left(database) == set()


def test_redis_that_is_away_stops_no_cleanup(database: Database, settings: Settings) -> None:
    ended(database, "old", 31)
    away = Live(settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"}))
    assert clean(database, away) == {"completed_jobs": 1}
    away.close()


# -- credentials -----------------------------------------------------------------------------------


def credentials(database: Database, owner: str, seconds: float) -> None:
    """A session, a ticket and a remembered answer that end so many seconds from now."""
    viewer = {"owner": owner, "scopes": ["read"]}
    name = f"{owner}{seconds}"
    with database.begin() as connection:
        ends = {"hash": name, "viewer": viewer, "expires_at": db_now(seconds)}
        connection.execute(insert(table("sessions")).values(created_at=db_now(), **ends))
        connection.execute(insert(table("tickets")).values(**ends))
        answer = {"owner": owner, "key": name, "request_hash": "0"}
        connection.execute(
            insert(table("answers")).values(created_at=db_now(seconds - DAY), **answer)
        )


def test_expired_credentials_are_removed(database: Database, live: Live) -> None:
    credentials(database, "ann", -1.0)
    credentials(database, "ann", 60.0)
    expected = {"sessions": 1, "tickets": 1, "answers": 1}
    assert clean(database, live, dry_run=True) == expected
    assert clean(database, live) == expected
    for name in expected:
        assert count(database, table(name)) == 1, name


# -- uploads ---------------------------------------------------------------------------------------


def test_uploads_that_nobody_needs_are_removed(
    database: Database, settings: Settings, live: Live
) -> None:
    ended(database, "failed", 1, "failed")
    of_job = uploaded(database, settings, "of-a-job-to-be-retried", "failed", 5)
    of_document = uploaded(database, settings, "of-a-document", "gone", 5)
    document(database, "notes.txt", "of-a-document")
    unused = uploaded(database, settings, "unused", "gone", 5)
    new = uploaded(database, settings, "new", "gone", 0.5)
    without_row = stored(settings, "without-row", 5)
    broken_off = stored(settings, "broken-off.part", 5)
    on_its_way = stored(settings, "on-its-way", 0.5)
    uploaded(database, settings, "without-file", "failed", 5).unlink()
    expected = {"unused_uploads": 1, "uploads_without_file": 1, "files_without_upload": 2}
    assert clean(database, live, dry_run=True) == expected
    assert all(path.exists() for path in (unused, without_row, broken_off))
    assert clean(database, live) == expected
    assert all(path.exists() for path in (of_job, of_document, new, on_its_way))
    assert not any(path.exists() for path in (unused, without_row, broken_off))
    assert count(database, uploads) == 3
    assert clean(database, live) == {}


def test_upload_goes_with_the_last_that_needs_it(
    database: Database, settings: Settings, live: Live
) -> None:
    ended(database, "old", 31)
    ended(database, "old-too", 31)
    file = uploaded(database, settings, "file", "old", 31)
    kept = uploaded(database, settings, "kept", "old-too", 31)
    document(database, "notes.txt", "kept")
    assert clean(database, live) == {"completed_jobs": 2}
    assert not file.exists()
    assert kept.exists()


def test_upload_with_a_name_that_leads_elsewhere_removes_nothing(
    database: Database, settings: Settings, live: Live, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"x")
    upload_folder(settings).mkdir(parents=True)
    database.run(add_upload(f"../../{outside.name}", "ann", "gone", 1))
    database.run(add_upload(str(outside), "ann", "gone", 1))
    with database.begin() as connection:
        connection.execute(update(uploads).values(created_at=db_now(-5 * DAY)))
    assert clean(database, live) == {"unused_uploads": 2}
    assert outside.exists()


# -- mails -----------------------------------------------------------------------------------------


def mailed(database: Database, settings: Settings, job_id: str, owner: str = "ann") -> Path:
    """A mail of a job, in the maildir; where it is, after a mail program has seen it."""
    known_as = message_id(job_id, 0, "example.com")
    database.run(prepare(owner, job_id, 0, known_as, "ada@example.com"))
    path = maildir(settings) / "cur" / f"{mail_name(job_id, 0)}:2,S"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("Hello")
    return path


def test_what_is_known_of_mails_goes_with_their_jobs(
    database: Database, settings: Settings, live: Live
) -> None:
    ended(database, "there", 1)
    paths = {job_id: mailed(database, settings, job_id) for job_id in ("there", "gone", "young")}
    with database.begin() as connection:
        old = update(mails).where(mails.c.job_id != "young")
        connection.execute(old.values(created_at=db_now(-1.1 * DAY)))
    assert clean(database, live, dry_run=True) == {"mails": 1}
    assert clean(database, live) == {"mails": 1}
    assert {job_id: path.exists() for job_id, path in paths.items()} == {
        "there": True,
        "gone": False,
        "young": True,
    }
    assert count(database, mails) == 2


def test_drafts_of_jobs_that_are_over_are_kept_for_a_day(
    database: Database, settings: Settings, live: Live
) -> None:
    for job_id in ("old", "young", "running"):
        change(database, transitions.create(NewJob(id=job_id, task="t", queue="q", message={})))
        change(database, attempts.claim(job_id, None, f"worker-{job_id}", 30.0))
        piece = NewChunk(0, 1, "read so far")
        assert database.run(keep_draft(job_id, 1, Draft(pages=1, chunks=1), [piece])) is not None
        if job_id != "running":
            failed = {"type": "E", "message": "m"}
            change(database, attempts.fail(job_id, 1, failed))
    with database.begin() as connection:
        old = update(drafts).where(drafts.c.job_id != "young")
        connection.execute(old.values(updated_at=db_now(-1.1 * DAY)))
    assert clean(database, live, dry_run=True) == {"drafts": 1}
    assert clean(database, live) == {"drafts": 1}
    assert count(database, drafts) == count(database, table("draft_chunks")) == 2


# -- forgetting ------------------------------------------------------------------------------------


def test_purge_removes_all_that_is_an_owners_and_nothing_else(
    database: Database, settings: Settings, live: Live
) -> None:
    paths, letters = {}, {}
    for owner in ("ann", "bob"):
        credentials(database, owner, 60.0)
        ended(database, f"{owner}-old", 1, owner=owner)
        change(database, transitions.create(
            NewJob(id=f"{owner}-open", task="t", queue="q", message={}, owner=owner)
        ))  # fmt: skip
        document(database, "notes.txt", f"file-of-{owner}", owner)
        used = NewUsage(customer="cus_1", meter="tokens", value=3, key="job-1", owner=owner)
        database.run(record(used))
        database.run(add_upload(f"file-of-{owner}", owner, f"{owner}-old", 1))
        paths[owner] = stored(settings, f"file-of-{owner}", 0)
        database.run(set_default(owner, "https://example.com/"))
        letters[owner] = mailed(database, settings, f"{owner}-old", owner)
        with database.begin() as connection:
            key: dict[str, Any] = {
                "id": owner,
                "hash": "0",
                "owner": owner,
                "scopes": [],
                "created_at": db_now(),
            }
            connection.execute(insert(table("api_keys")).values(**key))
    with redis.Redis.from_url(settings.redis_url) as client:
        client.hset(head_key("ann-old"), "attempt", 1)
        counts = purge(database, live, settings, "ann")
        assert client.exists(head_key("ann-old")) == 0
    assert counts == {
        "keys": 1,
        "sessions": 1,
        "tickets": 1,
        "webhooks": 1,
        "jobs": 2,
        "mails": 1,
        "documents": 1,
        "uploads": 1,
        "answers": 1,
        "usage_made_nobodys": 1,
    }
    with database.begin() as connection:
        shown = connection.execute(select(usage.c.owner, usage.c.value).order_by(usage.c.owner))
        assert shown.all() == [("", 3), ("bob", 3)]
    assert left(database) == {"bob-old", "bob-open"}
    assert database.read(find_default("ann")) is None
    assert database.read(find_default("bob")).url == "https://example.com/"
    assert not paths["ann"].exists()
    assert paths["bob"].exists()
    assert (letters["ann"].exists(), letters["bob"].exists()) == (False, True)
    assert count(database, mails) == 1
    for name in ("api_keys", "sessions", "tickets", "answers", "documents", "uploads", "chunks"):
        assert count(database, table(name)) == 1, name
    assert count(database, table("deletions")) == 0
    with database.begin() as connection:
        assert connection.execute(select(documents.c.owner)).scalars().all() == ["bob"]
    assert not any(purge(database, live, settings, "ann").values())


def test_purge_of_nobody_is_refused(database: Database, settings: Settings, live: Live) -> None:
    with pytest.raises(ValueError, match="owner"):
        purge(database, live, settings, "")


# -- tables of an earlier version ------------------------------------------------------------------


def test_uploads_from_before_they_had_rows_are_taken_over(database: Database) -> None:
    from alembic import command

    from livejobs.database import alembic_config

    config = alembic_config(database.settings)
    new = NewJob(
        id="job", task="rag.ingest", queue="q", message={}, owner="ann", idempotency_key="a.pdf"
    )
    change(database, transitions.create(new))
    with database.begin() as connection:
        connection.execute(text("DELETE FROM livejobs_alembic_version"))
        connection.execute(text("INSERT INTO livejobs_alembic_version VALUES ('0007')"))
        for name in ("livejobs_uploads", "livejobs_schedule"):
            connection.execute(text(f"DROP TABLE {name}"))
        for name in ("ix_livejobs_documents_upload", "ix_livejobs_jobs_ended"):
            connection.execute(text(f"DROP INDEX {name}"))
        connection.execute(text("ALTER TABLE livejobs_documents DROP COLUMN upload"))
    with database.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0008")
        row = connection.execute(select(uploads)).one()
    assert (row.name, row.owner, row.job_id) == ("a.pdf", "ann", "job")
