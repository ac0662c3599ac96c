"""What a running job reports reaches Redis and the database, through outages, in order."""

from __future__ import annotations

import functools
import json
import multiprocessing
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

import livejobs
from livejobs import attempts, oversight, reads, transitions
from livejobs.database import Database
from livejobs.entries import Published, channel, entries_key, parse_published
from livejobs.errors import JobCancelled, JobLost, RedisUnavailable
from livejobs.live import Outcome, Publication, publication_of
from livejobs.reporter import Reporter
from livejobs.running import RunningJob
from livejobs.settings import Settings, configure
from livejobs.statements import JobRow, jobs
from livejobs.transitions import NewJob
from tests.support.rows import change, shown
from tests.support.servers import ValkeyProcess
from tests.support.waiting import wait_until


@pytest.fixture
def valkey() -> Iterator[ValkeyProcess]:
    """A Valkey of this test alone, which it may kill."""
    server = ValkeyProcess()
    server.start()
    yield server
    server.close()


def start(database: Database, job_id: str = "job-1") -> tuple[JobRow, RunningJob]:
    new = NewJob(id=job_id, task="t", queue="q", message={"m": 1})
    row = database.run(attempts.adopt(new, f"worker-{job_id}", 30.0))
    assert row is not None
    return row, RunningJob(row.id, row.attempt, row.worker)


def is_saved(database: Database, job_id: str, current: int) -> bool:
    """Whether the database has this progress."""
    progress = shown(database, job_id).progress
    return progress is not None and progress.current == current


@pytest.fixture
def reporter(settings: Settings, database: Database) -> Iterator[Reporter]:
    """A reporter on the servers of this test."""
    reporter = Reporter(settings, database)
    yield reporter
    reporter.stop()


class Listener:
    """Collects what is published about a job."""

    def __init__(self, url: str, job_id: str) -> None:
        self._client = redis.Redis.from_url(url)
        self._pubsub: Any = self._client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
        self._pubsub.subscribe(channel(job_id))
        self._pubsub.get_message(timeout=5)
        self.messages: list[Published] = []

    def until(self, kind: str) -> list[Published]:
        """Everything up to and with the next message of this kind."""
        while not self.messages or self.messages[-1].kind != kind:
            message = self._pubsub.get_message(timeout=10)
            assert message is not None, [m.kind for m in self.messages]
            self.messages.append(parse_published(message["data"]))
        return self.messages

    def close(self) -> None:
        """Close its connection."""
        self._pubsub.close()
        self._client.close()


@pytest.fixture
def listener(settings: Settings) -> Iterator[Listener]:
    """Listens to job-1."""
    listener = Listener(settings.redis_url, "job-1")
    yield listener
    listener.close()


def end(database: Database, reporter: Reporter, job: RunningJob) -> JobRow:
    reporter.detach(job)
    job.take(everything=True)
    row = database.run(attempts.complete(job.id, job.attempt, None, job.reported()))
    assert row is not None
    reporter.tell(row, job)
    return row


def test_messages_arrive_in_order_and_the_end_is_last(
    database: Database, reporter: Reporter, listener: Listener
) -> None:
    row, job = start(database)
    reporter.attach(job)
    reporter.tell(row)
    for i in range(1000):
        job.progress(i + 1, 1000)
        job.log(f"line {i}")
        job.output(f"{i} ")
    end(database, reporter, job)
    messages = listener.until("final")
    assert messages[0].kind == "job"
    entries = [m for m in messages if m.kind in ("log", "output")]
    assert [m.n for m in entries] == list(range(1, len(entries) + 1))
    payloads = [json.loads(m.payload) for m in entries]
    lines = [line["text"] for p in payloads for line in p.get("lines", [])]
    assert lines == [f"line {i}" for i in range(1000)]
    assert "".join(p.get("text", "") for p in payloads) == "".join(f"{i} " for i in range(1000))
    seqs = [m.seq for m in messages if m.kind == "progress"]
    assert seqs == sorted(set(seqs))
    last = json.loads(messages[-1].payload)
    assert last["id"] == f"1-{len(entries)}"
    assert last["job"]["progress"]["current"] == 1000
    assert (last["job"]["status"], last["job"]["version"]) == ("completed", messages[-1].version)


