"""The page on Django: its project, with real sessions, a real worker, in one ASGI app."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from livejobs.settings import Settings
from tests.support import pages
from tests.support.own_app import beside, last_view, watched
from tests.support.server import http_server
from tests.support.worker import celery_worker, environment

PAGE = "how-to/django.md"
PASSWORD = "correct horse battery"
USERS = (
    "from django.contrib.auth.models import User; "
    f"[User.objects.create_superuser(name, password='{PASSWORD}') for name in ('alice', 'bob')]"
)


@pytest.fixture(scope="module")
def url(own_settings: Settings, folder: Path) -> Iterator[str]:
    """The page's project, made by its commands, and its worker."""
    env = beside(own_settings, folder)
    scripts = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    shell = os.environ | environment(own_settings) | env | {"PATH": scripts}

    def run(command: str) -> None:
        done = subprocess.run(
            shlex.split(command), cwd=folder, env=shell, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr.decode()

    making, running, *_ = pages.commands(PAGE)
    for command in making.splitlines():
        run(command)
    pages.write(PAGE, folder)
    for command in running.splitlines():
        if command.startswith("python manage.py"):
            run(command)
    run(f'python manage.py shell -c "{USERS}"')
    with (
        celery_worker(own_settings, folder / "worker.log", "shop", env=env),
        http_server(
            own_settings,
            folder / "web.log",
            "shop.asgi:application",
            env=env,
            health="/jobs/healthz",
        ) as url,
    ):
        yield url


@contextlib.contextmanager
def signed_in(url: str, name: str) -> Iterator[httpx.Client]:
    """A browser after Django's own sign-in."""
    with httpx.Client(base_url=url, timeout=20) as client:
        client.get("/admin/login/").raise_for_status()
        fields = {"username": name, "password": PASSWORD, "next": "/admin/"}
        answer = client.post("/admin/login/", data=fields | token_of(client))
        assert (answer.status_code, answer.headers["location"]) == (302, "/admin/")
        yield client


def token_of(client: httpx.Client) -> dict[str, str]:
    """What Django wants to see against forged requests."""
    return {"csrfmiddlewaretoken": client.cookies["csrftoken"]}


def test_order_of_a_user_becomes_a_job_of_theirs(url: str) -> None:
    with signed_in(url, "alice") as alice, signed_in(url, "bob") as bob:
        answer = alice.post("/orders/", data={"item": "bread"} | token_of(alice))
        job_id = answer.raise_for_status().json()["job_id"]
        messages = watched(alice, f"/jobs/v1/jobs/{job_id}/events")
        view = last_view(messages)
        assert (view["task"], view["status"]) == ("orders.tasks.pack", "completed")
        assert view["result"] == {"order": 1, "item": "bread"}
        assert view["owner"] == "1"
        lines = [line["text"] for m in messages if m["type"] == "log" for line in m["lines"]]
        assert lines == ["bread is packed", "butter is packed", "bag is packed"]
        assert bob.get(f"/jobs/v1/jobs/{job_id}").status_code == 404
    assert httpx.get(f"{url}/jobs/v1/jobs/{job_id}").status_code == 401


def test_order_that_is_rolled_back_leaves_no_job(url: str) -> None:
    with signed_in(url, "bob") as bob:
        answer = bob.post("/orders/", data={"item": ""} | token_of(bob))
        assert answer.status_code == 500
        assert bob.get("/jobs/v1/jobs").json()["items"] == []


def test_rest_of_the_site_is_djangos(url: str) -> None:
    assert "Page not found" in httpx.get(f"{url}/nowhere").text
    assert httpx.get(f"{url}/jobs/client.js").headers["content-type"].startswith("text/javascript")
