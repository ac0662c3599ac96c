"""What a job has told, over REST: entries and timeline, in pages."""

from __future__ import annotations

from typing import Any

import httpx

from livejobs.database import AsyncDatabase
from livejobs.live import AsyncLive
from tests.support.clients import code_of, new_job
from tests.support.led_jobs import LedJob, MakeJob, entry_text

pytest_plugins = ["tests.support.live_stack", "tests.support.rest"]


async def collected(client: httpx.AsyncClient, url: str) -> list[dict[str, Any]]:
    """The items of all pages."""
    items: list[dict[str, Any]] = []
    while url:
        response = await client.get(url)
        assert response.status_code == 200, response.text
        items += response.json()["items"]
        url = response.links.get("next", {}).get("url", "")
    return items


async def test_entries_of_all_attempts_come_in_pages(
    alice: httpx.AsyncClient, make_job: MakeJob
) -> None:
    job = await make_job()
    await job.claim()
    await job.say("a", "b", "c")
    await job.retry()
    first = list(job.said)
    await job.claim()
    await job.say("d", "e")
    await job.save()
    await job.say("f", "g")
    items = await collected(alice, f"/v1/jobs/{job.id}/entries?limit=2")
    assert [entry_text(item) for item in items] == [*first, *job.said]
    assert [item["id"] for item in items] == ["1-1", "1-2", "1-3", "2-1", "2-2", "2-3", "2-4"]
    assert all(item["job_id"] == job.id for item in items)


async def test_entries_of_one_kind_after_a_cursor(
    alice: httpx.AsyncClient, make_job: MakeJob
) -> None:
    job = await make_job()
    await job.claim()
    await job.say("a", "b", "c", "d", "e")
    items = await collected(alice, f"/v1/jobs/{job.id}/entries?limit=1&kind=log&after=1-1")
    assert [(item["type"], entry_text(item)) for item in items] == [("log", "c"), ("log", "e")]


async def test_entries_survive_redis(
    alice: httpx.AsyncClient, make_job: MakeJob, live: AsyncLive
) -> None:
    job = await make_job()
    await job.claim()
    await job.say("a", "b", "c")
    await job.complete()
    await live.client.flushdb()
    items = await collected(alice, f"/v1/jobs/{job.id}/entries?limit=2")
    assert [entry_text(item) for item in items] == ["a", "b", "c"]


PAST_THE_END = ["2-0", "900719925474099-0", "1-900719925474099"]


async def test_entries_after_the_end_are_none(alice: httpx.AsyncClient, make_job: MakeJob) -> None:
    job = await make_job()
    await job.claim()
    await job.say("a")
    for after in PAST_THE_END:
        response = await alice.get(f"/v1/jobs/{job.id}/entries", params={"after": after})
        assert response.json() == {"items": [], "next": None}, after


async def test_timeline_comes_in_pages(
    alice: httpx.AsyncClient, async_database: AsyncDatabase, live: AsyncLive
) -> None:
    job = LedJob(await new_job(alice), async_database, live)
    await job.claim()
    await job.fail()
    await job.requeue()
    await job.claim()
    await job.complete()
    items = await collected(alice, f"/v1/jobs/{job.id}/timeline?limit=2")
    assert [(item["kind"], item["attempt"]) for item in items] == [
        ("created", 0),
        ("started", 1),
        ("failed", 1),
        ("requeued", 1),
        ("started", 2),
        ("completed", 2),
    ]
    assert items[2]["detail"]["error"]["message"] == "It broke."


NO_PAGES = ["x", "WyJ4Il0", "W10", "WzEsMl0"]


async def test_timeline_page_that_is_none_is_refused(
    alice: httpx.AsyncClient, make_job: MakeJob
) -> None:
    job = await make_job()
    for page in NO_PAGES:
        response = await alice.get(f"/v1/jobs/{job.id}/timeline", params={"page": page})
        assert code_of(response) == (422, "invalid_cursor"), page


async def test_timeline_after_any_number_is_none(
    alice: httpx.AsyncClient, make_job: MakeJob
) -> None:
    job = await make_job()
    # [99999999999999999999], larger than any database's integers.
    page = "Wzk5OTk5OTk5OTk5OTk5OTk5OTk5XQ"
    response = await alice.get(f"/v1/jobs/{job.id}/timeline", params={"page": page})
    assert response.json() == {"items": [], "next": None}
