"""Batches of prompts: by REST and in real workers, against a server that fails as planned."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import redis

from livejobs import settings as livejobs_settings
from livejobs.database import Database, get_database
from livejobs.reporter import stop_reporter
from livejobs.settings import Settings, configure
from livejobs.spawning import child_id
from livejobs.statements import JobRow, events
from livejobs.usage import usage
from livejobs.views import JobView
from tests.conftest import DATABASES, SECRET, MakeDatabase
from tests.support.live_server import running_server
from tests.support.model_server import ModelServer, model_server
from tests.support.rows import read, shown, timeline
from tests.support.waiting import wait_until_async
from tests.support.worker import celery_worker

KEY = "sk-secret-of-the-tests"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[ModelServer]:
    """The model's endpoint."""
    with model_server() as server:
        yield server


@pytest.fixture
def model(endpoint: ModelServer) -> ModelServer:
    """The same, that has forgotten what was before this test."""
    endpoint.forget()
    return endpoint


@pytest.fixture(scope="module", params=DATABASES)
def asking(
    request: pytest.FixtureRequest,
    make_database: MakeDatabase,
    redis_url: str,
    endpoint: ModelServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Settings]:
    """livejobs configured to ask it, and the built-in worker."""
    folder = tmp_path_factory.mktemp("asking")
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
    settings = configure(
        database_url=make_database(request.param),
        redis_url=redis_url,
        data_dir=folder / "data",
        secrets=SECRET,
        llm_base_url=endpoint.url,
        llm_model="small",
        max_upload_bytes=100_000,
        max_payload_bytes=20_000,
    )
    env = {
        "LIVEJOBS_LLM_BASE_URL": endpoint.url,
        "LIVEJOBS_LLM_API_KEY": KEY,
        "LIVEJOBS_LLM_MODEL": "small",
    }
    with celery_worker(settings, folder / "worker.log", "livejobs_worker.app", env=env):
        yield settings
    stop_reporter()
    get_database().close()
    livejobs_settings.reset()


@pytest.fixture
def database(asking: Settings) -> Database:
    return get_database()