def test_first_report_after_a_silence_goes_out_at_once(
    settings: Settings, listener: Listener
) -> None:
    slow = configure(
        database_url=settings.database_url,
        redis_url=settings.redis_url,
        data_dir=settings.data_dir,
        flush_interval=30.0,
    )
    database = Database(slow)
    reporter = Reporter(slow, database)
    _, job = start(database)
    reporter.attach(job)
    job.progress(1, 2)
    assert listener.until("progress")[-1].seq == 1
    reporter.detach(job)
    reporter.stop()
    database.close()


def test_reports_are_saved_while_the_job_runs(database: Database, settings: Settings) -> None:
    reporter = Reporter(settings.model_copy(update={"save_interval": 0.05}), database)
    _, job = start(database)
    reporter.attach(job)
    job.progress(3, 4)
    job.log("hello")
    row = wait_until(
        lambda: (r := database.read(reads.job(job.id))).last_n and r,
        description="the report is in the database",
    )
    assert (row.progress["current"], row.last_n, row.progress_seq) == (3, 1, 1)
    reporter.detach(job)
    reporter.stop()


def test_redis_killed_and_back_entries_go_on_without_a_gap(
    make_database: Any, valkey: ValkeyProcess, tmp_path: Path
) -> None:
    settings = configure(
        database_url=make_database("sqlite"), redis_url=valkey.url, data_dir=tmp_path
    )
    database = Database(settings)
    reporter = Reporter(settings, database)
    _, job = start(database)
    reporter.attach(job)
    job.log("before")
    wait_until(lambda: not job.has_unsent, description="the first line is sent")
    valkey.kill()
    for i in range(50):
        job.log(f"during {i}")
        job.progress(i, 50)
    valkey.start()
    job.log("after")
    wait_until(lambda: not job.has_unsent, description="the rest is sent")
    with redis.Redis.from_url(valkey.url) as client:
        stored = [json.loads(fields[b"m"]) for _, fields in client.xrange(entries_key(job.id))]
    lines = [line["text"] for message in stored for line in message["lines"]]
    assert lines[-51:] == [*(f"during {i}" for i in range(50)), "after"]
    end(database, reporter, job)
    reporter.stop()
    database.close()


def test_reports_are_saved_more_often_while_redis_is_away(
    make_database: Any, valkey: ValkeyProcess, tmp_path: Path
) -> None:
    settings = configure(
        database_url=make_database("sqlite"),
        redis_url=valkey.url,
        data_dir=tmp_path,
        save_interval=3600.0,
    )
    database = Database(settings)
    reporter = Reporter(settings, database)
    _, job = start(database)
    reporter.attach(job)
    valkey.kill()
    for current in (1, 2):
        job.progress(current, 2)
        seen = functools.partial(is_saved, database, job.id, current)
        wait_until(seen, description="viewers can see it")
    valkey.start()
    end(database, reporter, job)
    reporter.stop()
    database.close()


def test_newer_attempt_silences_an_older_one(
    database: Database, reporter: Reporter, listener: Listener, settings: Settings
) -> None:
    _, zombie = start(database)
    reporter.attach(zombie)
    zombie.progress(1, 10)
    listener.until("progress")
    database.run(attempts.retry(zombie.id, 1, delay=0.0, error=None, message=None))
    row = change(database, attempts.claim(zombie.id, 1, "worker-2", 30.0))
    reporter.tell(row)
    listener.until("job")
    zombie.progress(2, 10)
    zombie.log("I am still here")
    wait_until(lambda: zombie.lost, description="the zombie learns that it lost the job")
    with pytest.raises(JobLost):
        zombie.check()
    assert database.run(attempts.report(zombie.id, 1, zombie.reported())) is None
    with redis.Redis.from_url(settings.redis_url) as client:
        assert client.xlen(entries_key(zombie.id)) == 0
    reporter.detach(zombie)


