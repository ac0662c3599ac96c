"""Workers that are killed, frozen or cut off lose their jobs, and can change nothing any more.

The workers are real processes; leases are short.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from livejobs import settings as livejobs_settings
from livejobs import watch
from livejobs.database import Database, get_database, migrate
from livejobs.entries import channel, entries_key, head_key, parse_published
from livejobs.keeper import Keeper
from livejobs.reporter import stop_reporter
from livejobs.settings import Settings, configure
from livejobs.statements import JobRow, jobs
from livejobs.views import JobMessage, JobView, LogMessage
from tests.support.live_server import running_server
from tests.support.patient import wait_for_rows
from tests.support.proxy import proxied
from tests.support.rows import entries, read, shown, timeline
from tests.support.servers import PostgresProcess
from tests.support.waiting import wait_until
from tests.support.worker import celery_worker

LEASE_SECONDS = 3.0
TAKEN_BACK_SECONDS = LEASE_SECONDS + 15.0
"""A lost job is taken back within 15 s after its lease ran out."""


@pytest.fixture
def tasks(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The tasks of the app, bound to the servers of this test, with short leases."""
    if "REDIS_URL" not in os.environ:
        monkeypatch.setenv("REDIS_URL", settings.redis_url)
    monkeypatch.setenv("LIVEJOBS_LEASE_SECONDS", str(LEASE_SECONDS))
    wait_for_rows(monkeypatch)
    module = importlib.import_module("tests.support.jobs_app")
    # Importing it may have configured livejobs anew.
    configure(**settings.model_dump() | {"lease_seconds": LEASE_SECONDS})
    return module


@pytest.fixture
def workers(tasks: Any, settings: Settings, tmp_path: Path) -> Iterator[Any]:
    """``start("name")``: a worker of one process; its process group's id."""
    with contextlib.ExitStack() as stack:

        def start(name: str, **options: Any) -> int:
            worker = celery_worker(settings, tmp_path / f"{name}.log", concurrency=1, **options)
            return stack.enter_context(worker)

        yield start


@pytest.fixture
def own_postgres() -> Iterator[PostgresProcess]:
    """A server that may be killed; whatever was configured is forgotten before it closes."""
    server = PostgresProcess()
    yield server
    stop_reporter()
    get_database().close()
    livejobs_settings.reset()
    server.close()


def running(database: Database, job_id: str) -> JobRow:
    """The job's row, once it runs."""
    wait_until(lambda: shown(database, job_id).status == "processing", description="it runs")
    return read(database, job_id)


def ended(database: Database, job_id: str) -> JobView:
    """The job, once it is over."""
    wait_until(lambda: shown(database, job_id).status.is_final, description="it ends", seconds=40)
    return shown(database, job_id)


def witnesses(settings: Settings, key: str) -> list[str]:
    with redis.Redis.from_url(settings.redis_url) as client:
        return [item.decode() for item in client.lrange(f"tests:{key}", 0, -1)]


async def test_job_of_a_killed_worker_is_run_again_and_viewers_see_it(
    tasks: Any, workers: Any, settings: Settings, database: Database
) -> None:
    async with running_server(settings) as server:
        first = await asyncio.to_thread(workers, "first")
        key = uuid.uuid4().hex
        job_id = tasks.witnessed.apply_async((key, 60), owner="alice").id
        seen: list[tuple[str, int]] = []
        lines: list[str] = []

        async def view() -> None:
            url = f"http://127.0.0.1:{server.port}"
            async for message in watch(job_id, url=url, token=server.token()):
                if isinstance(message, JobMessage):
                    state = (message.job.status.value, message.job.attempt)
                    seen.extend([state] if seen[-1:] != [state] else [])
                if isinstance(message, LogMessage):
                    lines.extend(line.text for line in message.lines)

        viewer = asyncio.create_task(view())
        await asyncio.to_thread(wait_until, lambda: len(lines) > 5, description="it is seen to run")
        os.killpg(first, signal.SIGKILL)
        await asyncio.to_thread(workers, "second")
        async with asyncio.timeout(TAKEN_BACK_SECONDS + 20):
            await viewer
    assert [state for state in seen if state != ("pending", 0)] == [
        *(("processing", 1), ("pending", 1), ("processing", 2), ("completed", 2))
    ]
    assert [line for line in lines if line.startswith("2.")] == [f"2.{i}" for i in range(60)]
    assert timeline(database, job_id) == ["created", "started", "lost", "started", "completed"]
    assert witnesses(settings, key) == ["1 begins", "2 begins", "2 ends"]


