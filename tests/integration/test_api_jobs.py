"""Jobs over REST: create, show, list, cancel, run again, delete, entries and timeline."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from sqlalchemy import update

from livejobs import attempts, transitions
from livejobs.database import AsyncDatabase
from livejobs.live import AsyncLive
from livejobs.statements import jobs
from tests.support.clients import MakeClient, code_of, new_job
from tests.support.led_jobs import LedJob, MakeJob, entry_text

pytest_plugins = ["tests.support.live_stack", "tests.support.rest"]

DEMO = "demo.led"


async def shown(client: httpx.AsyncClient, job_id: str, **params: Any) -> dict[str, Any]:
    response = await client.get(f"/v1/jobs/{job_id}", params=params)
    assert response.status_code == 200, response.text
    view: dict[str, Any] = response.json()
    return view


# -- create ----------------------------------------------------------------------------------------


async def test_new_job_is_accepted_with_its_address_and_a_token(alice: httpx.AsyncClient) -> None:
    response = await alice.post(
        "/v1/jobs", json={"task": DEMO, "args": [1], "kwargs": {"x": "ü"}, "tags": {"doc": "a.pdf"}}
    )
    assert response.status_code == 202
    body = response.json()
    assert body["status"] == "pending"
    assert response.headers["location"] == f"/v1/jobs/{body['job_id']}"
    view = await shown(alice, body["job_id"])
    assert (view["task"], view["owner"], view["tags"]) == (DEMO, "alice", {"doc": "a.pdf"})


async def test_token_of_a_new_job_opens_that_job_alone(
    alice: httpx.AsyncClient, nobody: httpx.AsyncClient
) -> None:
    other = await new_job(alice)
    body = (await alice.post("/v1/jobs", json={"task": DEMO})).json()
    nobody.headers["Authorization"] = f"Bearer {body['token']}"
    assert (await shown(nobody, body["job_id"]))["status"] == "pending"
    assert code_of(await nobody.get(f"/v1/jobs/{other}")) == (404, "unknown_job")
    assert code_of(await nobody.get("/v1/jobs")) == (403, "limited_token")
    assert code_of(await nobody.post("/v1/jobs", json={"task": DEMO})) == (403, "limited_token")


HIDDEN_TASKS = ["celery.backend_cleanup", "demo", "rag.ingest.more", "x demo.y"]


async def test_task_that_the_settings_do_not_name_is_refused(alice: httpx.AsyncClient) -> None:
    for task in HIDDEN_TASKS:
        response = await alice.post("/v1/jobs", json={"task": task})
        assert code_of(response) == (403, "task_not_allowed"), task


WRONG_BODIES: list[tuple[dict[str, Any], str]] = [
    ({}, "task"),
    ({"task": ""}, "task"),
    ({"task": 7}, "task"),
    ({"task": DEMO, "args": {"a": 1}}, "args"),
    ({"task": DEMO, "tags": {"a": 1}}, "tags.a"),
    ({"task": DEMO, "countdown": 3}, "countdown"),
    ({"task": DEMO, "queue": "other"}, "queue"),
    ({"task": DEMO, "owner": "bob"}, "owner"),
    ({"task": DEMO, "priority": 10}, "priority"),
    ({"task": DEMO, "run_at": "2030-01-01T00:00:00"}, "run_at"),
    ({"task": DEMO, "expires_in": 0}, "expires_in"),
    ({"task": DEMO, "args": ["\0"]}, "args[0]"),
    ({"task": "demo.\0"}, "task"),
    ({"task": DEMO, "tags": {"a": "\0"}}, "tags.a"),
]


async def test_new_job_that_is_not_as_documented_is_refused_by_field(
    alice: httpx.AsyncClient,
) -> None:
    for body, field in WRONG_BODIES:
        response = await alice.post("/v1/jobs", json=body)
        assert code_of(response) == (422, "invalid_request"), body
        assert [error["field"] for error in response.json()["errors"]] == [field], body


RUBBISH = [
    (b"", "application/json", 422),
    (b"{", "application/json", 422),
    (b"[]", "application/json", 422),
    (b"null", "application/json", 422),
    (b'{"task":"demo.led","args":[NaN]}', "application/json", 422),
    (b'{"task":"demo.led","args":["\\ud800"]}', "application/json", 422),
    (b'{"task":"\\ud800"}', "application/json", 422),
    (b'{"task":"\xff"}', "application/json", 400),
    (b'{"task":"demo.led"}', "text/plain", 422),
    (b"[" * 100_000, "application/json", 400),
    (b'{"task":"demo.led","args":' + b"[" * 300 + b"]" * 300 + b"}", "application/json", 422),
]


async def test_body_that_is_rubbish_is_refused(alice: httpx.AsyncClient) -> None:
    for content, kind, status in RUBBISH:
        response = await alice.post("/v1/jobs", content=content, headers={"Content-Type": kind})
        assert response.status_code == status, (content[:50], response.text)
        assert response.headers["content-type"] == "application/problem+json"


async def test_body_past_the_limit_is_refused_also_without_its_length(
    alice: httpx.AsyncClient, settings: Any
) -> None:
    large = b'{"task":"demo.led","args":["' + b"x" * settings.max_payload_bytes + b'"]}'

    async def chunks() -> Any:
        for start in range(0, len(large), 65536):
            yield large[start : start + 65536]

    headers = {"Content-Type": "application/json"}
    for content in (large, chunks()):
        response = await alice.post("/v1/jobs", content=content, headers=headers)
        assert code_of(response) == (413, "body_too_large")


async def test_job_to_be_run_later_says_when(alice: httpx.AsyncClient) -> None:
    job_id = await new_job(alice, run_at="2999-01-01T00:00:00Z", expires_in=86400)
    assert (await shown(alice, job_id))["run_at"].startswith("2999-01-01T00:00")


# -- show ------------------------------------------------------------------------------------------


async def test_job_is_shown_with_the_newest_progress_and_its_tag(
    alice: httpx.AsyncClient, make_job: MakeJob
) -> None:
    job = await make_job()
    await job.claim()
    await job.progress(3, 10)
    response = await alice.get(f"/v1/jobs/{job.id}")
    assert response.json()["progress"]["current"] == 3
    assert response.headers["etag"] == 'W/"2.1-0.1"'
    assert response.headers["cache-control"] == "private, no-cache"
    again = await alice.get(f"/v1/jobs/{job.id}", headers={"If-None-Match": 'W/"2.1-0.1"'})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == 'W/"2.1-0.1"'


SAME_TAGS = ['"2.1-0.0"', 'W/"x", W/"2.1-0.0"', "*"]


async def test_tag_is_compared_weakly_and_in_lists(
    alice: httpx.AsyncClient, make_job: MakeJob
) -> None:
    job = await make_job()
    await job.claim()
    for known in SAME_TAGS:
        response = await alice.get(f"/v1/jobs/{job.id}", headers={"If-None-Match": known})
        assert response.status_code == 304, known


async def test_tag_changes_with_every_kind_of_change(
    alice: httpx.AsyncClient, make_job: MakeJob
) -> None:
    job = await make_job()
    await job.claim()
    tag = (await alice.get(f"/v1/jobs/{job.id}")).headers["etag"]
    for change in (job.progress(1), job.say("a"), job.complete()):
        await change
        after = await alice.get(f"/v1/jobs/{job.id}", headers={"If-None-Match": tag})
        assert after.status_code == 200
        assert after.headers["etag"] != tag
        tag = after.headers["etag"]


async def test_waiting_is_answered_at_the_next_change(
    alice: httpx.AsyncClient, make_job: MakeJob
) -> None:
    job = await make_job()
    await job.claim()
    tag = (await alice.get(f"/v1/jobs/{job.id}")).headers["etag"]
    waiting = asyncio.create_task(
        alice.get(f"/v1/jobs/{job.id}", params={"wait": 20}, headers={"If-None-Match": tag})
    )
    await asyncio.sleep(0.2)
    assert not waiting.done()
    await job.complete("done")
    answer = await asyncio.wait_for(waiting, 5)
    assert answer.json()["result"] == "done"


async def test_waiting_in_vain_ends_with_304(alice: httpx.AsyncClient, make_job: MakeJob) -> None:
    job = await make_job()
    tag = (await alice.get(f"/v1/jobs/{job.id}")).headers["etag"]
    answer = await alice.get(
        f"/v1/jobs/{job.id}", params={"wait": 0.3}, headers={"If-None-Match": tag}
    )
    assert answer.status_code == 304


async def test_waiting_needs_no_wait_where_the_client_is_behind(
    alice: httpx.AsyncClient, make_job: MakeJob
) -> None:
    job = await make_job()
    async with asyncio.timeout(5):
        answer = await alice.get(
            f"/v1/jobs/{job.id}", params={"wait": 60}, headers={"If-None-Match": 'W/"0.0-0.0"'}
        )
    assert answer.status_code == 200


async def test_entries_after_a_cursor_come_with_the_job(
    alice: httpx.AsyncClient, make_job: MakeJob
) -> None:
    job = await make_job()
    await job.claim()
    await job.say("a", "b", "c")
    view = await shown(alice, job.id, after="1-1")
    assert [entry_text(entry) for entry in view["entries"]] == ["b", "c"]
    assert view["recovered"] is True
    assert "entries" not in await shown(alice, job.id)


async def test_polling_with_a_cursor_brings_every_entry_once(
    alice: httpx.AsyncClient, make_job: MakeJob
) -> None:
    """More entries than a page holds: the tag never hides those that are still to come."""
    job = await make_job()
    await job.claim()
    for start in range(0, 1200, 100):
        await job.say(*(f"{start + n}" for n in range(100)))
    got: list[str] = []
    after, tag = "0-0", 'W/"none"'
    async with asyncio.timeout(30):
        while True:
            response = await alice.get(
                f"/v1/jobs/{job.id}", params={"after": after}, headers={"If-None-Match": tag}
            )
            if response.status_code == 304:
                break
            tag = response.headers["etag"]
            for entry in response.json()["entries"]:
                got.append(entry_text(entry))
                after = entry["id"]
    assert got == job.said


NO_CURSORS = ["", "x", "1", "1-", "-1-1", "1-2-3", "\u0663-\u0661"]


async def test_cursor_that_is_none_is_refused(alice: httpx.AsyncClient, make_job: MakeJob) -> None:
    job = await make_job()
    for path in (f"/v1/jobs/{job.id}", f"/v1/jobs/{job.id}/entries"):
        for after in NO_CURSORS:
            response = await alice.get(path, params={"after": after})
            assert code_of(response) == (422, "invalid_cursor"), after


NO_WAITS = ["-1", "61", "nan", "inf", "x"]


async def test_wait_that_is_none_is_refused(alice: httpx.AsyncClient) -> None:
    for wait in NO_WAITS:
        response = await alice.get("/v1/jobs/j", params={"wait": wait})
        assert code_of(response) == (422, "invalid_request"), wait


async def test_traceback_is_for_admins(
    alice: httpx.AsyncClient,
    admin: httpx.AsyncClient,
    make_job: MakeJob,
    async_database: AsyncDatabase,
) -> None:
    job = await make_job()
    row = await job.claim()
    error = {"type": "ValueError", "message": "It broke.", "traceback": "File secret.py"}
    await async_database.run(attempts.fail(job.id, row.attempt, error))
    for path in (f"/v1/jobs/{job.id}", f"/v1/jobs/{job.id}/timeline", "/v1/jobs"):
        assert "It broke." in (await alice.get(path)).text
        assert "secret.py" not in (await alice.get(path)).text
    assert (await shown(admin, job.id))["error"]["traceback"] == "File secret.py"
    assert "secret.py" in (await admin.get(f"/v1/jobs/{job.id}/timeline")).text


NO_IDS = ["nope", "%00", "a%00b", "x" * 300, "%ed%a0%80", "..", "%ff"]


async def test_job_that_cannot_be_is_unknown(alice: httpx.AsyncClient) -> None:
    requests = ["GET ", "GET /entries", "GET /timeline", "POST /cancel", "POST /retry", "DELETE "]
    for job_id in NO_IDS:
        for method, _, path in (request.partition(" ") for request in requests):
            response = await alice.request(method, f"/v1/jobs/{job_id}{path}")
            assert response.status_code == 404, (method, job_id, path, response.text)


# -- change ----------------------------------------------------------------------------------------


async def test_pending_job_is_cancelled_at_once(
    alice: httpx.AsyncClient, make_job: MakeJob, live: AsyncLive
) -> None:
    job = await make_job()
    response = await alice.post(f"/v1/jobs/{job.id}/cancel")
    assert response.status_code == 202
    assert response.json()["status"] == "cancelled"
    head = await live.read_head(job.id)
    assert head is not None
    assert head.version == response.json()["version"], "its viewers were told"


async def test_running_job_is_asked_to_stop_as_often_as_one_likes(
    alice: httpx.AsyncClient, make_job: MakeJob
) -> None:
    job = await make_job()
    await job.claim()
    for _ in range(2):
        response = await alice.post(f"/v1/jobs/{job.id}/cancel")
        assert response.status_code == 202
        assert response.json()["status"] == "processing"
        assert response.json()["cancel_requested"] is True


async def test_job_that_is_over_is_not_cancelled(
    alice: httpx.AsyncClient, make_job: MakeJob
) -> None:
    job = await make_job()
    await job.claim()
    await job.complete()
    response = await alice.post(f"/v1/jobs/{job.id}/cancel")
    assert code_of(response) == (409, "job_conflict")
    assert response.json()["job_status"] == "completed"


async def test_failed_job_is_run_again_under_its_id(
    alice: httpx.AsyncClient, async_database: AsyncDatabase, live: AsyncLive
) -> None:
    job = LedJob(await new_job(alice), async_database, live)
    await job.claim()
    await job.fail()
    response = await alice.post(f"/v1/jobs/{job.id}/retry")
    assert response.status_code == 202
    view = response.json()
    assert (view["job_id"], view["status"], view["error"]) == (job.id, "pending", None)


async def test_job_without_a_message_is_not_run_again(
    alice: httpx.AsyncClient, make_job: MakeJob, async_database: AsyncDatabase
) -> None:
    job = await make_job()
    await job.claim()
    await job.fail()
    async with async_database.begin() as connection:  # as `livejobs.track` makes them
        await connection.execute(update(jobs).values(message=transitions.NO_MESSAGE))
    response = await alice.post(f"/v1/jobs/{job.id}/retry")
    assert code_of(response) == (409, "job_conflict")
    assert "No message" in response.json()["detail"]


async def test_running_job_is_neither_run_again_nor_deleted(
    alice: httpx.AsyncClient, make_job: MakeJob
) -> None:
    job = await make_job()
    await job.claim()
    for response in (
        await alice.post(f"/v1/jobs/{job.id}/retry"),
        await alice.delete(f"/v1/jobs/{job.id}"),
    ):
        assert code_of(response) == (409, "job_conflict")
        assert response.json()["job_status"] == "processing"


async def test_deleted_job_leaves_nothing(
    alice: httpx.AsyncClient, make_job: MakeJob, live: AsyncLive
) -> None:
    job = await make_job()
    await job.claim()
    await job.say("a")
    await job.complete()
    assert (await alice.delete(f"/v1/jobs/{job.id}")).status_code == 204
    assert code_of(await alice.get(f"/v1/jobs/{job.id}")) == (404, "unknown_job")
    assert await live.read_head(job.id) is None
    assert code_of(await alice.delete(f"/v1/jobs/{job.id}")) == (404, "unknown_job")


async def test_viewers_of_a_parent_are_told_of_its_childs_end(
    alice: httpx.AsyncClient, make_job: MakeJob, live: AsyncLive
) -> None:
    parent = await make_job()
    await parent.claim()
    child = await make_job(parent_id=parent.id)
    assert (await alice.post(f"/v1/jobs/{child.id}/cancel")).status_code == 202
    row = await parent.read()
    assert (row.children_total, row.children_cancelled) == (1, 1)
    head = await live.read_head(parent.id)
    assert head is not None
    assert head.version == row.version


async def test_reading_key_changes_nothing(make_client: MakeClient, make_job: MakeJob) -> None:
    reader = await make_client("alice", "read")
    job = await make_job()
    assert (await reader.get(f"/v1/jobs/{job.id}")).status_code == 200
    for response in (
        await reader.post("/v1/jobs", json={"task": DEMO}),
        await reader.post(f"/v1/jobs/{job.id}/cancel"),
        await reader.post(f"/v1/jobs/{job.id}/retry"),
        await reader.delete(f"/v1/jobs/{job.id}"),
    ):
        assert code_of(response) == (403, "scope_missing")
    assert (await job.read()).status == "pending"


async def test_writing_key_reads_nothing(make_client: MakeClient, make_job: MakeJob) -> None:
    writer = await make_client("alice", "write")
    job = await make_job()
    for path in (f"/v1/jobs/{job.id}", "/v1/jobs", f"/v1/jobs/{job.id}/entries"):
        assert code_of(await writer.get(path)) == (403, "scope_missing")


async def test_delete_takes_the_children_when_all_are_over(
    alice: httpx.AsyncClient, make_job: MakeJob, live: AsyncLive
) -> None:
    parent = await make_job()
    one, two = [await make_job(parent_id=parent.id) for _ in range(2)]
    of_one = await make_job(parent_id=one.id)
    foreign = await make_job(owner="bob", parent_id=parent.id)
    for job in (parent, one, two, foreign):
        await job.claim()
        await job.complete()
    refused = await alice.delete(f"/v1/jobs/{parent.id}")
    assert code_of(refused) == (409, "job_conflict"), "the child of a child is not over"
    assert (await one.read()).status == "completed"
    await of_one.claim()
    await of_one.complete()
    assert (await alice.delete(f"/v1/jobs/{parent.id}")).status_code == 204
    for job in (parent, one, two, of_one):
        assert code_of(await alice.get(f"/v1/jobs/{job.id}")) == (404, "unknown_job")
        assert await live.read_head(job.id) is None
    assert (await foreign.read()).status == "completed", "it is not hers to delete"
