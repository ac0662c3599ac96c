"""Webhooks from end to end: REST, a real worker, and a receiver that answers in every way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
import redis
from standardwebhooks import Webhook

from livejobs import enqueue, transitions
from livejobs import settings as livejobs_settings
from livejobs.database import AsyncDatabase, get_database
from livejobs.dispatch import producer_app
from livejobs.reporter import stop_reporter
from livejobs.settings import Settings, configure
from livejobs.transitions import NewJob
from livejobs.webhook_settings import owner_secret
from livejobs_server import create_app, create_key
from livejobs_worker.webhooks import JITTER, PAUSES
from tests.conftest import DATABASES, SECRET, MakeDatabase
from tests.support.clients import client_of, code_of, running
from tests.support.rows import change, shown
from tests.support.webhook_receiver import SECRET as WEBHOOK_SECRET
from tests.support.webhook_receiver import Receiver
from tests.support.worker import celery_worker

pytest_plugins = ["tests.support.webhook_stack"]

OWN = {"LIVEJOBS_WEBHOOK_SECRET": WEBHOOK_SECRET, "LIVEJOBS_WEBHOOK_NETWORKS": "127.0.0.0/8"}
APP = "livejobs_worker.app"
OWNER = "ada"


@pytest.fixture(scope="module", params=DATABASES)
def sending(
    request: pytest.FixtureRequest,
    make_database: MakeDatabase,
    redis_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Settings]:
    """livejobs configured, and a real worker that sends webhooks, for a module's tests."""
    folder = tmp_path_factory.mktemp("sending")
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
    overrides: dict[str, Any] = {
        "database_url": make_database(request.param),
        "redis_url": redis_url,
        "data_dir": folder / "data",
        "secrets": SECRET,
        "webhook_secret": WEBHOOK_SECRET,
        "webhook_networks": "127.0.0.0/8",
    }
    settings = configure(**overrides)
    with celery_worker(settings, folder / "worker.log", APP, env=OWN):
        yield settings
    stop_reporter()
    get_database().close()
    livejobs_settings.reset()


@pytest.fixture
async def ada(sending: Settings, no_current_app: None) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the owner's."""
    database = AsyncDatabase(sending)
    async with running(create_app(sending)) as app:
        made = await create_key(database, OWNER, ("read", "write"))
        async with client_of(app, Authorization=f"Bearer {made.key}") as client:
            yield client
    await database.dispose()


async def counted(sending: Settings, url: str | None, **options: Any) -> str:
    """A job that counts to one, and tells a URL of it; its id."""
    arguments = options.pop("args", [1, 0.0])
    view = await enqueue(
        "demo.count",
        arguments,
        app=producer_app(sending),
        owner=OWNER,
        webhook_url=url,
        **options,
    )
    return view.job_id


async def delivered(client: httpx.AsyncClient, job_id: str, *, tries: int = 1) -> dict[str, Any]:
    """The last delivery of a job's end, once it has had so many tries and does not run."""
    for _ in range(600):
        answer = await client.get(f"/v1/jobs/{job_id}/webhooks")
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["items"]
        if found and len(found[0]["tries"]) >= tries and found[0]["status"] != "processing":
            return found[0]
        await asyncio.sleep(0.05)
    raise AssertionError(f"not so many tries within 30 s: {found}")


def pause_of(delivery: dict[str, Any]) -> timedelta:
    """How long after its last try the next one is."""
    next_try = datetime.fromisoformat(delivery["next_try_at"])
    return next_try - datetime.fromisoformat(delivery["tries"][-1]["at"])


async def test_end_of_a_job_arrives_signed_and_once(
    ada: httpx.AsyncClient, sending: Settings, receiver: Receiver
) -> None:
    job_id = await counted(sending, f"{receiver.url}/hooks?key=hidden", tags={"doc": "ü"})
    delivery = await delivered(ada, job_id)
    (taken,) = receiver.taken
    assert taken.path == "/hooks?key=hidden"
    assert taken.headers["content-type"] == "application/json"
    assert taken.headers["user-agent"].startswith("livejobs/")
    Webhook(owner_secret(WEBHOOK_SECRET, OWNER)).verify(taken.body, taken.headers)
    view = shown(get_database(), job_id)
    assert taken.event == {
        "type": "job.completed",
        "timestamp": view.model_dump(mode="json")["completed_at"],
        "data": view.model_dump(mode="json"),
    }
    assert delivery["webhook_id"] == taken.id
    assert (delivery["status"], delivery["type"]) == ("completed", "job.completed")
    assert (delivery["host"], delivery["next_try_at"]) == ("127.0.0.1", None)
    assert [(each["status_code"], each["error"]) for each in delivery["tries"]] == [(204, None)]
    listed = await ada.get("/v1/jobs", params={"tag": f"webhook_of={job_id}"})
    assert [item["job_id"] for item in listed.json()["items"]] == [delivery["job_id"]]
    for path in (f"/v1/jobs/{job_id}", f"/v1/jobs/{delivery['job_id']}", "/v1/jobs"):
        text = (await ada.get(path)).text
        assert "hidden" not in text
        assert WEBHOOK_SECRET[6:] not in text


