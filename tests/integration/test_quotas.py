"""What an owner may start by REST: a rate in Redis, open jobs in the database."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from livejobs.database import AsyncDatabase
from livejobs.errors import SettingsError
from livejobs.settings import Settings, configure
from livejobs_server import create_app, create_key

from ..support.clients import client_of, code_of, running
from ..support.live_server import on_sqlite
from ..support.proxy import proxied

pytest_plugins = ["tests.support.live_stack"]

DEMO = {"task": "demo.led"}


@contextlib.asynccontextmanager
async def serving(settings: Settings, **limits: Any) -> AsyncIterator[FastAPI]:
    async with running(create_app(settings.model_copy(update=limits))) as app:
        yield app


@contextlib.asynccontextmanager
async def client(
    app: FastAPI, database: AsyncDatabase, owner: str = "alice"
) -> AsyncIterator[httpx.AsyncClient]:
    made = await create_key(database, owner, ("read", "write"))
    async with client_of(app, Authorization=f"Bearer {made.key}") as client:
        yield client


async def start(alice: httpx.AsyncClient, **headers: str) -> httpx.Response:
    return await alice.post("/v1/jobs", json=DEMO, headers=headers)


@on_sqlite
async def test_owner_starts_so_many_jobs_in_a_time_over_all_keys_and_servers(
    settings: Settings, async_database: AsyncDatabase
) -> None:
    async with (
        serving(settings, enqueue_rate="3/hour") as app,
        serving(settings, enqueue_rate="3/hour") as other,
        client(app, async_database) as alice,
        client(other, async_database) as elsewhere,
        client(app, async_database, "bob") as bob,
    ):
        for asking in (alice, elsewhere, alice):
            assert (await start(asking)).status_code == 202
        for asking in (alice, elsewhere):
            refused = await start(asking)
            assert code_of(refused) == (429, "rate_limited")
            assert 1 <= int(refused.headers["retry-after"]) <= 3600
            assert refused.headers["content-type"] == "application/problem+json"
        assert (await start(bob)).status_code == 202


@on_sqlite
async def test_repeated_request_does_not_count_again(
    settings: Settings, async_database: AsyncDatabase
) -> None:
    async with (
        serving(settings, enqueue_rate="2/hour", max_open_jobs=2) as app,
        client(app, async_database) as alice,
    ):
        first = await start(alice, **{"Idempotency-Key": "a"})
        for _ in range(5):
            again = await start(alice, **{"Idempotency-Key": "a"})
            assert again.json()["job_id"] == first.json()["job_id"]
        assert (await start(alice)).status_code == 202
        refused = await start(alice, **{"Idempotency-Key": "b"})
        assert refused.status_code == 429
        # What was refused may be tried again under the same key.
        assert code_of(await start(alice, **{"Idempotency-Key": "b"}))[0] == 429


async def test_owner_has_so_many_open_jobs_and_more_when_some_are_over(
    settings: Settings, async_database: AsyncDatabase
) -> None:
    async with (
        serving(settings, max_open_jobs=2) as app,
        client(app, async_database) as alice,
        client(app, async_database, "bob") as bob,
    ):
        ids = [(await start(alice)).json()["job_id"] for _ in range(2)]
        refused = await start(alice)
        assert code_of(refused) == (429, "too_many_open_jobs")
        assert 5 <= int(refused.headers["retry-after"]) <= 30
        assert (await start(bob)).status_code == 202
        assert (await alice.post(f"/v1/jobs/{ids[0]}/cancel")).status_code == 202
        assert (await start(alice)).status_code == 202
        # Running one again makes it open.
        again = await alice.post(f"/v1/jobs/{ids[0]}/retry")
        assert code_of(again) == (429, "too_many_open_jobs")


@on_sqlite
async def test_each_file_of_an_upload_counts(
    settings: Settings, async_database: AsyncDatabase
) -> None:
    def files(count: int) -> list[tuple[str, tuple[str, bytes]]]:
        return [("files", (f"{number}.txt", b"text")) for number in range(count)]

    async with (
        serving(settings, max_open_jobs=3, enqueue_rate="3/hour") as app,
        client(app, async_database) as alice,
    ):
        refused = await alice.post("/v1/rag/ingest", files=files(4))
        assert code_of(refused) == (429, "too_many_open_jobs")
        assert (await alice.post("/v1/rag/ingest", files=files(3))).status_code == 202
        assert (await alice.post("/v1/rag/ingest", files=files(1))).status_code == 429


@on_sqlite
async def test_jobs_are_started_without_counting_them_while_redis_is_away(
    settings: Settings, async_database: AsyncDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    async with proxied(settings.redis_url) as (proxy, url):
        behind = settings.model_copy(
            # The broker is there all along.
            update={"redis_url": url, "broker_url": settings.redis_url}
        )
        async with (
            serving(behind, enqueue_rate="1/hour") as app,
            client(app, async_database) as alice,
        ):
            assert (await start(alice)).status_code == 202
            assert (await start(alice)).status_code == 429
            await proxy.cut()
            with caplog.at_level(logging.WARNING, "livejobs.api"):
                for _ in range(3):
                    assert (await start(alice)).status_code == 202
            said = [record for record in caplog.records if "without counting" in record.message]
            assert len(said) == 1
            await proxy.open()
            assert (await start(alice)).status_code == 429


@pytest.mark.parametrize("rate", ["often", "0/minute", "10", "10/fortnight", "-1/second"])
def test_rate_that_cannot_be_read_is_refused(rate: str) -> None:
    with pytest.raises(SettingsError, match="enqueue_rate"):
        configure(enqueue_rate=rate)


@pytest.mark.parametrize("rate", ["100/minute", "5/second", "1000/6hours", "1/day", "", None])
def test_rate_as_documented_is_taken(rate: str | None) -> None:
    assert Settings(enqueue_rate=rate).enqueue_rate == (rate or None)
