"""Thousands of files in one request: one job, with a child for each, in real workers."""

from __future__ import annotations

import os
from functools import partial

import pytest
from sqlalchemy import func, select

from livejobs.database import get_database
from livejobs.documents import documents
from livejobs.settings import Settings, configure
from livejobs.spawning import child_id
from livejobs.statements import jobs
from livejobs.uploads import uploads
from livejobs.views import JobView
from tests.files import pdf_file
from tests.support.clients import code_of
from tests.support.ingesting import ended, kept, rest
from tests.support.rows import shown, timeline
from tests.support.waiting import wait_until_async

pytest_plugins = ["tests.support.ingesting_stack"]

URL = "/v1/documents"
FILES = int(os.environ.get("LIVEJOBS_TESTS_FILES", "300"))
"""Two thousand take minutes."""
BAD = {FILES // 3: "pdf", FILES * 2 // 3: "pdf", FILES - 1: "txt"}
"""Numbers of files that cannot be ingested, and their kinds."""


def file(number: int) -> tuple[str, tuple[str, bytes]]:
    kind = BAD.get(number)
    if kind == "pdf":
        return "files", (f"{number}.pdf", pdf_file(["x"], user_password="secret"))
    text = " \n" if kind == "txt" else f"the garden of number{number}"
    return "files", (f"{number}.txt", text.encode())


async def worked_off(job_id: str) -> JobView:
    """The job, once it is over; until then some of its children have to end in each minute."""
    while not (before := shown(get_database(), job_id)).status.is_final:
        await wait_until_async(
            partial(has_moved, before), description="more children are over", seconds=60
        )
    return before


def has_moved(before: JobView) -> bool:
    now = shown(get_database(), before.job_id)
    return (now.status, now.children) != (before.status, before.children)


def documents_of(owner: str) -> int:
    with get_database().begin() as connection:
        count = select(func.count()).select_from(documents).where(documents.c.owner == owner)
        return int(connection.execute(count).scalar_one())


@pytest.mark.timeout(900)  # as long as it takes, while it goes on
async def test_thousands_of_files_are_one_job_with_a_child_for_each(ingester: Settings) -> None:
    async with rest(ingester) as client:
        before = kept(ingester)
        sent = [file(number) for number in range(FILES)]
        headers = {"Idempotency-Key": "thousands"}
        answer = await client.post(URL, files=sent, headers=headers, timeout=200)
        assert answer.status_code == 202, answer.text
        assert answer.json()["files"] == FILES
        job_id = answer.json()["job_id"]
        assert answer.headers["location"] == f"/v1/jobs/{job_id}"
        again = await client.post(URL, files=sent, headers=headers, timeout=200)
        assert again.json()["job_id"] == job_id

        job = await worked_off(job_id)
        assert (job.error, job.status) == (None, "completed")
        assert job.children is not None
        assert job.children.model_dump() == {
            "total": FILES,
            "completed": FILES - len(BAD),
            "failed": len(BAD),
            "cancelled": 0,
        }
        told = {name: job.result[name] for name in ("files", "done", "failed")}
        assert told == {"files": FILES, "done": FILES - len(BAD), "failed": len(BAD)}
        assert [failure["n"] for failure in job.result["failures"]] == list(BAD)
        assert job.result["failures"][0]["job_id"] == child_id(job_id, FILES // 3)
        messages = [failure["message"] for failure in job.result["failures"]]
        assert f"{FILES // 3}.pdf is protected by a password" in messages[0]
        assert f"{FILES - 1}.txt has no text in it." in messages[2]
        assert timeline(get_database(), job_id) == [
            *("created", "started", "waiting", "resumed", "started", "completed")
        ]

        assert documents_of("alice") == FILES - len(BAD)
        for number in range(0, FILES, FILES // 20):
            found = await client.get("/v1/rag/search", params={"q": f"number{number}"})
            names = [hit["name"] for hit in found.json()["items"]]
            assert names == ([] if number in BAD else [f"{number}.txt"])
        assert len(kept(ingester) - before) == FILES + 1, "all files, and the list of them"


async def test_batch_is_accepted_whole_or_not_at_all(ingesting: Settings) -> None:
    async with rest(ingesting, "bob") as client:
        before = kept(ingesting)
        for bad, code in [
            (("b.txt", b""), (422, "empty_file")),
            (("dir/b.txt", b"x"), (422, "path_in_name")),
            (("a.txt", b"x"), (422, "invalid_request")),
        ]:
            sent = [("files", ("a.txt", b"x")), ("files", bad)]
            assert code_of(await client.post(URL, files=sent)) == code
        assert kept(ingesting) == before
        assert (await client.get("/v1/jobs")).json()["items"] == []


async def test_batch_has_limits_of_its_own(ingesting: Settings) -> None:
    settings = configure(
        **ingesting.model_dump() | {"max_batch_files": 3, "max_batch_bytes": 100_000}
    )
    many = [("files", (f"{number}.txt", b"x")) for number in range(4)]
    large = [("files", (f"{number}.txt", b"x" * 100_000)) for number in range(3)]
    try:
        async with rest(settings, "bob") as client:
            refused = await client.post(URL, files=many)
            assert code_of(refused) == (413, "too_many_files")
            assert "LIVEJOBS_MAX_BATCH_FILES" in refused.json()["detail"]
            assert code_of(await client.post(URL, files=large)) == (413, "too_many_files")
            assert (await client.get("/v1/jobs")).json()["items"] == []
    finally:
        configure(**ingesting.model_dump())


async def test_files_of_a_batch_belong_to_its_job_until_they_are_documents(
    ingester: Settings,
) -> None:
    async with rest(ingester, "cy") as client:
        sent = [("files", (name, b"the garden")) for name in ("a.txt", "b.txt")]
        job_id = (await client.post(URL, files=sent)).json()["job_id"]
        await ended(job_id)
        with get_database().begin() as connection:
            rows = connection.execute(select(uploads).where(uploads.c.job_id == job_id)).all()
            assert {row.owner for row in rows} == {"cy"}
            assert len(rows) == 3
        items = (await client.get(URL)).json()["items"]
        assert [item["name"] for item in items] == ["a.txt", "b.txt"]
        assert items[0]["job_id"] == child_id(job_id, 0)
        assert (await client.delete(f"{URL}/{items[0]['document_id']}")).status_code == 204
        assert (await client.delete(f"/v1/jobs/{job_id}")).status_code == 204
        with get_database().begin() as connection:
            left = connection.execute(select(uploads.c.name).where(uploads.c.owner == "cy")).all()
            assert len(left) == 1, "that of the document that is there"
            mine = select(func.count()).select_from(jobs).where(jobs.c.owner == "cy")
            assert connection.execute(mine).scalar_one() == 0
        again = await client.post(f"{URL}/{items[1]['document_id']}/ingest")
        assert (await ended(again.json()["job_id"])).status == "completed"
