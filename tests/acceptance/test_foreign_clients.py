"""Clients that are not ours follow a job to its end: curl, httpx-sse, websockets, and npm's."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import connect_sse
from websockets.sync.client import connect

from livejobs.settings import Settings
from livejobs_server import sign_token
from tests.support.rows import shown
from tests.support.server import http_server
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
LINES, PIECES = 20, 20


@pytest.fixture(scope="module")
def url(working: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The server of its own, beside the user's worker."""
    log = tmp_path_factory.mktemp("server") / "server.log"
    with http_server(working, log) as url:
        yield url


@pytest.fixture
def token(working: Settings) -> str:
    """Ada's."""
    return sign_token(owner="ada", settings=working)


@pytest.fixture
def client(url: str, token: str) -> Iterator[httpx.Client]:
    """Ada's client."""
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=url, headers=headers, timeout=30) as client:
        yield client


@pytest.fixture
def job_id(working: Settings) -> str:
    """A job that talks for two seconds."""
    from tests.support import jobs_app

    options = {"owner": "ada"}
    return str(jobs_app.talk.apply_async((LINES, PIECES, 0.1), **options).id)


def ticket(client: httpx.Client, job_id: str) -> str:
    answer = client.post("/v1/tickets", json={"jobs": [job_id]})
    value: str = answer.raise_for_status().json()["ticket"]
    return value


def check(messages: list[dict[str, Any]], job_id: str) -> None:
    """The messages tell all of the job, each entry once, and its end."""
    from livejobs.database import get_database

    assert messages[-1]["type"] == "end"
    views = [message["job"] for message in messages if message["type"] == "job"]
    check_end(views[-1], [m for m in messages if m["type"] in ("log", "output")])
    assert views[-1] == shown(get_database(), job_id).model_dump(mode="json")


def check_end(view: dict[str, Any], entries: list[dict[str, Any]]) -> None:
    assert (view["status"], view["result"]) == ("completed", {"lines": LINES, "pieces": PIECES})
    lines = [line["text"] for entry in entries for line in entry.get("lines", [])]
    output = "".join(entry.get("text", "") for entry in entries)
    assert lines == [f"line {i}" for i in range(1, LINES + 1)]
    assert output == "".join(f"piece {i};" for i in range(1, PIECES + 1))


def test_curl_with_a_ticket(client: httpx.Client, url: str, job_id: str) -> None:
    address = f"{url}/v1/jobs/{job_id}/events?ticket={ticket(client, job_id)}"
    done = subprocess.run(
        ["curl", "-sSN", "--max-time", "30", address], capture_output=True, text=True, check=True
    )
    blocks = [line for line in done.stdout.splitlines() if line.startswith("data: ")]
    check([json.loads(line.removeprefix("data: ")) for line in blocks], job_id)
    again = subprocess.run(
        ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", address],
        capture_output=True,
        text=True,
        check=True,
    )
    assert again.stdout == "401", "a ticket is good for one use"


def test_httpx_sse(client: httpx.Client, job_id: str) -> None:
    with connect_sse(client, "GET", f"/v1/jobs/{job_id}/events") as source:
        check([json.loads(event.data) for event in source.iter_sse()], job_id)


def test_websockets(url: str, token: str, job_id: str) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    address = f"{url.replace('http', 'ws')}/v1/jobs/{job_id}/ws"
    with connect(address, additional_headers=headers) as socket:
        messages = [json.loads(text) for text in socket]
        assert socket.protocol.close_code == 1000
    check(messages, job_id)


def test_clients_from_npm(client: httpx.Client, url: str, token: str, job_id: str) -> None:
    """Ours by each transport, npm's ws, and npm's eventsource, which sends no headers."""
    node = shutil.which("node")
    assert node, "these tests need Node 20: install it, then run `make test`"
    wait_until(
        lambda: client.get(f"/v1/jobs/{job_id}").json()["status"] != "pending",
        description="the job runs",
    )
    done = subprocess.run(
        [node, "test/smoke.mjs", url, job_id, token, ticket(client, job_id)],
        cwd=ROOT / "client-js",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    clients = {report["client"] for report in reports}
    assert clients == {"websocket", "sse", "polling", "ws", "eventsource"}
    for report in reports:
        check_end(report["final"], report["entries"])