def test_attempt_that_is_over_tells_viewers_nothing(
    database: Database, reporter: Reporter, listener: Listener, settings: Settings
) -> None:
    """Also before a newer one begins."""
    row, zombie = start(database)
    reporter.attach(zombie)
    reporter.tell(row)
    zombie.progress(1, 10)
    zombie.log("before")
    wait_until(lambda: not zombie.has_unsent, description="it is sent")
    reporter.leases.leave(zombie)  # as if it slept
    with database.begin() as connection:
        connection.execute(jobs.update().values(lease_until=row.created_at))
    lost = change(database, oversight.lose(zombie.id))
    reporter.tell(lost)
    seen = len(listener.until("final"))
    zombie.progress(2, 10)
    zombie.log("I am still here")
    reporter.leases.hold(zombie)
    wait_until(lambda: zombie.lost, description="the zombie learns that it lost the job")
    with pytest.raises(JobLost):
        zombie.progress(3, 10)
    zombie.log("cleaning up")
    reporter.live.publish(publication_of(lost))
    with redis.Redis.from_url(settings.redis_url) as client:
        assert client.xlen(entries_key(zombie.id)) == 1
        client.publish(channel(zombie.id), b"1 1 0 0 0 nothing\n")
    assert [message.kind for message in listener.until("nothing")[seen:]] == ["nothing"]
    reporter.detach(zombie)


def test_cancel_request_reaches_the_running_job(database: Database, settings: Settings) -> None:
    reporter = Reporter(settings.model_copy(update={"save_interval": 0.05}), database)
    _, job = start(database)
    reporter.attach(job)
    assert not job.cancelled
    database.run(transitions.cancel(job.id))
    wait_until(lambda: job.cancelled, description="the job is told")
    with pytest.raises(JobCancelled):
        list(job.track([1, 2, 3]))
    reporter.detach(job)
    reporter.stop()


def test_leases_are_renewed(database: Database, settings: Settings) -> None:
    quick = settings.model_copy(update={"save_interval": 0.05, "lease_seconds": 0.6})
    reporter = Reporter(quick, database)
    row, job = start(database)
    reporter.attach(job)
    with database.begin() as connection:
        connection.execute(jobs.update().values(lease_until=row.created_at))
    wait_until(
        lambda: database.read(reads.job(job.id)).lease_until > row.created_at,
        description="the lease is renewed",
    )
    assert not job.lost
    reporter.detach(job)
    reporter.stop()


def _report_in_child(url: str, redis_url: str, folder: str) -> None:
    configure(database_url=url, redis_url=redis_url, data_dir=folder)
    with livejobs.track("in a child", tags={"who": "child"}) as job:
        job.progress(1, 1)


def test_reporter_works_in_a_forked_child(
    settings: Settings, database: Database, tmp_path: Path
) -> None:
    with livejobs.track("in the parent") as job:
        job.progress(1, 2)
        child = multiprocessing.get_context("fork").Process(
            target=_report_in_child,
            args=(settings.database_url, settings.redis_url, str(tmp_path)),
        )
        child.start()
        child.join(30)
        assert child.exitcode == 0
        job.progress(2, 2)
    with database.begin() as connection:
        rows = connection.execute(jobs.select()).all()
    assert {(row.task, row.status) for row in rows} == {
        ("in the parent", "completed"),
        ("in a child", "completed"),
    }


def test_track_shows_a_block_of_code(settings: Settings, database: Database) -> None:
    with livejobs.track("import", owner="ada", tags={"file": "a.csv"}) as job:
        assert livejobs.current_job() is job
        for _ in job.track(range(3)):
            job.log("row")
        job.result = {"rows": 3}
    view = shown(database, job.id)
    assert (view.status, view.result, view.owner) == ("completed", {"rows": 3}, "ada")
    assert (view.task, view.tags, view.attempt) == ("import", {"file": "a.csv"}, 1)


def test_track_fails_with_the_blocks_exception(settings: Settings, database: Database) -> None:
    def block() -> None:
        with livejobs.track("import") as job:
            ids.append(job.id)
            raise ValueError("no such file")

    ids: list[str] = []
    with pytest.raises(ValueError, match="no such file"):
        block()
    view = shown(database, ids[0])
    assert view.status == "failed"
    assert view.error is not None
    assert view.error.message == "no such file"


