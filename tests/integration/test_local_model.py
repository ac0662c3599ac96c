"""The model that `livejobs up` brings along, and batches that it answers: all of it real."""

from __future__ import annotations

import json
import os
from pathlib import Path

import httpx
import pytest

from livejobs.database import Database
from livejobs.settings import Settings
from livejobs.spawning import child_id
from livejobs_server import embedded, local_model
from livejobs_server.supervisor import Supervisor
from tests.support.live_server import running_server
from tests.support.rows import shown
from tests.support.waiting import wait_until_async
from tests.support.worker import celery_worker

KEY = "not-a-secret-only-a-test"


@pytest.fixture
def path() -> Path:
    """The model's file."""
    found = local_model.find_model()
    assert found is not None, "make installs it"
    return found


def ignore(name: str, line: str) -> None:
    """Takes the output of children."""


async def test_batch_is_answered_by_the_local_model(
    settings: Settings, database: Database, tmp_path: Path, path: Path
) -> None:
    port = embedded.free_port()
    env = {
        "LIVEJOBS_LLM_BASE_URL": local_model.base_url(port),
        "LIVEJOBS_LLM_API_KEY": KEY,
        "LIVEJOBS_LLM_MODEL": local_model.MODEL,
    }
    asking = settings.model_copy(
        update={"llm_base_url": local_model.base_url(port), "llm_model": local_model.MODEL}
    )
    async with Supervisor(ignore) as supervisor:
        await supervisor.start(local_model.model_program(path, KEY, port, os.environ))
        with celery_worker(asking, tmp_path / "worker.log", "livejobs_worker.app", env=env):
            async with running_server(asking) as server, server.client() as client:
                body = {"prompts": ["Say hello.", "Name a colour."], "max_tokens": 6}
                response = await client.post("/v1/llm/batch", json=body)
                job_id = response.json()["job_id"]
                await wait_until_async(
                    lambda: shown(database, job_id).status.is_final,
                    description="the model has answered",
                    seconds=90,
                )
                text = (await client.get(f"/v1/jobs/{job_id}/result")).text
                answers = [json.loads(line)["result"] for line in text.splitlines()]
                entries = await client.get(f"/v1/jobs/{child_id(job_id, 1)}/entries")
    assert shown(database, job_id).result["failed"] == 0
    assert [answer["prompt"] for answer in answers] == body["prompts"]
    assert all(0 < answer["tokens"] <= 6 and answer["text"] for answer in answers)
    output = "".join(entry["text"] for entry in entries.json()["items"] if "text" in entry)
    assert output == answers[1]["text"]


async def test_local_model_wants_its_key(path: Path) -> None:
    port = embedded.free_port()
    async with Supervisor(ignore) as supervisor:
        await supervisor.start(local_model.model_program(path, KEY, port, os.environ))
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            url = f"{local_model.base_url(port)}/chat/completions"
            body = {"messages": [{"role": "user", "content": "Hi."}], "max_tokens": 1}
            refused = await client.post(url, json=body, headers={"Authorization": "Bearer x"})
            assert refused.status_code == 401
    async with httpx.AsyncClient(trust_env=False) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(f"http://127.0.0.1:{port}/health")


def test_threads_leave_processors_to_others() -> None:
    assert 1 <= local_model.threads() <= local_model.MOST_THREADS
