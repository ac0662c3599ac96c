"""Documents over REST: list, show, ingest again, delete; and the schedule."""

from __future__ import annotations

import json

import httpx
import pytest
from celery import Celery
from sqlalchemy import select

from livejobs.beat import Scheduler
from livejobs.database import AsyncDatabase
from livejobs.settings import Settings
from livejobs.statements import jobs
from livejobs.uploads import upload_folder, uploads
from livejobs_worker.rag.ingest import ingest
from livejobs_worker.schedule import SCHEDULE
from tests.support.clients import code_of

pytest_plugins = ["tests.support.live_stack", "tests.support.rest"]

URL = "/v1/documents"


async def ingested(client: httpx.AsyncClient, database: AsyncDatabase, *names: str) -> list[str]:
    """Send files and ingest them as a worker would; the documents' ids."""
    sent = [("files", (name, b"the marzipan of " + name.encode())) for name in names]
    answer = await client.post("/v1/rag/ingest", files=sent)
    assert answer.status_code == 202
    ids = []
    for job in answer.json()["jobs"]:
        async with database.engine.connect() as connection:
            query = select(jobs.c.message).where(jobs.c.id == job["job_id"])
            message = (await connection.execute(query)).scalar_one()
        args, _, _ = json.loads(message["body"])
        ids.append(str(ingest(*args)["document_id"]))
    return ids


async def test_documents_are_listed_by_name_in_pages(
    alice: httpx.AsyncClient,
    bob: httpx.AsyncClient,
    admin: httpx.AsyncClient,
    async_database: AsyncDatabase,
) -> None:
    await ingested(alice, async_database, "b.txt", "a.txt", "c.md")
    first = await alice.get(URL, params={"limit": 2})
    assert [item["name"] for item in first.json()["items"]] == ["a.txt", "b.txt"]
    rest = await alice.get(first.links["next"]["url"])
    assert [item["name"] for item in rest.json()["items"]] == ["c.md"]
    assert rest.json()["next"] is None
    item = first.json()["items"][0]
    assert (item["owner"], item["size"], item["chunks"]) == ("alice", 21, 1)
    assert (await bob.get(URL)).json()["items"] == []
    assert len((await admin.get(URL)).json()["items"]) == 3
    assert code_of(await alice.get(URL, params={"page": "x"})) == (422, "invalid_cursor")


async def test_deleted_document_is_found_no_more_and_its_file_is_gone(
    alice: httpx.AsyncClient,
    bob: httpx.AsyncClient,
    async_database: AsyncDatabase,
    settings: Settings,
) -> None:
    document_id, kept = await ingested(alice, async_database, "a.txt", "b.txt")
    assert (await alice.get(f"{URL}/{document_id}")).json()["name"] == "a.txt"
    for method in ("GET", "DELETE"):
        refused = await bob.request(method, f"{URL}/{document_id}")
        assert code_of(refused) == (404, "unknown_document")
    # Its job has not ended here; as long as it may, the file stays.
    async with async_database.begin() as connection:
        await connection.execute(jobs.update().values(status="completed"))
    assert (await alice.delete(f"{URL}/{document_id}")).status_code == 204
    assert code_of(await alice.get(f"{URL}/{document_id}")) == (404, "unknown_document")
    found = await alice.get("/v1/rag/search", params={"q": "marzipan"})
    assert [hit["document_id"] for hit in found.json()["items"]] == [kept]
    assert len(list(upload_folder(settings).iterdir())) == 1
    async with async_database.engine.connect() as connection:
        assert len((await connection.execute(select(uploads))).all()) == 1


async def test_document_is_ingested_again_from_its_file(
    alice: httpx.AsyncClient, bob: httpx.AsyncClient, async_database: AsyncDatabase
) -> None:
    (document_id,) = await ingested(alice, async_database, "a.txt")
    refused = await bob.post(f"{URL}/{document_id}/ingest")
    assert code_of(refused) == (404, "unknown_document")
    answer = await alice.post(f"{URL}/{document_id}/ingest")
    assert answer.status_code == 202
    job = (await alice.get(answer.headers["location"])).json()
    assert (job["task"], job["tags"]) == ("rag.ingest", {"document": "a.txt"})
    assert answer.json()["job_id"] == job["job_id"]


async def test_request_to_ingest_again_is_served_once_for_a_key(
    alice: httpx.AsyncClient, async_database: AsyncDatabase
) -> None:
    one, other = await ingested(alice, async_database, "a.txt", "b.txt")
    headers = {"Idempotency-Key": "again"}
    answers = [await alice.post(f"{URL}/{one}/ingest", headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert len({answer.json()["job_id"] for answer in answers}) == 1
    unlike = await alice.post(f"{URL}/{other}/ingest", headers=headers)
    assert code_of(unlike) == (422, "idempotency_mismatch")
    anew = await alice.post(f"{URL}/{one}/ingest")
    assert anew.json()["job_id"] != answers[0].json()["job_id"]


async def test_deleted_job_leaves_the_file_of_its_document(
    alice: httpx.AsyncClient, async_database: AsyncDatabase, settings: Settings
) -> None:
    (document_id,) = await ingested(alice, async_database, "a.txt")
    lost = await alice.post("/v1/rag/ingest", files=[("files", ("b.txt", b"never ingested"))])
    async with async_database.begin() as connection:
        await connection.execute(jobs.update().values(status="failed"))
    for job_id in [job["job_id"] for job in (await alice.get("/v1/jobs")).json()["items"]]:
        assert (await alice.delete(f"/v1/jobs/{job_id}")).status_code == 204
    assert lost.status_code == 202
    assert len(list(upload_folder(settings).iterdir())) == 1
    assert (await alice.post(f"{URL}/{document_id}/ingest")).status_code == 202


async def test_document_without_its_file_cannot_be_ingested_again(
    alice: httpx.AsyncClient, async_database: AsyncDatabase
) -> None:
    from livejobs.documents import documents

    (document_id,) = await ingested(alice, async_database, "a.txt")
    async with async_database.begin() as connection:
        await connection.execute(documents.update().values(upload=None))
    assert code_of(await alice.post(f"{URL}/{document_id}/ingest")) == (409, "upload_missing")


@pytest.mark.parametrize("path", ["/v1/schedule"])
async def test_schedule_is_shown_to_admins(
    alice: httpx.AsyncClient, admin: httpx.AsyncClient, settings: Settings, path: str
) -> None:
    assert code_of(await alice.get(path)) == (403, "scope_missing")
    assert (await admin.get(path)).json() == {"items": []}
    # Not the worker's own app: it would be this process's, with the broker it began with.
    app = Celery("scheduled", broker=settings.redis_url, set_as_current=False)
    app.conf.beat_schedule = SCHEDULE
    Scheduler(app=app)
    items = {item["name"]: item for item in (await admin.get(path)).json()["items"]}
    assert items["cleanup"]["task"] == "livejobs.cleanup"
    assert items["cleanup"]["schedule"] == "0 3 * * *"
    assert items["cleanup"]["next_run_at"] > items["cleanup"]["last_run_at"]
