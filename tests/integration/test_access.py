"""Ways around the rules of who may what, each of which has to be closed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import HTTPConnection

from livejobs import settings as livejobs_settings
from livejobs.errors import DatabaseUnavailable
from livejobs.settings import Settings, configure
from livejobs_server import Viewer, mount
from tests.support.clients import client_of, code_of, new_job, running
from tests.support.led_jobs import MakeJob

pytest_plugins = ["tests.support.live_stack", "tests.support.rest"]

EVIL = {"Origin": "https://evil.example"}


def by_session(connection: HTTPConnection) -> Viewer | None:
    """A user's own function that goes by a cookie, as most apps' do."""
    name = connection.cookies.get("session")
    return None if name is None else Viewer(owner=name)


@pytest.fixture
async def site(settings: Settings) -> AsyncIterator[FastAPI]:
    """A user's app whose own sign-in is a cookie."""
    app = FastAPI()
    mount(app, authenticate=by_session, settings=settings)
    async with running(app):
        yield app


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("", {}),
        ("?ticket=x", {}),
        ("", {"Authorization": "Basic x"}),
        ("", {"Authorization": "Bearer x"}),
        ("", {"X-API-Key": "x"}),
    ],
)
async def test_page_of_another_origin_changes_nothing_by_the_users_cookie(
    site: FastAPI, make_job: MakeJob, query: str, headers: dict[str, str]
) -> None:
    job = await make_job("alice")
    async with client_of(site, Cookie="session=alice", **EVIL, **headers) as page:
        answer = await page.post(f"/v1/jobs/{job.id}/cancel{query}")
    assert code_of(answer) == (403, "origin_not_allowed")
    assert (await job.read()).status == "pending"


async def test_page_of_the_same_origin_and_a_program_may(site: FastAPI, make_job: MakeJob) -> None:
    for headers in ({"Origin": "http://livejobs.test"}, {}):
        job = await make_job("alice")
        async with client_of(site, Cookie="session=alice", **headers) as page:
            assert (await page.post(f"/v1/jobs/{job.id}/cancel")).status_code == 202


async def test_nobody_sees_nothing_of_what_is_nobodys(site: FastAPI, make_job: MakeJob) -> None:
    await make_job("")
    async with client_of(site, Cookie="session=") as client:
        assert code_of(await client.get("/v1/jobs")) == (401, "unauthenticated")


async def test_ticket_changes_nothing(alice: httpx.AsyncClient, nobody: httpx.AsyncClient) -> None:
    job_id = await new_job(alice)
    ticket = (await alice.post("/v1/tickets")).json()["ticket"]
    answer = await nobody.post(f"/v1/jobs/{job_id}/cancel?ticket={ticket}")
    assert code_of(answer) == (401, "unauthenticated")


async def test_ticket_of_an_admin_does_not_carry_admin(
    admin: httpx.AsyncClient, nobody: httpx.AsyncClient, make_job: MakeJob
) -> None:
    job = await make_job("alice")
    ticket = (await admin.post("/v1/tickets")).json()["ticket"]
    answer = await nobody.get(f"/v1/jobs/{job.id}?ticket={ticket}")
    assert code_of(answer) == (404, "unknown_job")


async def test_ticket_that_is_none_gives_no_cookie(site: FastAPI, make_job: MakeJob) -> None:
    job = await make_job("alice")
    await job.claim()
    await job.complete()
    async with client_of(site, Cookie="session=alice") as page:
        answer = await page.get(f"/v1/jobs/{job.id}/events?ticket=rubbish")
    assert answer.status_code == 200
    assert "set-cookie" not in answer.headers


async def test_stream_reconnects_by_its_cookie_while_the_database_is_away(
    app: FastAPI,
    alice: httpx.AsyncClient,
    nobody: httpx.AsyncClient,
    make_job: MakeJob,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = await make_job("alice")
    await job.claim()
    await job.complete()
    ticket = (await alice.post("/v1/tickets", json={"jobs": [job.id]})).json()["ticket"]
    path = f"/v1/jobs/{job.id}/events?ticket={ticket}"
    assert (await nobody.get(path)).status_code == 200
    assert nobody.cookies

    async def away(_program: Any) -> None:
        raise DatabaseUnavailable("away")

    monkeypatch.setattr(app.state.livejobs.database, "read", away)
    monkeypatch.setattr(app.state.livejobs.database, "run", away)
    answer = await nobody.get(path)
    assert answer.status_code == 200
    assert "retry: " in answer.text


async def test_timeline_names_no_machines_to_users(
    alice: httpx.AsyncClient, admin: httpx.AsyncClient, make_job: MakeJob
) -> None:
    job = await make_job("alice")
    await job.claim()
    shown = (await alice.get(f"/v1/jobs/{job.id}/timeline")).json()["items"]
    assert [(event["kind"], event["detail"]) for event in shown] == [
        ("created", None),
        ("started", None),
    ]
    known = (await admin.get(f"/v1/jobs/{job.id}/timeline")).json()["items"]
    assert "worker" in known[1]["detail"]


async def test_deleted_job_takes_its_upload_along(
    alice: httpx.AsyncClient, settings: Settings
) -> None:
    uploads = settings.data_dir / "uploads"
    files = {"files": ("a.txt", b"some text")}
    (job,) = (await alice.post("/v1/rag/ingest", files=files)).json()["jobs"]
    assert len(list(uploads.iterdir())) == 1
    await alice.post(f"/v1/jobs/{job['job_id']}/cancel")
    assert (await alice.delete(f"/v1/jobs/{job['job_id']}")).status_code == 204
    assert list(uploads.iterdir()) == []


@pytest.mark.parametrize("args", [[], [5], ["../../x"], [""], ["no-such-file"]])
async def test_deleted_job_without_an_upload_touches_no_file(
    alice: httpx.AsyncClient, args: list[Any]
) -> None:
    body = {"task": "rag.ingest", "args": args}
    job_id = (await alice.post("/v1/jobs", json=body)).json()["job_id"]
    await alice.post(f"/v1/jobs/{job_id}/cancel")
    assert (await alice.delete(f"/v1/jobs/{job_id}")).status_code == 204


async def test_mount_with_settings_keeps_who_owns_jobs(settings: Settings) -> None:
    given = settings.model_copy(update={"ping_interval": 1.0})
    configure(owner_of=lambda: "bob", **settings.model_dump())
    mount(FastAPI(), settings=given)
    assert livejobs_settings.configured_owner() == "bob"
    assert livejobs_settings.get_settings().ping_interval == 1.0