def test_many_threads_report_at_once(
    database: Database, reporter: Reporter, listener: Listener
) -> None:
    row, job = start(database)
    reporter.attach(job)
    reporter.tell(row)

    def report(k: int) -> None:
        for i in range(200):
            job.log(f"{k}:{i}")

    threads = [threading.Thread(target=report, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    end(database, reporter, job)
    payloads = [json.loads(m.payload) for m in listener.until("final") if m.kind == "log"]
    lines = [line["text"] for p in payloads for line in p["lines"]]
    assert sorted(lines) == sorted(f"{k}:{i}" for k in range(8) for i in range(200))
    for k in range(8):
        own = [line for line in lines if line.startswith(f"{k}:")]
        assert own == [f"{k}:{i}" for i in range(200)]


class Faulty:
    """A publisher that hangs like a frozen Redis, or cannot publish one of the jobs."""

    def __init__(self, *, hangs: float = 0.0, bad: str = "") -> None:
        self.hangs, self.bad = hangs, bad
        self.published: list[Publication] = []
        self.refused = 0

    def publish(self, publication: Publication) -> Outcome:
        """Hang and raise, refuse, or keep."""
        if self.hangs:
            threading.Event().wait(self.hangs)
            raise RedisUnavailable("Redis does not answer")
        if publication.job_id == self.bad:
            self.refused += 1
            raise ValueError("this one cannot be published")
        self.published.append(publication)
        return Outcome(True, publication.attempt, 0)

    def close(self) -> None:
        """There is nothing to close."""


def test_tasks_do_not_wait_in_turn_for_a_redis_that_hangs(
    settings: Settings, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    reporter = Reporter(settings, database, Faulty(hangs=0.4))
    started = [start(database, f"job-{i}") for i in range(8)]
    threads = [threading.Thread(target=reporter.tell, args=pair) for pair in started]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - began < 1.2
    began = time.monotonic()
    reporter.tell(*started[0])
    assert time.monotonic() - began < 0.3, "Redis is left alone for a while"
    for row, _ in started:
        assert f"viewers of job {row.id} were not told" in caplog.text
    reporter.stop()


def test_job_that_cannot_be_sent_holds_up_no_other(
    settings: Settings, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    live = Faulty(bad="job-bad")
    quick = settings.model_copy(update={"flush_interval": 0.01})
    reporter = Reporter(quick, database, live)
    jobs = [start(database, name)[1] for name in ("job-bad", "job-good")]
    for job in jobs:
        reporter.attach(job)
        job.log("hello")
    wait_until(lambda: live.published, description="the other job is sent")
    wait_until(lambda: live.refused > 5, description="the bad one is tried again")
    assert {publication.job_id for publication in live.published} == {"job-good"}
    assert caplog.text.count("reports of job job-bad could not be sent") == 1
    for job in jobs:
        reporter.detach(job)
    reporter.stop()


def test_job_that_cannot_be_saved_holds_up_no_other(
    settings: Settings,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse() -> None:
        raise ValueError("this one cannot be saved")

    reporter = Reporter(settings.model_copy(update={"save_interval": 0.05}), database, Faulty())
    bad, good = (start(database, name)[1] for name in ("job-bad", "job-good"))
    monkeypatch.setattr(bad, "reported", refuse)
    for job in (bad, good):
        reporter.attach(job)
        job.log("hello")
    wait_until(
        lambda: database.read(reads.job(good.id)).last_n,
        description="the other job is saved",
    )
    assert caplog.text.count("reports of job job-bad could not be saved") == 1
    for job in (bad, good):
        reporter.detach(job)
    reporter.stop()


def test_nothing_is_dropped_from_a_job_that_is_being_published(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = settings.model_copy(update={"flush_interval": 0.01})
    reporter = Reporter(quick, database, Faulty(hangs=0.01))
    _, job = start(database)
    dropped = threading.Event()
    monkeypatch.setattr(job, "not_sent", dropped.set)
    reporter.tell(*start(database, "job-2"))  # finds Redis away
    with job.sending:
        reporter.attach(job)
        job.log("hello")
        assert not dropped.wait(0.3)
    assert dropped.wait(10)
    reporter.detach(job)
    reporter.stop()