async def test_failed_and_cancelled_jobs_are_told_of(
    ada: httpx.AsyncClient, sending: Settings, receiver: Receiver
) -> None:
    failed = await counted(sending, f"{receiver.url}/failed", args=[1, 0.0, 1])
    soon = datetime.now().astimezone() + timedelta(hours=1)
    cancelled = await counted(sending, f"{receiver.url}/cancelled", run_at=soon)
    assert (await ada.post(f"/v1/jobs/{cancelled}/cancel")).status_code == 202
    await delivered(ada, failed)
    await delivered(ada, cancelled)
    (first,), (second,) = receiver.of("/failed"), receiver.of("/cancelled")
    assert first.event["type"] == "job.failed"
    assert first.event["data"]["error"]["type"] == "CountFailed"
    assert "traceback" not in first.event["data"]["error"]
    assert second.event["type"] == "job.cancelled"


async def test_refused_webhook_is_tried_again_under_the_same_id(
    ada: httpx.AsyncClient, sending: Settings, receiver: Receiver
) -> None:
    answers = [(500,), (307, {"Location": f"{receiver.url}/private"}), ("cut",), (404,)]
    job_id = await counted(sending, receiver.plan("/flaky", *answers))
    for number, pause in enumerate(PAUSES[: len(answers)], start=1):
        delivery = await delivered(ada, job_id, tries=number)
        assert delivery["status"] == "pending"
        longest = pause * (1 + JITTER) + 1
        assert pause - 1 < pause_of(delivery).total_seconds() < longest
        again = await ada.post(f"/v1/jobs/{job_id}/webhooks/resend")
        assert (again.status_code, again.json()["job_id"]) == (202, delivery["job_id"])
    delivery = await delivered(ada, job_id, tries=5)
    assert delivery["status"] == "completed"
    assert [each["status_code"] for each in delivery["tries"]] == [500, 307, None, 404, 204]
    assert delivery["tries"][0]["error"] == "127.0.0.1 answered 500."
    taken = receiver.of("/flaky")
    assert len({each.id for each in taken}) == 1
    assert len({each.body for each in taken}) == 1
    assert taken[-1].event["type"] == "job.completed"
    assert receiver.of("/private") == []


async def test_receiver_says_when_to_come_back(
    ada: httpx.AsyncClient, sending: Settings, receiver: Receiver
) -> None:
    job_id = await counted(sending, receiver.plan("/busy", (429, {"Retry-After": "600"})))
    delivery = await delivered(ada, job_id)
    assert 595 < pause_of(delivery).total_seconds() < 605
    assert delivery["tries"][0]["status_code"] == 429


async def test_gone_ends_it_and_disables_the_owners_default(
    ada: httpx.AsyncClient, sending: Settings, receiver: Receiver
) -> None:
    url = receiver.plan("/gone", (410,))
    assert (await ada.put("/v1/webhooks/default", json={"url": url})).status_code == 200
    job_id = await counted(sending, None)
    delivery = await delivered(ada, job_id)
    assert (delivery["status"], delivery["next_try_at"]) == ("failed", None)
    assert delivery["tries"][0]["status_code"] == 410
    default = (await ada.get("/v1/webhooks/default")).json()
    assert (default["url"], default["disabled_at"] is None) == (url, False)
    second = await counted(sending, None)
    await delivered(ada, await counted(sending, f"{receiver.url}/other"))
    assert (await ada.get(f"/v1/jobs/{second}/webhooks")).json() == {"items": []}
    assert len(receiver.of("/gone")) == 1


async def test_address_in_a_private_network_fails_at_once(
    ada: httpx.AsyncClient, sending: Settings
) -> None:
    # As if it had been allowed when the job was made.
    fields: dict[str, Any] = {"owner": OWNER, "webhook_url": "http://10.0.0.1/"}
    new = NewJob(id=uuid4().hex, task="t", queue="nobodys", message={"m": 1}, **fields)
    change(get_database(), transitions.create(new))
    assert (await ada.post(f"/v1/jobs/{new.id}/cancel")).status_code == 202
    delivery = await delivered(ada, new.id)
    assert delivery["status"] == "failed"
    assert "private network" in delivery["tries"][0]["error"]


async def test_delivery_that_arrived_is_sent_again_on_request(
    ada: httpx.AsyncClient, sending: Settings, receiver: Receiver
) -> None:
    job_id = await counted(sending, f"{receiver.url}/twice")
    first = await delivered(ada, job_id)
    again = await ada.post(f"/v1/jobs/{job_id}/webhooks/resend")
    assert again.status_code == 202
    assert again.json()["job_id"] != first["job_id"]
    second = await delivered(ada, job_id)
    assert second["job_id"] == again.json()["job_id"]
    taken = receiver.of("/twice")
    assert [each.id for each in taken] == [first["webhook_id"]] * 2
    assert taken[0].body == taken[1].body


async def test_job_that_told_nobody_has_nothing_to_send_again(
    ada: httpx.AsyncClient, sending: Settings, receiver: Receiver
) -> None:
    job_id = await counted(sending, "")
    answer = await ada.post(f"/v1/jobs/{job_id}/webhooks/resend")
    assert code_of(answer) == (404, "unknown_webhook")


async def test_deleted_job_takes_what_told_of_it_along(
    ada: httpx.AsyncClient, sending: Settings, receiver: Receiver
) -> None:
    job_id = await counted(sending, f"{receiver.url}/deleted")
    delivery = await delivered(ada, job_id)
    assert (await ada.delete(f"/v1/jobs/{job_id}")).status_code == 204
    for gone in (job_id, delivery["job_id"]):
        assert code_of(await ada.get(f"/v1/jobs/{gone}")) == (404, "unknown_job")