@asynccontextmanager
async def rest(settings: Settings, owner: str = "alice") -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server."""
    async with running_server(settings) as server, server.client(owner) as client:
        yield client


async def started(client: httpx.AsyncClient, **body: Any) -> str:
    """The job of a new batch."""
    response = await client.post("/v1/llm/batch", json=body)
    assert response.status_code == 202, response.text
    return str(response.json()["job_id"])


async def ended(database: Database, job_id: str) -> JobView:
    """The job, once it is over."""
    await wait_until_async(
        lambda: shown(database, job_id).status.is_final, description="it ends", seconds=60
    )
    return shown(database, job_id)


def used(database: Database, job_id: str) -> dict[str, int]:
    """What was recorded for a prompt, by meter."""
    with database.begin() as connection:
        rows = connection.execute(usage.select().where(usage.c.key.startswith(job_id)))
        return {row.meter: row.value for row in rows}


async def test_batch_asks_each_prompt_and_gives_the_answers(
    asking: Settings, database: Database, model: ModelServer
) -> None:
    prompts: list[Any] = [f"prompt {number}" for number in range(5)]
    prompts[3] = {"prompt": "prompt 3", "id": "mine", "system": "Be brief."}
    async with rest(asking) as client:
        job_id = await started(
            client, prompts=prompts, system="Be kind.", max_tokens=9, temperature=0, concurrency=2
        )
        job = await ended(database, job_id)
        assert job.error is None
        assert job.children is not None
        assert (job.children.total, job.children.completed) == (5, 5)
        assert job.progress is not None
        assert (job.progress.current, job.progress.total) == (5, 5)
        assert job.progress.data["tokens"] == 15
        told = {name: job.result[name] for name in ("done", "failed", "prompt_tokens", "tokens")}
        assert told == {"done": 5, "failed": 0, "prompt_tokens": 35, "tokens": 15}

        response = await client.get(f"/v1/jobs/{job_id}/result")
        lines = [json.loads(line) for line in response.text.splitlines()]
        assert [line["result"]["text"] for line in lines] == [
            f"You said prompt {number}" for number in range(5)
        ]
        assert lines[3]["result"]["id"] == "mine"
        first = (await client.get(f"/v1/jobs/{job_id}/results", params={"limit": 3})).json()
        more = {"limit": 3, "page": first["next"]}
        second = (await client.get(f"/v1/jobs/{job_id}/results", params=more)).json()
        assert first["items"] + second["items"] == lines
        assert second["next"] is None

        entries = (await client.get(f"/v1/jobs/{child_id(job_id, 2)}/entries")).json()["items"]
        output = "".join(entry["text"] for entry in entries if entry["type"] == "output")
        assert output == "You said prompt 2"
    bodies = {body["messages"][-1]["content"]: body for body in model.requests}
    assert bodies["prompt 1"]["messages"][0] == {"role": "system", "content": "Be kind."}
    assert bodies["prompt 3"]["messages"][0] == {"role": "system", "content": "Be brief."}
    asked = bodies["prompt 1"]
    assert (asked["model"], asked["max_tokens"], asked["temperature"]) == ("small", 9, 0)
    assert model.keys == {f"Bearer {KEY}"}
    for number in range(5):
        assert used(database, child_id(job_id, number)) == {
            "llm_prompt_tokens": 7,
            "llm_tokens": 3,
        }


async def test_prompts_that_fail_are_asked_again_and_fail_alone(
    asking: Settings, database: Database, model: ModelServer
) -> None:
    model.plan("too many", (429, {"Retry-After": "1"}), (429, {"Retry-After": "0"}))
    model.plan("broken", (500,), (503, {"Retry-After": "0"}))
    model.plan("cut off", ("cut",))
    model.plan("no end", ("short",))
    model.plan("wrong", (400,))
    prompts = ["too many", "broken", "cut off", "no end", "wrong", "well"]
    async with rest(asking) as client:
        job_id = await started(client, prompts=prompts, concurrency=6)
        job = await ended(database, job_id)
    assert job.status == "completed"
    assert (job.result["done"], job.result["failed"]) == (6, 1)
    children = [shown(database, child_id(job_id, number)) for number in range(6)]
    assert [child.status for child in children] == [*["completed"] * 4, "failed", "completed"]
    assert [child.attempt for child in children] == [3, 3, 2, 2, 1, 1]
    assert [model.asked[prompt] for prompt in prompts] == [3, 3, 2, 2, 1, 1]
    assert children[2].result["text"] == "You said cut off"
    assert children[4].error is not None
    assert "400" in children[4].error.message
    assert timeline(database, child_id(job_id, 0)).count("retried") == 2
    assert used(database, child_id(job_id, 2)) == {"llm_prompt_tokens": 7, "llm_tokens": 3}
    assert used(database, child_id(job_id, 4)) == {}
    # What the endpoint asks to wait for is waited for, by the database's clock.
    times = retry_times(database, child_id(job_id, 0))
    assert times[0] >= 0.9


def upload_of(row: JobRow) -> str:
    """The file of a batch."""
    args, _, _ = json.loads(row.message["body"])
    return str(args[0])


def retry_times(database: Database, job_id: str) -> list[float]:
    """The delays of a job's retries, in seconds."""
    with database.begin() as connection:
        rows = connection.execute(
            events.select()
            .where(events.c.job_id == job_id, events.c.kind == "retried")
            .order_by(events.c.id)
        )
        return [row.detail["delay"] for row in rows]


async def test_cancel_ends_a_stream_that_says_nothing(
    asking: Settings, database: Database, model: ModelServer
) -> None:
    model.plan("silent", ("silent",))
    async with rest(asking) as client:
        job_id = await started(client, prompts=["silent", "never"], concurrency=1)
        await wait_until_async(model.silent.is_set, description="it is silent", seconds=30)
        await client.post(f"/v1/jobs/{job_id}/cancel")
        await wait_until_async(model.left.is_set, description="the stream ends", seconds=30)
        assert (await ended(database, child_id(job_id, 0))).status == "cancelled"
    assert shown(database, job_id).status == "cancelled"
    assert model.asked["never"] == 0


