"""The code of the classic Celery and FastAPI pattern works unchanged except for the base class."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import websockets
from httpx_sse import connect_sse

from livejobs.settings import Settings
from tests.support.server import http_server
from tests.support.waiting import wait_until

ADA = {"x-user-key": "key-of-ada"}
BOB = {"x-user-key": "key-of-bob"}


@pytest.fixture(scope="module")
def url(working: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The user's FastAPI app, served by uvicorn, beside the user's worker."""
    log = tmp_path_factory.mktemp("server") / "server.log"
    with http_server(working, log, "tests.support.classic_api:app") as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    """Ada's client."""
    with httpx.Client(base_url=url, headers=ADA, timeout=20) as client:
        yield client


def start(client: httpx.Client, path: str) -> str:
    """Start a job by an endpoint of the app."""
    job_id: str = client.post(path).raise_for_status().json()["job_id"]
    return job_id


def ended(client: httpx.Client, job_id: str) -> dict[str, Any]:
    """The job's view, by polling until it is over."""

    def read() -> dict[str, Any] | None:
        view: dict[str, Any] = client.get(f"/v1/jobs/{job_id}").raise_for_status().json()
        return view if view["completed_at"] else None

    view = wait_until(read, description=f"{job_id} ends", seconds=30)
    assert view is not None
    return view


def test_delay_in_an_endpoint_and_the_polling_endpoint(client: httpx.Client) -> None:
    job_id = client.post("/process/50").json()["job_id"]
    seen: list[dict[str, Any]] = []

    def over() -> bool:
        seen.append(client.get(f"/v1/jobs/{job_id}").raise_for_status().json())
        return seen[-1]["status"] in {"completed", "failed", "cancelled"}

    wait_until(over, description="the job ends", seconds=30)
    last = seen[-1]
    assert (last["status"], last["result"], last["error"]) == ("completed", {"items": 50}, None)
    assert last["progress"]["current"] == last["progress"]["total"] == 50
    assert last["owner"] == "ada"
    assert last["created_at"] <= last["started_at"] <= last["completed_at"]
    currents = [view["progress"]["current"] for view in seen if view["progress"]]
    assert currents == sorted(currents)
    assert len(set(currents)) > 3, "progress was seen while the job ran"
    assert {view["status"] for view in seen} <= {"pending", "processing", "completed"}


async def test_websocket_of_one_job(client: httpx.Client, url: str) -> None:
    job_id = start(client, "/process/20")
    address = f"{url.replace('http', 'ws')}/v1/jobs/{job_id}/ws"
    messages = []
    async with websockets.connect(address, additional_headers=ADA) as socket:
        async for text in socket:
            messages.append(json.loads(text))
    assert socket.close_code == 1000
    assert [messages[0]["type"], messages[1]["type"]] == ["subscribed", "job"]
    assert messages[-1] == {"type": "end", "id": messages[-1]["id"], "job_id": job_id}
    assert messages[-2]["job"] == ended(client, job_id)
    seqs = [message["seq"] for message in messages if message["type"] == "progress"]
    assert seqs == sorted(set(seqs))


def test_sse_of_one_job(client: httpx.Client) -> None:
    job_id = client.post("/process/20").json()["job_id"]
    with connect_sse(client, "GET", f"/v1/jobs/{job_id}/events") as source:
        messages = [json.loads(event.data) for event in source.iter_sse()]
    assert messages[-1]["type"] == "end"
    jobs = [message["job"] for message in messages if message["type"] == "job"]
    assert jobs[-1] == client.get(f"/v1/jobs/{job_id}").json()


def test_retry_inside_except_exception_is_shown(client: httpx.Client) -> None:
    job_id = client.post("/flaky/2").json()["job_id"]
    view = ended(client, job_id)
    assert (view["status"], view["attempt"], view["result"]) == (
        *("completed", 3, "worked after 2"),
    )
    timeline = client.get(f"/v1/jobs/{job_id}/timeline").raise_for_status().json()
    kinds = [event["kind"] for event in timeline["items"]]
    assert kinds.count("retried") == 2


def test_chain_from_an_endpoint(client: httpx.Client) -> None:
    job_id = client.post("/add").json()["job_id"]
    wait_until(
        lambda: client.get(f"/v1/jobs/{job_id}").status_code == 200,
        description="the second step is there",
    )
    view = ended(client, job_id)
    assert (view["result"], view["owner"]) == (6, "ada")


def test_jobs_are_the_owners_only(client: httpx.Client, url: str) -> None:
    job_id = client.post("/process/5").json()["job_id"]
    unknown = httpx.get(f"{url}/v1/jobs/unknown", headers=BOB)
    foreign = httpx.get(f"{url}/v1/jobs/{job_id}", headers=BOB)
    assert unknown.status_code == foreign.status_code == 404
    assert httpx.get(f"{url}/v1/jobs/{job_id}").status_code == 401
    assert job_id in {job["job_id"] for job in client.get("/v1/jobs").json()["items"]}
    assert job_id not in httpx.get(f"{url}/v1/jobs", headers=BOB).text


def test_apps_own_routes_and_errors_stay_its_own(client: httpx.Client) -> None:
    assert client.get("/v2/hello").json() == {"hello": "world"}
    assert client.post("/process/99999").json() == {"detail": "too many"}
    assert client.get("/nowhere").json() == {"detail": "Not Found"}
    assert "/process/{items}" in client.get("/openapi.json").json()["paths"]


async def test_all_transports_at_once_end_alike(client: httpx.Client, url: str) -> None:
    job_id = start(client, "/process/30")

    def over_sse() -> dict[str, Any]:
        with (
            httpx.Client(base_url=url, headers=ADA, timeout=30) as own,
            connect_sse(own, "GET", f"/v1/jobs/{job_id}/events") as source,
        ):
            messages = [json.loads(event.data) for event in source.iter_sse()]
        view: dict[str, Any] = [m["job"] for m in messages if m["type"] == "job"][-1]
        return view

    async def over_websocket() -> dict[str, Any]:
        address = f"{url.replace('http', 'ws')}/v1/ws"
        async with websockets.connect(address, additional_headers=ADA) as socket:
            await socket.send(json.dumps({"op": "subscribe", "job_id": job_id, "ref": 7}))
            view: dict[str, Any] = {}
            async for text in socket:
                message = json.loads(text)
                if message["type"] == "job":
                    view = message["job"]
                if message["type"] == "end":
                    break
            return view

    def over_polling() -> dict[str, Any]:
        with httpx.Client(base_url=url, headers=ADA, timeout=30) as own:
            return ended(own, job_id)

    views = await asyncio.gather(
        asyncio.to_thread(over_sse), over_websocket(), asyncio.to_thread(over_polling)
    )
    assert views[0] == views[1] == views[2]
    assert views[0]["status"] == "completed"
