"""The list of jobs over REST: filters and pages."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from sqlalchemy import update

from livejobs import reads
from livejobs.database import AsyncDatabase
from livejobs.statements import jobs
from tests.support.clients import code_of
from tests.support.led_jobs import LedJob, MakeJob

pytest_plugins = ["tests.support.live_stack", "tests.support.rest"]


async def listed(client: httpx.AsyncClient, **params: Any) -> list[str]:
    response = await client.get("/v1/jobs", params=params)
    assert response.status_code == 200, response.text
    return [item["job_id"] for item in response.json()["items"]]


async def test_list_is_the_owners_the_newest_first(
    alice: httpx.AsyncClient, bob: httpx.AsyncClient, admin: httpx.AsyncClient, make_job: MakeJob
) -> None:
    first, second, other = await make_job(), await make_job(), await make_job("bob")
    assert sorted(await listed(alice)) == sorted([first.id, second.id])
    assert await listed(bob) == [other.id]
    assert sorted(await listed(admin)) == sorted([first.id, second.id, other.id])
    assert await listed(admin, owner="bob") == [other.id]
    assert await listed(alice, owner="bob") == []


async def test_pages_bring_every_job_once_also_those_of_one_moment(
    alice: httpx.AsyncClient, make_job: MakeJob, async_database: AsyncDatabase
) -> None:
    made = [(await make_job()).id for _ in range(7)]
    # All were created in the same microsecond: the id decides.
    row = await async_database.read(reads.job(made[0]))
    assert row is not None
    async with async_database.begin() as connection:
        await connection.execute(update(jobs).values(created_at=row.created_at))
    got: list[str] = []
    url = "/v1/jobs?limit=3"
    sizes = []
    while url:
        response = await alice.get(url)
        items = response.json()["items"]
        got += [item["job_id"] for item in items]
        sizes.append(len(items))
        link = response.links.get("next", {})
        assert (response.json()["next"] is None) == (not link)
        url = link.get("url", "")
    assert got == sorted(made, reverse=True)
    assert sizes == [3, 3, 1]


async def test_page_is_not_shifted_by_what_came_meanwhile(
    alice: httpx.AsyncClient, make_job: MakeJob
) -> None:
    for _ in range(4):
        await make_job()
    before = await listed(alice)
    first = (await alice.get("/v1/jobs", params={"limit": 2})).json()
    await make_job()
    second = await listed(alice, limit=2, page=first["next"])
    assert [item["job_id"] for item in first["items"]] + second == before


async def test_link_to_the_next_page_keeps_the_filters(
    alice: httpx.AsyncClient, make_job: MakeJob
) -> None:
    wanted = [(await make_job(tags={"doc": "ä &b"})).id for _ in range(3)]
    await make_job()
    response = await alice.get(
        "/v1/jobs", params={"tag": "doc=ä &b", "status": ["pending", "failed"], "limit": 2}
    )
    following = await alice.get(response.links["next"]["url"])
    got = [item["job_id"] for item in response.json()["items"] + following.json()["items"]]
    assert sorted(got) == sorted(wanted)


@pytest.fixture
async def shelf(make_job: MakeJob, async_database: AsyncDatabase) -> dict[str, str]:
    """Jobs of Alice's to be found; name → id."""
    plain = await make_job()
    tagged = await make_job(tags={"doc": "Größe 100%.pdf", 'a"b': "c'd", "kind": "x=y"})
    running = await make_job()
    await running.claim()
    child = await make_job(parent_id=plain.id)
    named = await make_job()
    async with async_database.begin() as connection:
        await connection.execute(
            update(jobs).where(jobs.c.id == named.id).values(task="rag_ingest.x", queue="slow")
        )
    found: dict[str, LedJob] = {
        "plain": plain, "tagged": tagged, "running": running, "child": child, "named": named
    }  # fmt: skip
    return {name: job.id for name, job in found.items()}


FILTERS: list[tuple[dict[str, Any], set[str]]] = [
    ({"status": "processing"}, {"running"}),
    ({"status": ["processing", "pending"]}, {"plain", "tagged", "running", "child", "named"}),
    ({"status": "completed"}, set()),
    ({"task": "rag_ingest.x"}, {"named"}),
    ({"task": "rag_ingest"}, set()),
    ({"queue": "slow"}, {"named"}),
    ({"parent": "PLAIN"}, {"child"}),
    ({"tag": "doc=Größe 100%.pdf"}, {"tagged"}),
    ({"tag": "doc=Größe"}, set()),
    ({"tag": "a\"b=c'd"}, {"tagged"}),
    ({"tag": "kind=x=y"}, {"tagged"}),
    ({"tag": ["kind=x=y", "doc=other"]}, set()),
    ({"q": "größe"}, {"tagged"}),
    ({"q": "KIND"}, {"tagged"}),
    ({"q": "100%"}, {"tagged"}),
    ({"q": "1%0"}, set()),
    ({"q": "_ingest"}, {"named"}),
    ({"q": "g.ingest"}, set()),
    ({"q": 'a"b'}, {"tagged"}),
    ({"q": "PLAIN"}, {"plain"}),
    ({"q": "DEMO.LED", "status": "processing"}, {"running"}),
    ({"q": "%"}, {"tagged"}),
]


async def test_filter_finds(alice: httpx.AsyncClient, shelf: dict[str, str]) -> None:
    for params, expected in FILTERS:
        asked = {
            name: shelf["plain"] if value == "PLAIN" else value for name, value in params.items()
        }
        assert set(await listed(alice, **asked)) == {shelf[name] for name in expected}, params


WRONG_LISTS = [
    ({"status": "running"}, "invalid_request"),
    ({"limit": "0"}, "invalid_request"),
    ({"limit": "501"}, "invalid_request"),
    ({"limit": "x"}, "invalid_request"),
    ({"offset": "3"}, "invalid_request"),
    ({"q": ""}, "invalid_request"),
    ({"q": "\0"}, "invalid_request"),
    ({"tag": "\0=x"}, "invalid_request"),
    ({"page": "x"}, "invalid_cursor"),
    ({"page": "ü"}, "invalid_cursor"),
    ({"page": "bnVsbA"}, "invalid_cursor"),
    ({"page": "WzEsMl0"}, "invalid_cursor"),
    ({"page": "WzEsIlx1ZDgwMCJd"}, "invalid_cursor"),
    ({"page": "WzEsIlx1MDAwMCJd"}, "invalid_cursor"),
    ({"page": "WzFlMzAwMCwieCJd"}, "invalid_cursor"),
    (
        {"page": "Wzk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTksIngiXQ"},
        "invalid_cursor",
    ),
]


async def test_list_that_is_not_as_documented_is_refused(alice: httpx.AsyncClient) -> None:
    for params, code in WRONG_LISTS:
        assert code_of(await alice.get("/v1/jobs", params=params)) == (422, code), params
