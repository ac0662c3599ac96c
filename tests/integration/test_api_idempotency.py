"""Creating requests that are repeated, interrupted, or sent twice at once."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select, update

from livejobs.database import AsyncDatabase
from livejobs.dispatch import enqueue
from livejobs.errors import DatabaseUnavailable
from livejobs.models import Answer, db_now
from livejobs.statements import jobs
from livejobs_server.api import jobs as jobs_api
from livejobs_server.idempotency import IN_FLIGHT_SECONDS, KEPT_SECONDS
from tests.support.clients import code_of

pytest_plugins = ["tests.support.live_stack", "tests.support.rest"]

BODY = {"task": "demo.led", "args": [1], "tags": {"a": "b"}}


async def send(
    client: httpx.AsyncClient, key: str = "k1", body: dict[str, Any] | None = None
) -> httpx.Response:
    return await client.post("/v1/jobs", json=body or BODY, headers={"Idempotency-Key": key})


async def count(database: AsyncDatabase) -> int:
    async with database.engine.connect() as connection:
        rows = await connection.execute(select(func.count()).select_from(jobs))
        return int(rows.scalar_one())


async def age(database: AsyncDatabase, seconds: float, **values: Any) -> None:
    """Make all answers older."""
    async with database.begin() as connection:
        await connection.execute(update(Answer).values(created_at=db_now(-seconds), **values))


async def test_repeated_request_gets_the_first_answer_with_a_fresh_token(
    alice: httpx.AsyncClient, nobody: httpx.AsyncClient, async_database: AsyncDatabase
) -> None:
    first, second = await send(alice), await send(alice)
    assert (first.status_code, second.status_code) == (202, 202)
    assert second.json()["job_id"] == first.json()["job_id"]
    assert second.headers["location"] == first.headers["location"]
    nobody.headers["Authorization"] = f"Bearer {second.json()['token']}"
    assert (await nobody.get(second.headers["location"])).status_code == 200
    assert await count(async_database) == 1


async def test_request_without_a_key_is_not_told_from_others(
    alice: httpx.AsyncClient, async_database: AsyncDatabase
) -> None:
    for _ in range(2):
        await alice.post("/v1/jobs", json=BODY)
    assert await count(async_database) == 2


async def test_key_with_another_body_is_refused(
    alice: httpx.AsyncClient, async_database: AsyncDatabase
) -> None:
    await send(alice)
    response = await send(alice, body=BODY | {"args": [2]})
    assert code_of(response) == (422, "idempotency_mismatch")
    upload = await alice.post(
        "/v1/rag/ingest",
        files={"files": ("a.txt", b"x")},
        headers={"Idempotency-Key": "k1"},
    )
    assert code_of(upload) == (422, "idempotency_mismatch")
    assert await count(async_database) == 1


async def test_same_body_spelled_otherwise_is_the_same(alice: httpx.AsyncClient) -> None:
    first = await send(alice)
    content = b'{"tags": {"a" :"b"},\n "kwargs": {}, "args":[1], "task":"demo.led"}'
    headers = {"Idempotency-Key": "k1", "Content-Type": "application/json"}
    second = await alice.post("/v1/jobs", content=content, headers=headers)
    assert second.json()["job_id"] == first.json()["job_id"]


async def test_key_of_another_owner_is_another_key(
    alice: httpx.AsyncClient, bob: httpx.AsyncClient
) -> None:
    first, second = await send(alice), await send(bob)
    assert second.status_code == 202
    assert second.json()["job_id"] != first.json()["job_id"]


async def test_two_at_once_make_one_job(
    alice: httpx.AsyncClient, async_database: AsyncDatabase
) -> None:
    answers = await asyncio.gather(*(send(alice) for _ in range(6)))
    assert {answer.status_code for answer in answers} <= {202, 409}
    assert len({answer.json()["job_id"] for answer in answers if answer.status_code == 202}) == 1
    assert await count(async_database) == 1


async def test_repetition_while_the_first_is_in_flight_is_told_to_wait(
    alice: httpx.AsyncClient, async_database: AsyncDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(*args: Any, **kwargs: Any) -> Any:
        begun.set()
        await go_on.wait()
        return await enqueue(*args, **kwargs)

    monkeypatch.setattr(jobs_api, "enqueue", slow)
    first = asyncio.create_task(send(alice))
    await begun.wait()
    second = await send(alice)
    assert code_of(second) == (409, "request_in_flight")
    assert second.headers["retry-after"] == "1"
    go_on.set()
    answer = (await first).json()
    assert (await send(alice)).json()["job_id"] == answer["job_id"]


async def test_key_of_a_server_that_died_after_the_job_was_made_finds_that_job(
    alice: httpx.AsyncClient, async_database: AsyncDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    async def dies(*args: Any, **kwargs: Any) -> Any:
        made.append((await enqueue(*args, **kwargs)).job_id)
        raise DatabaseUnavailable("the server ends here")

    with monkeypatch.context() as patch:
        patch.setattr(jobs_api, "enqueue", dies)
        assert (await send(alice)).status_code == 503
    # Had it died for good, the row would still be in flight.
    await age(async_database, 0)
    assert code_of(await send(alice)) == (409, "request_in_flight")
    await age(async_database, IN_FLIGHT_SECONDS + 1)
    again = await send(alice)
    assert again.status_code == 202
    assert again.json()["job_id"] == made[0]
    assert await count(async_database) == 1


async def test_request_that_failed_can_be_repeated_at_once(
    alice: httpx.AsyncClient, async_database: AsyncDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_args: Any, **_kwargs: Any) -> Any:
        raise DatabaseUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(jobs_api, "enqueue", fails)
        assert (await send(alice)).status_code == 503
    assert (await send(alice)).status_code == 202
    assert await count(async_database) == 1


async def test_refused_request_does_not_use_the_key_up(alice: httpx.AsyncClient) -> None:
    assert (await send(alice, body={"task": "not.allowed"})).status_code == 403
    assert (await send(alice, body={"task": "demo.led", "x": 1})).status_code == 422
    assert (await send(alice)).status_code == 202


async def test_key_is_forgotten_after_a_day(
    alice: httpx.AsyncClient, async_database: AsyncDatabase
) -> None:
    first = await send(alice)
    await age(async_database, KEPT_SECONDS - 60)
    assert (await send(alice)).json()["job_id"] == first.json()["job_id"]
    await age(async_database, KEPT_SECONDS + 60)
    second = await send(alice, body=BODY | {"args": [2]})
    assert second.status_code == 202
    assert second.json()["job_id"] != first.json()["job_id"]


async def test_key_that_is_none_is_refused(alice: httpx.AsyncClient) -> None:
    for key in ("", " ", "a b", "x" * 256, "ü"):
        response = await alice.post(
            "/v1/jobs", json=BODY, headers={b"Idempotency-Key": key.encode("latin-1")}
        )
        assert code_of(response) == (422, "invalid_request"), key
        assert response.json()["errors"][0]["field"] == "Idempotency-Key"


async def test_no_token_is_kept_with_an_answer(
    alice: httpx.AsyncClient, async_database: AsyncDatabase
) -> None:
    token = (await send(alice)).json()["token"]
    async with async_database.engine.connect() as connection:
        (row,) = (await connection.execute(select(Answer))).all()
    assert token not in str(row)
    assert "eyJ" not in str(row)


# -- uploads ---------------------------------------------------------------------------------------


async def upload(client: httpx.AsyncClient, *contents: bytes) -> httpx.Response:
    return await client.post(
        "/v1/rag/ingest",
        files=[("files", (f"{n}.txt", content)) for n, content in enumerate(contents)],
        headers={"Idempotency-Key": "u1"},
    )


async def test_repeated_upload_gets_the_first_answer_and_keeps_no_second_copy(
    alice: httpx.AsyncClient, async_database: AsyncDatabase
) -> None:
    first, second = await upload(alice, b"a", b"b"), await upload(alice, b"a", b"b")
    assert (first.status_code, second.status_code) == (202, 202)
    ids = [[job["job_id"] for job in answer.json()["jobs"]] for answer in (first, second)]
    assert ids[0] == ids[1]
    assert [job["name"] for job in second.json()["jobs"]] == ["0.txt", "1.txt"]
    folder = async_database.settings.data_dir / "uploads"
    assert len(list(folder.iterdir())) == 2


async def test_upload_of_other_content_under_the_same_key_is_refused(
    alice: httpx.AsyncClient, async_database: AsyncDatabase
) -> None:
    await upload(alice, b"a", b"b")
    assert code_of(await upload(alice, b"a", b"c")) == (422, "idempotency_mismatch")
    assert code_of(await upload(alice, b"a")) == (422, "idempotency_mismatch")
    folder = async_database.settings.data_dir / "uploads"
    assert len(list(folder.iterdir())) == 2


async def test_upload_interrupted_after_its_commit_finds_its_jobs(
    alice: httpx.AsyncClient, async_database: AsyncDatabase
) -> None:
    first = await upload(alice, b"a", b"b")
    # As if the server had died before it wrote the answer down.
    nonce = next((async_database.settings.data_dir / "uploads").iterdir()).name.partition("-")[0]
    await age(
        async_database, IN_FLIGHT_SECONDS + 1, status=None, body=None, headers={"nonce": nonce}
    )
    second = await upload(alice, b"a", b"b")
    assert [job["job_id"] for job in second.json()["jobs"]] == [
        job["job_id"] for job in first.json()["jobs"]
    ]
    assert await count(async_database) == 2
