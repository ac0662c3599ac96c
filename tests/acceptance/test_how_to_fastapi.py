"""The page on FastAPI: its app, with its users, its database session and its Celery app."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from livejobs.settings import Settings
from tests.support import pages
from tests.support.own_app import beside, last_view, watched
from tests.support.server import http_server
from tests.support.worker import celery_worker

ALICE, BOB = {"session": "secret-of-alice"}, {"session": "secret-of-bob"}


@pytest.fixture(scope="module")
def url(own_settings: Settings, folder: Path) -> Iterator[str]:
    """The page's web app and its worker."""
    pages.write("how-to/mount-in-a-fastapi-app.md", folder)
    env = beside(own_settings, folder)
    with (
        celery_worker(own_settings, folder / "worker.log", "shop", env=env),
        http_server(
            own_settings, folder / "web.log", "web:app", env=env, health="/jobs/healthz"
        ) as url,
    ):
        yield url


def test_job_of_an_endpoint_is_its_users(url: str) -> None:
    with httpx.Client(base_url=url, cookies=ALICE, timeout=20) as alice:
        job_id = alice.post("/exports?rows=3").raise_for_status().json()["job_id"]
        view = last_view(watched(alice, f"/jobs/v1/jobs/{job_id}/events"))
    assert (view["status"], view["result"], view["owner"]) == ("completed", "3 rows", "alice")
    foreign = httpx.get(f"{url}/jobs/v1/jobs/{job_id}", cookies=BOB)
    assert (foreign.status_code, foreign.json()["code"]) == (404, "unknown_job")
    assert httpx.post(f"{url}/exports?rows=3").status_code == 401


def test_order_and_its_job_are_committed_together(url: str, own_settings: Settings) -> None:
    with httpx.Client(base_url=url, cookies=ALICE, timeout=20) as alice:
        job_id = alice.post("/orders?item=bread").raise_for_status().json()["job_id"]
        messages = watched(alice, f"/jobs/v1/jobs/{job_id}/events")
    view = last_view(messages)
    with sqlite3.connect(own_settings.database_url.removeprefix("sqlite:///")) as database:
        orders = database.execute("SELECT id, item, customer FROM orders").fetchall()
    assert orders == [(1, "bread", "alice")]
    assert (view["status"], view["result"], view["owner"]) == ("completed", {"order": 1}, "alice")
    lines = [line["text"] for m in messages if m["type"] == "log" for line in m["lines"]]
    assert lines == ["bread is packed", "butter is packed", "bag is packed"]


def test_apps_own_documentation_stays_its_own(url: str) -> None:
    own = httpx.get(f"{url}/openapi.json").json()
    assert set(own["paths"]) == {"/exports", "/orders"}
    assert "/v1/jobs/{job_id}" in httpx.get(f"{url}/jobs/openapi.json").json()["paths"]
