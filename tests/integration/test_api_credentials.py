"""Keys, signed tokens and tickets over HTTP."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import delete, select, update

from livejobs.database import AsyncDatabase, Database
from livejobs.models import ApiKey, Ticket, db_now
from livejobs.settings import configure
from livejobs_server import create_app, create_key, list_keys, revoke_key, sign_token
from tests.support.clients import MakeClient, client_of, code_of, running
from tests.support.led_jobs import MakeJob

pytest_plugins = ["tests.support.live_stack", "tests.support.rest"]


# -- keys ------------------------------------------------------------------------------------------


async def test_key_is_good_in_both_headers(
    app: FastAPI, nobody: httpx.AsyncClient, async_database: AsyncDatabase
) -> None:
    key, _ = await create_key(async_database, "alice", ["read"])
    for headers in ({"Authorization": f"Bearer {key}"}, {"X-API-Key": key}):
        assert (await nobody.get("/v1/jobs", headers=headers)).status_code == 200


async def test_wrong_keys_are_refused_alike(
    nobody: httpx.AsyncClient, async_database: AsyncDatabase
) -> None:
    key, key_id = await create_key(async_database, "alice", ["read"])
    other, _ = await create_key(async_database, "bob", ["read"])
    wrong = [
        key[:-1] + ("A" if key[-1] != "A" else "B"),
        f"lj_{key_id}_{other.rpartition('_')[2]}",
        "lj_" + "0" * 12 + key[15:],
        f"lj_{key_id}_",
        "lj__",
        "lj_",
        key + "x",
        key.upper(),
        key_id,
        "lj_'; DROP TABLE livejobs_jobs; --_x",
    ]
    answers = set()
    for rubbish in wrong:
        for headers in ({"Authorization": f"Bearer {rubbish}"}, {"X-API-Key": rubbish}):
            response = await nobody.get("/v1/jobs", headers=headers)
            assert code_of(response) == (401, "unauthenticated"), rubbish
            assert response.headers["www-authenticate"] == 'Bearer realm="livejobs"'
            answers.add(response.text)
    assert len(answers) == 1


async def test_key_ends_when_it_is_revoked(
    nobody: httpx.AsyncClient, async_database: AsyncDatabase
) -> None:
    key, key_id = await create_key(async_database, "alice", ["read"])
    headers = {"X-API-Key": key}
    assert (await nobody.get("/v1/jobs", headers=headers)).status_code == 200
    assert await revoke_key(async_database, key_id) is True
    assert await revoke_key(async_database, key_id) is False
    assert (await nobody.get("/v1/jobs", headers=headers)).status_code == 401


async def test_key_ends_at_its_end(
    nobody: httpx.AsyncClient, async_database: AsyncDatabase
) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    key, key_id = await create_key(async_database, "alice", ["read"], soon)
    headers = {"X-API-Key": key}
    assert (await nobody.get("/v1/jobs", headers=headers)).status_code == 200
    async with async_database.begin() as connection:
        await connection.execute(
            update(ApiKey).where(ApiKey.id == key_id).values(expires_at=db_now(-1))
        )
    assert (await nobody.get("/v1/jobs", headers=headers)).status_code == 401


async def test_database_keeps_no_key(async_database: AsyncDatabase) -> None:
    key, key_id = await create_key(async_database, "alice", ["read"])
    async with async_database.engine.connect() as connection:
        row = (await connection.execute(select(ApiKey).where(ApiKey.id == key_id))).one()
    assert key.rpartition(f"{key_id}_")[2] not in str(row)


def test_keys_are_made_and_listed_by_the_command_line_too(database: Database) -> None:
    made = create_key(database, "alice", ["write", "read", "read"])
    create_key(database, "bob", ["admin"])
    assert {key.owner for key in list_keys(database)} == {"alice", "bob"}
    (listed,) = list_keys(database, "alice")
    assert (listed.key_id, listed.scopes) == (made.key_id, ("read", "write"))
    assert listed.revoked_at is None
    assert revoke_key(database, made.key_id)
    assert list_keys(database, "alice")[0].revoked_at is not None


# -- tokens ----------------------------------------------------------------------------------------


async def test_token_is_good_for_its_jobs_alone(
    alice: httpx.AsyncClient, nobody: httpx.AsyncClient, make_job: MakeJob
) -> None:
    wanted, other = await make_job(), await make_job()
    response = await alice.post("/v1/tokens", json={"jobs": [wanted.id], "ttl_seconds": 60})
    assert response.status_code == 201
    assert response.headers["cache-control"] == "no-store"
    end = datetime.fromisoformat(response.json()["expires_at"]).timestamp()
    assert end == pytest.approx(time.time() + 60, abs=5)
    nobody.headers["Authorization"] = f"Bearer {response.json()['token']}"
    assert (await nobody.get(f"/v1/jobs/{wanted.id}")).status_code == 200
    assert (await nobody.post(f"/v1/jobs/{wanted.id}/cancel")).status_code == 202
    assert code_of(await nobody.get(f"/v1/jobs/{other.id}")) == (404, "unknown_job")
    assert code_of(await nobody.get("/v1/rag/search?q=x")) == (403, "limited_token")


async def test_token_of_a_reader_changes_nothing(
    make_client: MakeClient, nobody: httpx.AsyncClient, make_job: MakeJob
) -> None:
    job = await make_job()
    reader = await make_client("alice", "read")
    token = (await reader.post("/v1/tokens", json={"jobs": [job.id]})).json()["token"]
    nobody.headers["Authorization"] = f"Bearer {token}"
    assert code_of(await nobody.post(f"/v1/jobs/{job.id}/cancel")) == (403, "scope_missing")


async def test_token_for_a_token_is_no_wider_and_no_longer(
    alice: httpx.AsyncClient, nobody: httpx.AsyncClient, make_job: MakeJob
) -> None:
    job, other = await make_job(), await make_job()
    body = {"jobs": [job.id], "ttl_seconds": 30}
    first = (await alice.post("/v1/tokens", json=body)).json()
    nobody.headers["Authorization"] = f"Bearer {first['token']}"
    second = await nobody.post("/v1/tokens", json={"jobs": [job.id], "ttl_seconds": 3600})
    assert second.json()["expires_at"] <= first["expires_at"]
    refused = await nobody.post("/v1/tokens", json={"jobs": [other.id]})
    assert code_of(refused) == (404, "unknown_job")


async def test_token_for_a_foreign_job_is_refused_as_for_an_unknown_one(
    alice: httpx.AsyncClient, make_job: MakeJob
) -> None:
    foreign = await make_job("bob")
    for path in ("/v1/tokens", "/v1/tickets"):
        for job_id in (foreign.id, "nope"):
            response = await alice.post(path, json={"jobs": [job_id]})
            assert code_of(response) == (404, "unknown_job")
            assert response.json()["detail"].replace(job_id, "X") == (
                "There is no job X, or it is not yours."
            )


async def test_token_for_a_feed_follows_it_and_opens_nothing_else(
    alice: httpx.AsyncClient, nobody: httpx.AsyncClient, make_job: MakeJob
) -> None:
    job, foreign = await make_job(), await make_job("bob")
    made = await alice.post("/v1/tokens", json={"feed": "mine"})
    assert made.status_code == 201
    nobody.headers["Authorization"] = f"Bearer {made.json()['token']}"
    items = [{"feed": "mine"}, {"feed": "tag:k=v"}, {"job_id": job.id}, {"job_id": foreign.id}]
    told = (await nobody.post("/v1/poll", json={"subscribe": items})).json()["messages"]
    assert [m["job"]["job_id"] for m in told if m["type"] == "job"] == [job.id]
    assert sorted(m["code"] for m in told if m["type"] == "problem") == [
        "forbidden_feed",
        "unknown_job",
        "unknown_job",
    ]
    assert code_of(await nobody.get(f"/v1/jobs/{job.id}")) == (404, "unknown_job")
    assert code_of(await nobody.get("/v1/jobs")) == (403, "limited_token")
    again = await nobody.post("/v1/tokens", json={"feed": "mine"})
    assert again.status_code == 201
    wider = await nobody.post("/v1/tokens", json={"feed": "tag:k=v"})
    assert code_of(wider) == (403, "forbidden_feed")


async def test_token_for_a_feed_that_is_not_the_makers_is_refused(
    alice: httpx.AsyncClient, make_client: MakeClient, make_job: MakeJob
) -> None:
    own, foreign = await make_job(), await make_job("bob")
    for feed, problem in [
        ("ours", (422, "unknown_feed")),
        ("all", (403, "forbidden_feed")),
        (f"children:{foreign.id}", (404, "unknown_job")),
        ("children:nope", (404, "unknown_job")),
    ]:
        assert code_of(await alice.post("/v1/tokens", json={"feed": feed})) == problem
    children = await alice.post("/v1/tokens", json={"feed": f"children:{own.id}"})
    assert children.status_code == 201
    admin = await make_client("root", "admin")
    assert (await admin.post("/v1/tokens", json={"feed": "all"})).status_code == 201


async def test_token_that_is_not_as_documented_is_refused(alice: httpx.AsyncClient) -> None:
    wrong: list[dict[str, object]] = [
        {},
        {"jobs": []},
        {"jobs": "j"},
        {"jobs": ["j"], "ttl_seconds": 0},
        {"jobs": ["j"], "ttl_seconds": 10**9},
        {"jobs": ["j"], "scopes": ["admin"]},
        {"jobs": ["j"] * 101},
        {"feed": ""},
        {"feed": "mine", "jobs": ["j"]},
        {"ttl_seconds": 5},
    ]
    for body in wrong:
        response = await alice.post("/v1/tokens", json=body)
        assert code_of(response) == (422, "invalid_request"), body


async def test_token_signed_in_process_opens_the_job(
    nobody: httpx.AsyncClient, make_job: MakeJob
) -> None:
    job = await make_job()
    nobody.headers["Authorization"] = f"Bearer {sign_token(jobs=[job.id])}"
    assert (await nobody.get(f"/v1/jobs/{job.id}")).status_code == 200


async def test_server_without_a_secret_signs_nothing_and_works(
    settings: object, async_database: AsyncDatabase
) -> None:
    current = async_database.settings
    bare = configure(**{**current.model_dump(), "secrets": ()})
    key, _ = await create_key(async_database, "alice", ["read", "write"])
    async with running(create_app(bare)) as app, client_of(app, **{"X-API-Key": key}) as client:
        made = await client.post("/v1/jobs", json={"task": "demo.led"})
        assert made.status_code == 202
        assert made.json()["token"] is None
        response = await client.post("/v1/tokens", json={"jobs": [made.json()["job_id"]]})
        assert code_of(response) == (501, "signing_unavailable")
        assert (await client.post("/v1/tickets")).status_code == 201


# -- tickets ---------------------------------------------------------------------------------------


async def test_ticket_opens_one_request(
    alice: httpx.AsyncClient, nobody: httpx.AsyncClient, make_job: MakeJob
) -> None:
    job = await make_job()
    made = await alice.post("/v1/tickets")
    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    params = {"ticket": made.json()["ticket"]}
    assert (await nobody.get(f"/v1/jobs/{job.id}", params=params)).status_code == 200
    assert (await nobody.get(f"/v1/jobs/{job.id}", params=params)).status_code == 401


async def test_ticket_for_a_job_opens_nothing_else(
    alice: httpx.AsyncClient, nobody: httpx.AsyncClient, make_job: MakeJob
) -> None:
    job, other = await make_job(), await make_job()
    made = await alice.post("/v1/tickets", json={"jobs": [job.id]})
    params = {"ticket": made.json()["ticket"]}
    response = await nobody.get(f"/v1/jobs/{other.id}", params=params)
    assert code_of(response) == (404, "unknown_job")


async def test_ticket_redeemed_at_once_by_many_opens_one(
    alice: httpx.AsyncClient, nobody: httpx.AsyncClient
) -> None:
    params = {"ticket": (await alice.post("/v1/tickets")).json()["ticket"]}
    answers = await asyncio.gather(*(nobody.get("/v1/jobs", params=params) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] + [401] * 7


async def test_ticket_ends_by_itself(
    alice: httpx.AsyncClient, nobody: httpx.AsyncClient, async_database: AsyncDatabase
) -> None:
    made = (await alice.post("/v1/tickets")).json()
    end = datetime.fromisoformat(made["expires_at"]).timestamp()
    assert end == pytest.approx(time.time() + 30, abs=5)
    async with async_database.begin() as connection:
        await connection.execute(update(Ticket).values(expires_at=db_now(-1)))
    response = await nobody.get("/v1/jobs", params={"ticket": made["ticket"]})
    assert response.status_code == 401
    await alice.post("/v1/tickets")
    async with async_database.begin() as connection:
        left = await connection.execute(delete(Ticket).returning(Ticket.hash))
        assert len(left.all()) == 1, "the one that had ended was cleared away"


async def test_ticket_does_not_outlive_its_maker(
    alice: httpx.AsyncClient, nobody: httpx.AsyncClient, make_job: MakeJob
) -> None:
    job = await make_job()
    token = sign_token(jobs=[job.id], ttl_seconds=1.5)
    made = await nobody.post("/v1/tickets", headers={"Authorization": f"Bearer {token}"})
    assert made.status_code == 201
    await asyncio.sleep(2)  # the end of a token is a moment of the clock, nothing else tells it
    params = {"ticket": made.json()["ticket"]}
    assert (await nobody.get(f"/v1/jobs/{job.id}", params=params)).status_code == 401


async def test_rubbish_as_a_ticket_is_refused(nobody: httpx.AsyncClient) -> None:
    for ticket in ("x", "\0", "\ufffd", "x" * 120, "lj_1_2", "'"):
        response = await nobody.get("/v1/jobs", params={"ticket": ticket})
        assert code_of(response) == (401, "unauthenticated"), ticket


async def test_database_keeps_no_ticket(
    alice: httpx.AsyncClient, async_database: AsyncDatabase
) -> None:
    ticket = (await alice.post("/v1/tickets")).json()["ticket"]
    async with async_database.engine.connect() as connection:
        (row,) = (await connection.execute(select(Ticket))).all()
    assert ticket not in str(row)


# -- nowhere to be read ----------------------------------------------------------------------------


async def test_credentials_stay_out_of_logs_and_answers(
    nobody: httpx.AsyncClient,
    alice: httpx.AsyncClient,
    async_database: AsyncDatabase,
    caplog: pytest.LogCaptureFixture,
) -> None:
    key, key_id = await create_key(async_database, "alice", ["read"])
    ticket = (await alice.post("/v1/tickets")).json()["ticket"]
    token = sign_token(owner="alice", ttl_seconds=-1)
    access_log = logging.getLogger("uvicorn.access")
    with caplog.at_level(logging.DEBUG):
        texts = []
        for headers, params in (
            ({"X-API-Key": key + "x"}, {}),
            ({"Authorization": f"Bearer {token}"}, {}),
            ({}, {"ticket": ticket}),
            ({}, {"ticket": ticket}),
        ):
            texts.append((await nobody.get("/v1/jobs/x", headers=headers, params=params)).text)
        # As uvicorn logs requests and WebSockets.
        path = f"/v1/jobs/x/events?after=1-2&ticket={ticket}&entries=all"
        access_log.info('%s - "%s %s HTTP/%s" %d', "127.0.0.1:1", "GET", path, "1.1", 200)
        logging.getLogger("uvicorn.error").info('%s - "WebSocket %s" [accepted]', "1:1", path)
    logged = [record for record in caplog.records if record.name != "httpx"]  # the client's own
    said = " ".join([record.getMessage() for record in logged] + texts)
    for secret in (key.rpartition(f"{key_id}_")[2], ticket, token.rpartition(".")[2]):
        assert secret not in said
    assert "after=1-2&ticket=***&entries=all" in said
