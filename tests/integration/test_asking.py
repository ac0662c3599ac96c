"""Why a job is not moving, where its code stands, and a keeper that runs alone."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from livejobs import attempts, reads
from livejobs.database import AsyncDatabase, Database
from livejobs.dispatch import enqueue, producer_app
from livejobs.settings import Settings
from livejobs_server import create_key
from tests.support.command_line import COMMAND, clean_environment, livejobs
from tests.support.led_jobs import MakeJob
from tests.support.live_server import LiveServer, on_sqlite
from tests.support.servers import child
from tests.support.waiting import wait_until, wait_until_async
from tests.support.worker import environment

pytest_plugins = ["tests.support.live_stack"]


@pytest.fixture
async def admin(async_database: AsyncDatabase) -> str:
    """An admin's key."""
    key, _ = await create_key(async_database, "root", ["admin"])
    return key


async def ask(server: LiveServer, key: str, path: str) -> httpx.Response:
    async with server.client(None) as client:
        return await client.get(f"/v1/jobs/{path}", headers={"X-API-Key": key})


async def test_reason_follows_the_job(server: LiveServer, make_job: MakeJob, admin: str) -> None:
    job = await make_job()

    async def reason() -> str:
        answer = await ask(server, admin, f"{job.id}/why")
        assert answer.headers["cache-control"] == "no-store"
        said: str = answer.raise_for_status().json()["reason"]
        return said

    assert await reason() == "It is about to be sent."
    await job.claim()
    assert "It has been running on" in await reason()
    await job.fail("no such file")
    assert (await reason()).startswith("It is over: failed 0 s ago with")


async def test_job_in_a_queue_without_a_worker_says_so(
    server: LiveServer, settings: Settings, database: Database, admin: str
) -> None:
    view = await enqueue("some.task", app=producer_app(settings), queue="nobodys")
    await wait_until_async(
        lambda: database.read(reads.job(view.job_id)).dispatches, description="it was sent"
    )
    answer = await ask(server, admin, f"{view.job_id}/why")
    assert answer.json() == {
        "job_id": view.job_id,
        "status": "pending",
        "reason": "It waits in queue nobodys, and no worker answers: is one running?",
    }


@on_sqlite
async def test_stack_is_of_running_jobs_only_and_needs_a_worker_that_answers(
    server: LiveServer, make_job: MakeJob, admin: str
) -> None:
    job = await make_job()
    waiting = await ask(server, admin, f"{job.id}/stack")
    assert (waiting.status_code, waiting.json()["code"]) == (409, "job_conflict")
    await job.claim()
    silent = await ask(server, admin, f"{job.id}/stack")
    assert (silent.status_code, silent.json()["code"]) == (504, "worker_silent")


@on_sqlite
async def test_questions_of_admins_are_refused_to_others_and_know_unknown_jobs(
    server: LiveServer, make_job: MakeJob, admin: str
) -> None:
    job = await make_job("alice")
    async with server.client("alice") as alice:
        for question in ("why", "stack"):
            refused = await alice.get(f"/v1/jobs/{job.id}/{question}")
            assert (refused.status_code, refused.json()["code"]) == (403, "scope_missing")
            unknown = await ask(server, admin, f"no-such-job/{question}")
            assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_job")


@on_sqlite
async def test_command_line_says_why_and_where(
    server: LiveServer, make_job: MakeJob, admin: str, tmp_path: Path
) -> None:
    job = await make_job()
    await job.claim()
    options = ("--url", f"http://127.0.0.1:{server.port}", "--key", admin)
    why = await asyncio.to_thread(livejobs, "why", job.id, *options, cwd=tmp_path)
    assert (why.returncode, why.stderr) == (0, "")
    assert why.stdout.startswith("It has been running on")
    stack = await asyncio.to_thread(livejobs, "stack", job.id, *options, cwd=tmp_path)
    assert stack.returncode == 1
    assert "No worker answered" in stack.stderr


async def test_keeper_alone_sends_what_is_due_and_takes_back_what_is_lost(
    settings: Settings, database: Database, tmp_path: Path
) -> None:
    app = producer_app(settings)
    lost, due = [await enqueue("some.task", app=app) for _ in range(2)]
    for job in (lost, due):
        wait_until(
            lambda: database.read(reads.job(job.job_id)).dispatches,  # noqa: B023
            description="it is noted that it was sent",
        )
    database.run(attempts.claim(lost.job_id, 0, "gone:1:x", -1.0))
    with redis.Redis.from_url(settings.redis_url) as client:
        client.flushdb()
        from sqlalchemy import text

        with database.begin() as connection:
            connection.execute(text("UPDATE livejobs_jobs SET due_at = created_at"))
        env = clean_environment(**environment(settings), LIVEJOBS_LEASE_SECONDS="1.5")
        with child([*COMMAND, "keeper"], tmp_path / "keeper.log", env) as process:
            wait_until(lambda: client.llen("celery"), description="it is sent", seconds=30)
            wait_until(
                lambda: database.read(reads.job(lost.job_id)).status == "failed",
                description="it is taken back",
            )
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0, (tmp_path / "keeper.log").read_text()
    assert database.read(reads.job(due.job_id)).dispatches > 1


@on_sqlite
def test_keeper_without_tables_or_of_no_app_says_so(settings: Settings, tmp_path: Path) -> None:
    env: dict[str, Any] = {"DATABASE_URL": f"sqlite:///{tmp_path}/empty.db"}
    empty = livejobs("keeper", cwd=tmp_path, **env)
    assert (empty.returncode, "livejobs migrate" in empty.stderr) == (1, True)
    nowhere = livejobs("keeper", "--app", "no.such.app", cwd=tmp_path, **env)
    assert (nowhere.returncode, "no.such.app" in nowhere.stderr) == (1, True)