def test_frozen_worker_loses_its_job_and_can_change_nothing_when_it_comes_back(
    tasks: Any, workers: Any, settings: Settings, database: Database
) -> None:
    first = workers("first")
    key = uuid.uuid4().hex
    job_id = tasks.witnessed.delay(key, 80).id
    wait_until(lambda: shown(database, job_id).progress, description="its reports are saved")
    os.killpg(first, signal.SIGSTOP)
    workers("second")
    wait_until(
        lambda: shown(database, job_id).attempt == 2,
        description="the other worker runs it",
        seconds=TAKEN_BACK_SECONDS,
    )
    known = [cursor for cursor in entries(database, job_id) if cursor[0] == 1]
    with redis.Redis.from_url(settings.redis_url) as client:
        listener: Any = client.pubsub(ignore_subscribe_messages=True)
        listener.subscribe(channel(job_id))
        listener.get_message(timeout=5)
        os.killpg(first, signal.SIGCONT)
        wait_until(
            lambda: "1 JobLost" in witnesses(settings, key), description="the zombie is told"
        )
        job = ended(database, job_id)
        attempts = set()
        while message := listener.get_message(timeout=0.5):
            attempts.add(parse_published(message["data"]).attempt)
        listener.close()
    assert (job.status, job.attempt, job.result) == ("completed", 2, 2)
    assert attempts == {2}
    assert [cursor for cursor in entries(database, job_id) if cursor[0] == 1] == known
    assert witnesses(settings, key)[-1] == "2 ends"
    assert timeline(database, job_id) == ["created", "started", "lost", "started", "completed"]


def test_job_of_a_killed_process_of_the_pool_is_lost_at_once(
    tasks: Any, workers: Any, settings: Settings, database: Database
) -> None:
    workers("only")
    once = tasks.unrepeatable.delay(60)
    again = tasks.witnessed.delay(uuid.uuid4().hex, 20)
    for result, status in ((once, "failed"), (again, "completed")):
        row = running(database, result.id)
        os.kill(int(row.worker.split(":")[1]), signal.SIGKILL)
        assert ended(database, result.id).status == status
    assert shown(database, once.id).error.type == "WorkerLost"
    assert again.get(timeout=10) == 2


async def test_worker_that_is_cut_off_from_the_database_loses_its_job(
    make_database: Any, redis_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = make_database("postgresql")
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("LIVEJOBS_LEASE_SECONDS", str(LEASE_SECONDS))
    tasks: Any = importlib.import_module("tests.support.jobs_app")
    settings = configure(
        database_url=url, redis_url=redis_url, data_dir=tmp_path, lease_seconds=LEASE_SECONDS
    )
    database, key = get_database(), uuid.uuid4().hex
    keeper = Keeper(settings, tasks.app)
    async with proxied(url) as (proxy, through):
        theirs = settings.model_copy(update={"database_url": through})
        with contextlib.ExitStack() as stack:
            worker = celery_worker(theirs, tmp_path / "worker.log", concurrency=1)
            await asyncio.to_thread(stack.enter_context, worker)
            keeper.start()
            job_id = await asyncio.to_thread(lambda: tasks.witnessed.delay(key, 1000).id)
            await asyncio.to_thread(running, database, job_id)
            with database.begin() as connection:
                connection.execute(jobs.update().values(rerun_when_lost=False))
            await proxy.cut()
            job = await asyncio.to_thread(ended, database, job_id)
            assert job.error is not None
            assert (job.status, job.error.type) == ("failed", "WorkerLost")
            await proxy.open()
            await asyncio.to_thread(
                wait_until,
                lambda: witnesses(settings, key) == ["1 begins", "1 JobLost"],
                description="the task is told",
                seconds=30,
            )
    assert shown(database, job_id) == job
    keeper.stop()
    stop_reporter()
    database.close()
    livejobs_settings.reset()


def test_database_that_was_away_costs_no_running_job(
    redis_url: str, own_postgres: PostgresProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = own_postgres.url
    migrate(Settings(database_url=url))
    settings = configure(
        database_url=url, redis_url=redis_url, data_dir=tmp_path, lease_seconds=LEASE_SECONDS
    )
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("LIVEJOBS_LEASE_SECONDS", str(LEASE_SECONDS))
    tasks: Any = importlib.import_module("tests.support.jobs_app")
    configure(**settings.model_dump())
    database = get_database()
    with (
        celery_worker(settings, tmp_path / "worker.log") as _,
        redis.Redis.from_url(redis_url) as client,
    ):
        key = uuid.uuid4().hex
        long = tasks.witnessed.delay(key, 200).id
        short = tasks.witnessed.delay(key, 80).id
        wait_until(
            lambda: witnesses(settings, key) == ["1 begins", "1 begins"], description="they run"
        )
        own_postgres.kill()
        sent = client.xlen(entries_key(long))
        # Live messages go on for longer than a lease, and the end that was not committed
        # is told to nobody.
        wait_until(
            lambda: client.xlen(entries_key(long)) > sent + 10 * LEASE_SECONDS,
            description="its log goes on",
        )
        wait_until(lambda: "1 ends" in witnesses(settings, key), description="the short one ends")
        assert client.hget(head_key(short), "over") == b"0"
        own_postgres.start()
        for job_id in (short, long):
            job = ended(database, job_id)
            assert (job.status, job.attempt) == ("completed", 1)
            assert timeline(database, job_id) == ["created", "started", "completed"]
