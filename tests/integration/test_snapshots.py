"""The state a new viewer is shown, over both databases and a real Valkey that loses its data."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from livejobs.database import AsyncDatabase
from livejobs.entries import START, Cursor, entries_key, head_key
from livejobs.errors import DatabaseUnavailable
from livejobs.live import AsyncLive
from livejobs.settings import Settings
from livejobs_server import snapshots
from livejobs_server.push.exchange import Read, Snapshot
from livejobs_server.snapshots import SnapshotReader, can_exist
from tests.support.led_jobs import LedJob, MakeJob, entry_text
from tests.support.waiting import wait_until_async

pytest_plugins = ["tests.support.live_stack"]

TICKET = 7


@pytest.fixture
def reader(async_database: AsyncDatabase, live: AsyncLive, settings: Settings) -> SnapshotReader:
    return SnapshotReader(async_database, live, settings)


async def read(
    reader: SnapshotReader, job_id: str, after: Cursor | None = START, tail: int | None = None
) -> Snapshot:
    answer = await reader.read([Read(job_id, after, tail, TICKET)])
    assert list(answer) == [TICKET]
    return answer[TICKET]


def texts(snapshot: Snapshot) -> list[str]:
    messages = [json.loads(entry.payload) for entry in snapshot.entries]
    assert [message["type"] for message in messages] == [e.kind for e in snapshot.entries]
    assert {message["job_id"] for message in messages} <= {snapshot.job_id}
    assert [message["id"] for message in messages] == [
        f"{snapshot.attempt}-{entry.n}" for entry in snapshot.entries
    ]
    return [entry_text(message) for message in messages]


def shown(snapshot: Snapshot) -> dict[str, Any]:
    view: dict[str, Any] = json.loads(snapshot.view)
    return view


async def told(make_job: MakeJob, count: int, saved: int = 0) -> LedJob:
    """A running job with `count` entries, the first `saved` of them in the database."""
    job = await make_job()
    await job.claim()
    await job.say(*(f"line {n}" for n in range(1, saved + 1)))
    await job.save()
    await job.say(*(f"line {n}" for n in range(saved + 1, count + 1)))
    return job


# -- the view ------------------------------------------------------------------------------------


async def test_snapshot_of_an_unknown_job_is_not_found(reader: SnapshotReader) -> None:
    assert not (await read(reader, "nobody")).found


@pytest.mark.parametrize("job_id", ["a\0b", "\ud800", "", "x" * 256])
async def test_snapshot_of_an_impossible_id_is_not_found(
    reader: SnapshotReader, job_id: str
) -> None:
    assert not can_exist(job_id)
    assert not (await read(reader, job_id)).found
    assert await reader.view(job_id) is None


async def test_snapshot_of_a_pending_job_has_its_row(
    reader: SnapshotReader, make_job: MakeJob
) -> None:
    job = await make_job(owner="alice", tags={"doc": "a.pdf"})
    snapshot = await read(reader, job.id)
    assert (snapshot.found, snapshot.owner, snapshot.final) == (True, "alice", False)
    assert (snapshot.attempt, snapshot.version, snapshot.last) == (0, 1, 0)
    view = shown(snapshot)
    assert view["status"] == "pending"
    assert view["tags"] == {"doc": "a.pdf"}
    assert view["progress"] is None


async def test_snapshot_shows_progress_that_only_redis_has(
    reader: SnapshotReader, make_job: MakeJob
) -> None:
    job = await told(make_job, 0)
    await job.progress(3)
    await job.save()
    await job.progress(4)
    snapshot = await read(reader, job.id)
    assert shown(snapshot)["progress"]["current"] == 4
    assert snapshot.seq == 2
    current = await reader.view(job.id)
    assert current is not None
    assert current.view.progress is not None
    assert (current.view.progress.current, current.seq) == (4, 2)


async def test_snapshot_without_redis_data_shows_the_rows_progress(
    reader: SnapshotReader, make_job: MakeJob, live: AsyncLive
) -> None:
    job = await told(make_job, 0)
    await job.progress(3)
    await job.save()
    await job.progress(4)
    await live.client.flushall()
    snapshot = await read(reader, job.id)
    assert (shown(snapshot)["progress"]["current"], snapshot.seq) == (3, 1)


async def test_snapshot_ignores_the_progress_of_another_attempt(
    reader: SnapshotReader, make_job: MakeJob, live: AsyncLive
) -> None:
    job = await told(make_job, 2)
    await job.progress(90)
    await job.retry()
    head = await live.client.hgetall(head_key(job.id))
    await job.claim()
    # The claim's publication is lost with all that came before it.
    await live.client.hset(head_key(job.id), mapping=head)
    snapshot = await read(reader, job.id, after=Cursor(1, 1))
    assert (snapshot.attempt, snapshot.last, snapshot.seq) == (2, 0, 0)
    assert shown(snapshot)["progress"] is None
    assert texts(snapshot) == []


async def test_snapshot_of_a_job_that_is_over_shows_what_its_row_says(
    reader: SnapshotReader, make_job: MakeJob, live: AsyncLive
) -> None:
    job = await told(make_job, 1)
    await job.progress(3)
    await job.complete({"pages": 3})
    await live.client.hset(head_key(job.id), mapping={"seq": 99, "progress": '{"current":1}'})
    snapshot = await read(reader, job.id)
    assert snapshot.final
    assert shown(snapshot)["progress"]["current"] == 3
    assert shown(snapshot)["result"] == {"pages": 3}
    assert texts(snapshot) == job.said


async def test_view_names_the_last_entry(reader: SnapshotReader, make_job: MakeJob) -> None:
    job = await told(make_job, 5, saved=2)
    current = await reader.view(job.id)
    assert current is not None
    assert current.cursor == Cursor(1, 5)
    assert current.row.last_n == 2


# -- entries -------------------------------------------------------------------------------------


async def test_entries_come_from_redis_after_the_cursor(
    reader: SnapshotReader, make_job: MakeJob
) -> None:
    job = await told(make_job, 6)
    snapshot = await read(reader, job.id, after=Cursor(1, 2))
    assert texts(snapshot) == job.said[2:]
    assert (snapshot.last, snapshot.complete, snapshot.more) == (6, True, False)


async def test_entries_come_from_the_database_after_flushall_with_the_same_bytes(
    reader: SnapshotReader, make_job: MakeJob, live: AsyncLive
) -> None:
    job = await told(make_job, 6, saved=6)
    before = await read(reader, job.id)
    await live.client.flushall()
    after = await read(reader, job.id)
    assert after.entries == before.entries
    assert (after.last, after.complete) == (6, True)


async def test_entries_come_from_both_where_redis_lost_the_older_ones(
    reader: SnapshotReader, make_job: MakeJob, live: AsyncLive
) -> None:
    job = await told(make_job, 6, saved=6)
    await live.client.flushall()
    await job.say("line 7", "line 8")
    snapshot = await read(reader, job.id, after=Cursor(1, 3))
    assert texts(snapshot) == job.said[3:]
    assert (snapshot.last, snapshot.complete) == (8, True)


async def test_entries_not_saved_yet_are_left_to_a_later_read(
    reader: SnapshotReader, make_job: MakeJob, live: AsyncLive
) -> None:
    job = await told(make_job, 6, saved=4)
    await live.client.flushall()
    await job.say("line 7")
    snapshot = await read(reader, job.id)
    # 5 and 6 are on their way to the database; 7 alone would be a hole.
    assert (texts(snapshot), snapshot.last) == (job.said[:4], 4)
    assert (snapshot.complete, snapshot.more) == (True, False)
    await job.save()
    assert texts(await read(reader, job.id)) == job.said


async def test_cursor_of_another_attempt_starts_the_entries_afresh(
    reader: SnapshotReader, make_job: MakeJob
) -> None:
    job = await told(make_job, 3, saved=3)
    await job.retry()
    await job.claim()
    await job.say("again 1", "again 2")
    for cursor in (Cursor(1, 3), Cursor(9, 1), START):
        assert texts(await read(reader, job.id, after=cursor)) == ["again 1", "again 2"]


async def test_cursor_beyond_the_last_entry_gets_none(
    reader: SnapshotReader, make_job: MakeJob
) -> None:
    job = await told(make_job, 3)
    snapshot = await read(reader, job.id, after=Cursor(1, 900))
    assert (texts(snapshot), snapshot.last, snapshot.complete) == ([], 3, True)


async def test_tail_gets_the_last_entries(reader: SnapshotReader, make_job: MakeJob) -> None:
    job = await told(make_job, 6, saved=3)
    assert texts(await read(reader, job.id, after=None, tail=2)) == job.said[-2:]
    assert texts(await read(reader, job.id, after=None, tail=50)) == job.said


async def test_read_without_entries_still_names_the_last(
    reader: SnapshotReader, make_job: MakeJob
) -> None:
    job = await told(make_job, 6, saved=3)
    snapshot = await read(reader, job.id, after=None)
    assert (texts(snapshot), snapshot.last) == ([], 6)


async def test_entries_past_retention_are_named_gone(
    reader: SnapshotReader, make_job: MakeJob, live: AsyncLive
) -> None:
    job = await told(make_job, 9)
    await job.save(keep=4)
    await live.client.flushall()
    snapshot = await read(reader, job.id, after=Cursor(1, 2))
    assert (texts(snapshot), snapshot.last) == (job.said[5:], 9)
    assert not snapshot.complete
    assert (await read(reader, job.id, after=Cursor(1, 5))).complete


async def test_entries_past_retention_everywhere_leave_none(
    reader: SnapshotReader, make_job: MakeJob, live: AsyncLive
) -> None:
    job = await told(make_job, 9)
    await job.save(keep=0)
    await live.client.flushall()
    snapshot = await read(reader, job.id)
    assert (texts(snapshot), snapshot.last, snapshot.complete) == ([], 9, False)


async def test_hole_in_the_middle_ends_a_page_and_is_named_by_the_next(
    reader: SnapshotReader, make_job: MakeJob, live: AsyncLive, async_database: AsyncDatabase
) -> None:
    job = await told(make_job, 6, saved=2)
    await live.client.xdel(entries_key(job.id), "1-3")
    job.forget(3)
    await job.save()
    first = await read(reader, job.id)
    assert (texts(first), first.more, first.complete) == (job.said[:2], True, True)
    second = await read(reader, job.id, after=Cursor(1, 2))
    assert (texts(second), second.more, second.complete) == (job.said[3:], False, False)


# -- pages ---------------------------------------------------------------------------------------


async def all_pages(reader: SnapshotReader, job: LedJob) -> list[list[str]]:
    pages = []
    after, more = START, True
    while more:
        snapshot = await read(reader, job.id, after=after)
        pages.append(texts(snapshot))
        after, more = Cursor(snapshot.attempt, snapshot.entries[-1].n), snapshot.more
    return pages


@pytest.mark.parametrize("flushed", [False, True])
async def test_pages_are_bounded_in_count(
    reader: SnapshotReader, make_job: MakeJob, live: AsyncLive, flushed: bool
) -> None:
    count = 2 * snapshots.PAGE_ENTRIES + 17
    job = await told(make_job, count, saved=count)
    if flushed:
        await live.client.flushall()
    pages = await all_pages(reader, job)
    assert [len(page) for page in pages] == [500, 500, 17]
    assert [text for page in pages for text in page] == job.said


@pytest.mark.parametrize("flushed", [False, True])
async def test_pages_are_bounded_in_bytes(
    reader: SnapshotReader, make_job: MakeJob, live: AsyncLive, flushed: bool
) -> None:
    job = await told(make_job, 0)
    await job.say(*(f"{n} " + "x" * 60_000 for n in range(1, 11)))
    await job.save()
    if flushed:
        await live.client.flushall()
    pages = await all_pages(reader, job)
    assert [len(page) for page in pages] == [4, 4, 2]
    assert [text for page in pages for text in page] == job.said


async def test_page_that_ends_with_the_last_entry_says_no_more(
    reader: SnapshotReader, make_job: MakeJob
) -> None:
    job = await told(make_job, snapshots.PAGE_ENTRIES)
    snapshot = await read(reader, job.id)
    assert (len(snapshot.entries), snapshot.last, snapshot.more) == (500, 500, False)


# -- many, and faults ------------------------------------------------------------------------------


async def test_many_jobs_are_read_at_once(reader: SnapshotReader, make_job: MakeJob) -> None:
    jobs = [await told(make_job, n) for n in range(5)]
    reads = [Read(job.id, START, None, ticket) for ticket, job in enumerate(jobs)]
    reads.append(Read("nobody", START, None, 99))
    answer = await reader.read(reads)
    assert {ticket: len(snapshot.entries) for ticket, snapshot in answer.items()} == {
        0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 99: 0,
    }  # fmt: skip
    assert not answer[99].found


@pytest.fixture
async def no_redis(settings: Settings) -> AsyncIterator[AsyncLive]:
    live = AsyncLive(settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"}))
    yield live
    await live.close()


async def test_everything_comes_from_the_database_while_redis_is_away(
    async_database: AsyncDatabase, no_redis: AsyncLive, settings: Settings, make_job: MakeJob
) -> None:
    reader = SnapshotReader(async_database, no_redis, settings)
    job = await told(make_job, 6, saved=4)
    await job.progress(3)
    snapshot = await read(reader, job.id, after=Cursor(1, 1))
    assert (texts(snapshot), snapshot.last) == (job.said[1:4], 4)
    assert not snapshot.sure
    current = await reader.view(job.id)
    assert current is not None
    assert current.cursor == Cursor(1, 4)
    await job.complete()
    over = await read(reader, job.id, after=Cursor(1, 4))
    assert (over.last, over.sure) == (6, True)


async def test_database_that_is_away_is_told_apart_from_an_unknown_job(
    live: AsyncLive, settings: Settings, tmp_path: Any
) -> None:
    if settings.database_url.startswith("sqlite"):
        url = f"sqlite:///{tmp_path}"  # a folder
    else:
        url = "postgresql://nobody@127.0.0.1:1/none"
    database = AsyncDatabase(settings.model_copy(update={"database_url": url}))
    reader = SnapshotReader(database, live, settings)
    before = set(threading.enumerate())
    with pytest.raises(DatabaseUnavailable):
        await reader.view("anything")
    await database.dispose()
    # The driver's thread of a connection that was never opened still tells this event loop.
    await wait_until_async(
        lambda: (
            not any("_connection_worker" in it.name for it in {*threading.enumerate()} - before)
        ),
        description="the driver's thread has ended",
    )
