"""The pages: to whom they are shown, with which headers, and what they load."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import HTTPConnection

from livejobs.settings import Settings
from livejobs_server import Viewer, mount
from tests.support.clients import client_of, code_of, running
from tests.support.live_server import on_sqlite

pytest_plugins = ["tests.support.live_stack", "tests.support.rest"]

pytestmark = on_sqlite


def by_cookie(connection: HTTPConnection) -> Viewer | None:
    """A user's own sign-in."""
    name = connection.cookies.get("user")
    return None if name is None else Viewer(owner=name)


@pytest.fixture
async def site(settings: Settings) -> AsyncIterator[FastAPI]:
    """A user's app with the pages in it."""
    app = FastAPI()
    mount(app, prefix="/backstage", authenticate=by_cookie, settings=settings, pages=True)

    @app.get("/")
    def theirs() -> str:
        return "theirs"

    async with running(app):
        yield app


def links(page: str) -> set[str]:
    """All that a page names as its own to be loaded."""
    return set(re.findall(r'(?:href|src)="([^"#]+/assets/[^"]+|/assets/[^"]+)"', page))


async def test_who_is_not_signed_in_is_asked_to(nobody: httpx.AsyncClient) -> None:
    for path, further in (("/", "%2F"), ("/jobs/a%2Db", "%2Fjobs%2Fa-b")):
        answer = await nobody.get(path)
        assert (answer.status_code, answer.headers["location"]) == (303, f"/sign-in?next={further}")
        assert answer.headers["cache-control"] == "no-store"
    page = await nobody.get("/sign-in")
    assert page.status_code == 200
    assert "API key" in page.text
    assert '"owner"' not in page.text


async def test_who_is_signed_in_is_shown_the_pages(alice: httpx.AsyncClient) -> None:
    for path, name in (("/", "home"), ("/jobs/some", "job")):
        page = await alice.get(path)
        assert page.status_code == 200
        assert f'class="page-{name}"' in page.text
        assert '"owner":"alice"' in page.text
    assert (await alice.get("/sign-in")).headers["location"] == "/"


async def test_pages_let_nothing_in_from_elsewhere(alice: httpx.AsyncClient) -> None:
    for path in ("/", "/jobs/some", "/sign-in"):
        headers = (await alice.get(path, follow_redirects=True)).headers
        policy = dict(
            part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";")
        )
        assert policy["default-src"] == "'none'"
        assert policy["frame-ancestors"] == "'none'"
        assert policy["base-uri"] == "'none'"
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "private, no-cache"
        assert "Cookie" in headers["vary"]


async def test_everything_that_a_page_loads_is_there(alice: httpx.AsyncClient) -> None:
    for path in ("/", "/jobs/some"):
        found = links((await alice.get(path)).text)
        assert len(found) > 10
        for link in found:
            answer = await alice.get(link)
            assert answer.status_code == 200, link
            assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
            assert answer.headers["x-content-type-options"] == "nosniff"


async def test_text_from_outside_cannot_break_out_of_a_page(
    make_client: object, app: FastAPI, alice: httpx.AsyncClient
) -> None:
    page = await alice.get("/jobs/%3C%2Fscript%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E")
    # A slash ends the job's id: this is no page of ours.
    assert page.status_code == 404
    page = await alice.get("/jobs/%3Cscript%3Ealert(1)&%22")
    assert page.status_code == 200
    assert "<script>alert" not in page.text
    assert '"job":"\\u003cscript\\u003ealert(1)\\u0026\\""' in page.text


async def test_client_is_served_to_everybody_and_asked_for_again(
    nobody: httpx.AsyncClient,
) -> None:
    for path in ("/client.js", "/client/index.js"):
        answer = await nobody.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
        assert answer.headers["cache-control"] == "no-cache"
        etag = answer.headers["etag"]
        again = await nobody.get(path, headers={"If-None-Match": etag})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == etag
    assert 'from "./client/index.js"' in (await nobody.get("/client.js")).text
    head = await nobody.head("/client.js")
    assert (head.status_code, head.content) == (200, b"")


async def test_scripts_are_packed_for_those_who_unpack_them(nobody: httpx.AsyncClient) -> None:
    plain = await nobody.get("/client/client.js", headers={"Accept-Encoding": "identity"})
    packed = await nobody.get("/client/client.js", headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.text == plain.text


@pytest.mark.parametrize(
    "path",
    [
        "/client/../../../pyproject.toml",
        "/client/..%2f..%2fpackage.json",
        "/client/%2e%2e/%2e%2e/package.json",
        "/client//etc/passwd",
        "/client/",
        "/client/package.json",
        "/assets/x/../../pages.py",
        "/assets/x/package.json",
        "/assets/x/..%5cpages.py",
    ],
)
async def test_nothing_else_is_served(nobody: httpx.AsyncClient, path: str) -> None:
    answer = await nobody.get(path)
    assert answer.status_code == 404


async def test_assets_of_another_release_are_not_kept(nobody: httpx.AsyncClient) -> None:
    answer = await nobody.get("/assets/of-another/home.js")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-cache")


# -- in a user's app -------------------------------------------------------------------------------


async def test_pages_in_a_users_app_go_by_its_sign_in(site: FastAPI) -> None:
    async with client_of(site, Cookie="user=alice") as browser:
        page = await browser.get("/backstage/")
        assert '"owner":"alice"' in page.text
        assert '"canSignOut":false' in page.text
        assert all(link.startswith("/backstage/assets/") for link in links(page.text))
        assert (await browser.get("/backstage/sign-in")).headers["location"] == "/backstage/"
        assert (await browser.get("/")).json() == "theirs"
        assert (await browser.get("/backstage/client.js")).status_code == 200
        # Their session cookie is not ours to set or to take.
        answer = await browser.post("/backstage/v1/session", json={"key": "lj_x"})
        assert code_of(answer) == (404, "not_found")


async def test_who_is_not_signed_in_to_a_users_app_is_told_so(site: FastAPI) -> None:
    async with client_of(site) as browser:
        page = await browser.get("/backstage/")
        assert page.status_code == 401
        assert "Sign in to the app" in page.text
        assert '<script type="module"' not in page.text


async def test_a_users_app_has_no_pages_unless_it_asks_for_them(settings: Settings) -> None:
    app = FastAPI()
    mount(app, prefix="/backstage", authenticate=by_cookie, settings=settings)
    async with running(app), client_of(app, Cookie="user=alice") as browser:
        assert (await browser.get("/backstage/")).status_code == 404
        assert (await browser.get("/backstage/jobs/some")).status_code == 404
        assert (await browser.get("/backstage/client.js")).status_code == 200
