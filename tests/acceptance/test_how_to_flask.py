"""The page on Flask: its app, with the server on another origin, used by a real browser."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from livejobs.settings import Settings
from tests.conftest import SECRET
from tests.support import pages
from tests.support.chromium import drive
from tests.support.own_app import beside, last_view, watched
from tests.support.server import http_server
from tests.support.servers import child, free_port
from tests.support.waiting import wait_until
from tests.support.worker import celery_worker, environment

PAGE = "how-to/flask.md"
DRIVER = Path(__file__).with_name("press_and_wait.mjs")


class Site(NamedTuple):
    """Where Flask and livejobs are."""

    flask: str
    jobs: str


@pytest.fixture(scope="module")
def site(own_settings: Settings, folder: Path) -> Iterator[Site]:
    """The page's app, its worker, and the server beside it."""
    pages.write(PAGE, folder)
    port = free_port()
    flask = f"http://127.0.0.1:{port}"
    env = beside(own_settings, folder, LIVEJOBS_ALLOWED_ORIGINS=flask, LIVEJOBS_SECRETS=SECRET)
    with ExitStack() as running:
        running.enter_context(
            celery_worker(own_settings, folder / "worker.log", "shop:celery_app", env=env)
        )
        jobs = running.enter_context(http_server(own_settings, folder / "server.log", env=env))
        page = folder / "page.html"
        page.write_text(page.read_text().replace("http://127.0.0.1:8000", jobs))
        command = [sys.executable, "-m", "flask", "--app", "shop", "run", "--port", str(port)]
        running.enter_context(child(command, folder / "flask.log", environment(own_settings) | env))
        wait_until(
            lambda: "Running on" in (folder / "flask.log").read_text(),
            description="Flask answers",
            seconds=40,
        )
        yield Site(flask, jobs)


def test_page_shows_the_job_from_another_origin(site: Site) -> None:
    shown = drive(DRIVER, f"{site.flask}/")
    assert shown == {"percent": "100 %", "sockets": 1, "mistakes": []}


def test_token_is_good_for_the_jobs_of_its_user(site: Site) -> None:
    with httpx.Client(base_url=site.flask) as browser:
        assert browser.get("/job-token").status_code == 401
        browser.post("/sign-in/ada").raise_for_status()
        job_id = browser.post("/exports/2").raise_for_status().json()["job_id"]
        adas = browser.get("/job-token").raise_for_status().json()["token"]
        browser.post("/sign-in/bob").raise_for_status()
        bobs = browser.get("/job-token").raise_for_status().json()["token"]
    with httpx.Client(base_url=site.jobs, headers={"Authorization": f"Bearer {adas}"}) as client:
        view = last_view(watched(client, f"/v1/jobs/{job_id}/events"))
        assert client.post(f"/v1/jobs/{job_id}/cancel").status_code == 403
        client.headers["Authorization"] = f"Bearer {bobs}"
        assert client.get(f"/v1/jobs/{job_id}").status_code == 404
    assert (view["status"], view["result"], view["owner"]) == ("completed", "2 rows", "ada")


def test_only_named_origins_are_let_in(site: Site) -> None:
    asked = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    named = httpx.options(f"{site.jobs}/v1/jobs", headers={"Origin": site.flask} | asked)
    assert named.status_code == 200
    assert named.headers["access-control-allow-origin"] == site.flask
    other = httpx.options(f"{site.jobs}/v1/jobs", headers={"Origin": "https://other.test"} | asked)
    assert other.status_code == 400
    assert "access-control-allow-origin" not in other.headers