async def test_batch_from_a_file_keeps_to_its_concurrency(
    asking: Settings, database: Database, model: ModelServer
) -> None:
    lines = [json.dumps("one"), "", json.dumps({"prompt": "two", "id": "b"}), json.dumps("three")]
    files = {"file": ("prompts.jsonl", "\n".join(lines).encode())}
    async with rest(asking) as client:
        response = await client.post(
            "/v1/llm/batch", files=files, data={"max_tokens": "5", "concurrency": "1"}
        )
        assert response.status_code == 202, response.text
        assert response.json()["prompts"] == 3
        job_id = response.json()["job_id"]
        job = await ended(database, job_id)
        assert job.result["done"] == 3
        assert model.most == 1
        assert shown(database, child_id(job_id, 1)).result["id"] == "b"
        kept = asking.data_dir / "uploads" / upload_of(read(database, job_id))
        assert kept.exists()
        assert (await client.delete(f"/v1/jobs/{job_id}")).status_code == 204
        assert not kept.exists()


async def test_batch_of_another_owner_is_unknown(asking: Settings, database: Database) -> None:
    async with rest(asking) as client:
        job_id = await started(client, prompts=["mine"])
        await ended(database, job_id)
    async with rest(asking, "bob") as bob:
        for path in ("result", "results"):
            assert (await bob.get(f"/v1/jobs/{job_id}/{path}")).status_code == 404


async def test_job_without_children_has_one_line(asking: Settings, database: Database) -> None:
    async with rest(asking) as client:
        job_id = await started(client, prompts=["alone"])
        await ended(database, job_id)
        alone = child_id(job_id, 0)
        line = (await client.get(f"/v1/jobs/{alone}/result")).json()
        assert line["result"]["text"] == "You said alone"
        assert (await client.get(f"/v1/jobs/{alone}/results")).json()["items"] == [line]


async def test_batch_is_repeated_by_its_idempotency_key(asking: Settings) -> None:
    async with rest(asking) as client:
        headers = {"Idempotency-Key": "once"}
        answers = [
            await client.post("/v1/llm/batch", json={"prompts": ["a"]}, headers=headers)
            for _ in range(2)
        ]
        assert answers[0].json()["job_id"] == answers[1].json()["job_id"]
        other = await client.post("/v1/llm/batch", json={"prompts": ["b"]}, headers=headers)
        assert other.json()["code"] == "idempotency_mismatch"
    parts = list((asking.data_dir / "uploads").glob("*.part"))
    assert parts == []


@pytest.mark.parametrize(
    ("request_", "status", "code", "says"),
    [
        ({"json": {"prompts": []}}, 422, "invalid_request", "prompts"),
        ({"json": {"prompts": ["a", ""]}}, 422, "invalid_request", "prompts[1]"),
        ({"json": {"prompts": ["a"], "max_tokens": 0}}, 422, "invalid_request", "max_tokens"),
        ({"json": {"prompts": ["a"], "modle": "x"}}, 422, "invalid_request", "modle"),
        ({"content": b"{"}, 422, "invalid_request", ""),
        ({"json": {"prompts": ["a" * 30_000]}}, 413, "body_too_large", "send a file"),
        ({"files": {"file": ("a", b"nonsense")}}, 422, "invalid_request", "line 1"),
        ({"files": {"file": ("a", b'"a"\n{"prompt": 1}')}}, 422, "invalid_request", "line 2"),
        ({"files": {"file": ("a", b"")}}, 422, "invalid_request", "none"),
        ({"files": {"other": ("a", b'"a"')}}, 422, "invalid_request", "file"),
        ({"files": {"file": ("a", b'"' + b"a" * 300_000)}}, 413, "file_too_large", ""),
    ],
)
async def test_request_that_is_not_as_documented_is_refused(
    asking: Settings, request_: dict[str, Any], status: int, code: str, says: str
) -> None:
    async with rest(asking) as client:
        response = await client.post("/v1/llm/batch", **request_)
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    assert says in response.json()["detail"]
    assert list((asking.data_dir / "uploads").glob("*.part")) == []


async def test_server_without_a_model_says_what_to_set(asking: Settings) -> None:
    without = asking.model_copy(update={"llm_base_url": None})
    async with rest(without) as client:
        response = await client.post("/v1/llm/batch", json={"prompts": ["a"]})
    assert (response.status_code, response.json()["code"]) == (501, "llm_unavailable")
    assert "LIVEJOBS_LLM_BASE_URL" in response.json()["detail"]
    nameless = asking.model_copy(update={"llm_model": None})
    async with rest(nameless) as client:
        response = await client.post("/v1/llm/batch", json={"prompts": ["a"]})
    assert "LIVEJOBS_LLM_MODEL" in response.json()["detail"]
