"""A worker that dies in the middle of a document: the next one goes on at the page, not anew."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import redis
from sqlalchemy import func, select

from livejobs.database import get_database
from livejobs.documents import chunks
from livejobs.drafts import Draft, drafts, find_draft
from livejobs.settings import Settings
from livejobs_worker.rag.ingest import PAGES_AT_ONCE
from tests.files import pdf_file
from tests.support.ingesting import ended, rest
from tests.support.rows import shown, timeline
from tests.support.waiting import wait_until_async
from tests.support.worker import celery_worker

pytest_plugins = ["tests.support.ingesting_stack"]

APP = "tests.support.counting_app"
READ = "tests:pages"  # as there
PAGES = 150
LEASE = {"LIVEJOBS_LEASE_SECONDS": "2"}


def draft_of(job_id: str) -> Draft:
    return get_database().read(find_draft(job_id))


async def test_worker_killed_in_a_long_document_is_followed_by_one_that_goes_on_at_the_page(
    ingesting: Settings, tmp_path: Path
) -> None:
    content = pdf_file([f"the garden of page{number}" for number in range(1, PAGES + 1)])
    async with rest(ingesting) as client:
        with celery_worker(ingesting, tmp_path / "1.log", APP, pool="solo", env=LEASE) as pid:
            answer = await client.post("/v1/rag/ingest", files=[("files", ("long.pdf", content))])
            job_id = answer.json()["jobs"][0]["job_id"]
            await wait_until_async(
                lambda: draft_of(job_id).kept >= 2 * PAGES_AT_ONCE,
                description="some pages are kept",
                seconds=40,
            )
            os.kill(pid, signal.SIGKILL)
        kept = draft_of(job_id).kept
        assert 2 * PAGES_AT_ONCE <= kept < PAGES
        found = await client.get("/v1/rag/search", params={"q": "page1"})
        assert found.json() == {"items": []}, "what is kept is no document yet"

        with celery_worker(ingesting, tmp_path / "2.log", APP, pool="solo", env=LEASE):
            job = await ended(job_id)
        assert job.error is None
        assert job.attempt == 2
        assert job.result["pages"] == job.result["chunks"] == PAGES
        assert timeline(get_database(), job_id) == [
            *("created", "started", "lost", "started", "completed")
        ]
        log = (await client.get(f"/v1/jobs/{job_id}/entries", params={"after": "2-0"})).json()
        lines = [line["text"] for entry in log["items"] for line in entry["lines"]]
        assert lines[0] == f"goes on after the {kept} pages that were read before"

        with redis.Redis.from_url(ingesting.redis_url) as client_of_redis:
            read = {int(page): int(n) for page, n in client_of_redis.hgetall(READ).items()}
        assert set(read) == set(range(PAGES))
        assert {page for page, times in read.items() if times > 1} <= set(
            range(kept, kept + PAGES_AT_ONCE)
        ), "pages that were kept are read once"
        for page in (1, kept, kept + 1, PAGES):
            found = await client.get("/v1/rag/search", params={"q": f"page{page}"})
            assert [hit["page"] for hit in found.json()["items"]] == [page]
    with get_database().begin() as connection:
        count = select(func.count()).select_from(chunks)
        assert connection.execute(count).scalar_one() == PAGES
        assert connection.execute(select(drafts)).all() == [], "it goes with the end of the job"
    assert shown(get_database(), job_id).progress is not None
