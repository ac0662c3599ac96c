"""Webhooks over REST: who may set whose default, and what is refused at once."""

from __future__ import annotations

import httpx
import pytest

from livejobs import reads
from livejobs.database import AsyncDatabase
from livejobs.settings import Settings
from livejobs.webhook_settings import owner_secret
from tests.support.clients import MakeClient, changed, code_of
from tests.support.webhook_receiver import SECRET

pytest_plugins = ["tests.support.live_stack", "tests.support.rest"]

DEFAULT = "/v1/webhooks/default"
URL = "https://example.com/hooks?key=hidden"


@pytest.fixture
def settings(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    """With a secret to sign with, and every task allowed."""
    secret = getattr(request, "param", SECRET)
    return changed(settings, webhook_secret=secret, tasks="*")


async def test_default_is_set_shown_and_deleted(alice: httpx.AsyncClient) -> None:
    assert code_of(await alice.get(DEFAULT)) == (404, "unknown_webhook")
    assert code_of(await alice.delete(DEFAULT)) == (404, "unknown_webhook")
    made = await alice.put(DEFAULT, json={"url": URL})
    assert made.status_code == 200, made.text
    assert made.headers["cache-control"] == "no-store"
    assert made.json().items() >= {"owner": "alice", "url": URL, "disabled_at": None}.items()
    again = (await alice.put(DEFAULT, json={"url": "https://example.org/"})).json()
    assert again["created_at"] == made.json()["created_at"]
    assert (await alice.get(DEFAULT)).json() == again
    assert (await alice.delete(DEFAULT)).status_code == 204
    assert code_of(await alice.get(DEFAULT)) == (404, "unknown_webhook")


async def test_defaults_of_others_are_the_admins(
    alice: httpx.AsyncClient, bob: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    await alice.put(DEFAULT, json={"url": URL})
    assert code_of(await bob.get(DEFAULT)) == (404, "unknown_webhook")
    others = {"owner": "alice"}
    for answer in (
        await bob.get(DEFAULT, params=others),
        await bob.delete(DEFAULT, params=others),
        await bob.put(DEFAULT, params=others, json={"url": URL}),
    ):
        assert code_of(answer) == (403, "scope_missing")
    assert (await admin.get(DEFAULT, params=others)).json()["url"] == URL
    answer = await admin.put(DEFAULT, params=others, json={"url": "https://example.org/"})
    assert answer.json()["owner"] == "alice"
    assert (await admin.delete(DEFAULT, params=others)).status_code == 204


async def test_secret_of_an_owner_is_shown_to_it_and_to_admins(
    alice: httpx.AsyncClient, bob: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    shown = await alice.get("/v1/webhooks/secret")
    assert shown.headers["cache-control"] == "no-store"
    assert shown.json() == {"owner": "alice", "secret": owner_secret(SECRET, "alice")}
    others = {"owner": "alice"}
    assert code_of(await bob.get("/v1/webhooks/secret", params=others)) == (403, "scope_missing")
    assert (await admin.get("/v1/webhooks/secret", params=others)).json() == shown.json()
    assert (await bob.get("/v1/webhooks/secret")).json()["secret"] != shown.json()["secret"]


async def test_default_needs_the_scope_write(
    make_client: MakeClient, nobody: httpx.AsyncClient
) -> None:
    reader = await make_client("alice", "read")
    assert code_of(await reader.get(DEFAULT)) == (403, "scope_missing")
    assert code_of(await reader.put(DEFAULT, json={"url": URL})) == (403, "scope_missing")
    assert code_of(await nobody.get(DEFAULT)) == (401, "unauthenticated")


@pytest.mark.parametrize(
    "url",
    [
        *("example.com", "ftp://example.com/", "https://user:hunter2@example.com/"),
        *("https://example.com:22/", "http://127.0.0.1:8080/", "http://localhost/"),
        *("http://169.254.169.254/latest/meta-data/", "http://[::ffff:10.0.0.1]/"),
    ],
)
async def test_url_that_is_plainly_wrong_is_refused(alice: httpx.AsyncClient, url: str) -> None:
    for answer in (
        await alice.put(DEFAULT, json={"url": url}),
        await alice.post("/v1/jobs", json={"task": "demo.count", "webhook_url": url}),
    ):
        assert code_of(answer) == (422, "webhook_invalid")
        assert "hunter2" not in answer.text
        assert answer.json()["detail"].startswith("No webhook can go to this URL: it")


async def test_job_keeps_its_url_to_itself(
    alice: httpx.AsyncClient, async_database: AsyncDatabase
) -> None:
    answer = await alice.post("/v1/jobs", json={"task": "demo.count", "webhook_url": URL})
    assert answer.status_code == 202, answer.text
    job_id = answer.json()["job_id"]
    row = await async_database.read(reads.job(job_id))
    assert row is not None
    assert row.webhook_url == URL
    for path in (f"/v1/jobs/{job_id}", "/v1/jobs", f"/v1/jobs/{job_id}/timeline"):
        assert "hidden" not in (await alice.get(path)).text


async def test_webhooks_of_a_job_are_its_owners(
    alice: httpx.AsyncClient, bob: httpx.AsyncClient
) -> None:
    made = await alice.post("/v1/jobs", json={"task": "demo.count", "webhook_url": URL})
    path = f"/v1/jobs/{made.json()['job_id']}/webhooks"
    assert (await alice.get(path)).json() == {"items": []}
    assert code_of(await alice.post(f"{path}/resend")) == (404, "unknown_webhook")
    assert code_of(await bob.get(path)) == (404, "unknown_job")
    assert code_of(await bob.post(f"{path}/resend")) == (404, "unknown_job")


async def test_nobody_has_made_up_events_signed(alice: httpx.AsyncClient) -> None:
    body = {"task": "livejobs.webhook", "args": ["id", URL, "{}"]}
    assert code_of(await alice.post("/v1/jobs", json=body)) == (403, "task_not_allowed")


@pytest.mark.parametrize("settings", [""], indirect=True)
async def test_without_a_secret_the_answer_says_what_to_do(alice: httpx.AsyncClient) -> None:
    for answer in (
        await alice.put(DEFAULT, json={"url": URL}),
        await alice.get("/v1/webhooks/secret"),
        await alice.post("/v1/jobs", json={"task": "demo.count", "webhook_url": URL}),
    ):
        assert code_of(answer) == (422, "webhook_not_set_up")
        assert "livejobs webhooks secret" in answer.json()["detail"]
    plain = await alice.post("/v1/jobs", json={"task": "demo.count", "webhook_url": ""})
    assert plain.status_code == 202
