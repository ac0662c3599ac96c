"""Mails over REST: accepted as jobs, or refused at once."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from livejobs import reads
from livejobs.database import AsyncDatabase
from tests.support.clients import MakeClient, code_of

pytest_plugins = ["tests.support.live_stack", "tests.support.rest"]

URL = "/v1/emails"
MAIL: dict[str, Any] = {"to": ["Ada <ada@example.com>"], "subject": "Hello", "text": "How are you?"}
TEMPLATE = {"subject": "For {{ name }}", "text": "Dear {{ name }}"}


async def arguments(database: AsyncDatabase, job_id: str) -> tuple[str, str, list[Any]]:
    """Task, owner and arguments of a job."""
    row = await database.read(reads.job(job_id))
    assert row is not None
    body = row.message["body"]
    return row.task, row.owner, json.loads(body)[0]


async def test_mail_becomes_a_job(alice: httpx.AsyncClient, async_database: AsyncDatabase) -> None:
    response = await alice.post(URL, json=MAIL | {"bcc": ["bea@example.com"]})
    assert response.status_code == 202, response.text
    job = response.json()
    assert response.headers["Location"] == f"/v1/jobs/{job['job_id']}"
    assert job["status"] == "pending"
    task, owner, [letter, recipients] = await arguments(async_database, job["job_id"])
    assert (task, owner) == ("mail.send", "alice")
    assert letter["bcc"] == ["bea@example.com"]
    assert recipients == [{"to": ["Ada <ada@example.com>"], "context": {}}]


async def test_mails_to_recipients_become_one_job(
    alice: httpx.AsyncClient, async_database: AsyncDatabase
) -> None:
    people = [{"to": [f"p{n}@example.com"], "context": {"n": n}} for n in range(120)]
    body = {"template": "news", "context": {"month": "May"}, "recipients": people}
    response = await alice.post(URL, json=body)
    assert response.status_code == 202, response.text
    task, _, [letter, recipients] = await arguments(async_database, response.json()["job_id"])
    assert task == "mail.send_many"
    assert (letter["template"], letter["context"]) == ("news", {"month": "May"})
    assert recipients == people


async def test_repeated_request_makes_one_job(alice: httpx.AsyncClient) -> None:
    made = [await alice.post(URL, json=MAIL, headers={"Idempotency-Key": "1"}) for _ in range(2)]
    assert made[0].json()["job_id"] == made[1].json()["job_id"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"to": []},
        {"to": ["ada"]},
        {"to": ["ada@example.com\r\nBcc: eve@example.com"]},
        {"to": ["ada@example.com, eve@example.com"]},
        {"cc": ["x"]},
        {"subject": None},
        {"subject": "Hello\r\nBcc: eve@example.com"},
        {"text": None},
        {"template": "news"},
        {"template": "../../etc/passwd", "text": None},
        {"recipients": [{"to": ["bea@example.com"]}]},
        {"recipients": [{"to": ["bea@example.com"]}], "to": [], "cc": ["cleo@example.com"]},
        {"recipients": [{"to": []}], "to": []},
        {"from": "eve@example.com"},
        {"text": "NUL \x00"},
    ],
)
async def test_what_cannot_be_a_mail_is_refused(
    alice: httpx.AsyncClient, wrong: dict[str, Any]
) -> None:
    response = await alice.post(URL, json=MAIL | wrong)
    assert code_of(response) == (422, "invalid_request"), response.text


async def test_templates_in_a_request_are_for_admins(
    alice: httpx.AsyncClient, admin: httpx.AsyncClient, async_database: AsyncDatabase
) -> None:
    body = {"to": ["ada@example.com"], "template": TEMPLATE, "context": {"name": "Ada"}}
    response = await alice.post(URL, json=body)
    assert code_of(response) == (403, "scope_missing")
    response = await admin.post(URL, json=body)
    assert response.status_code == 202, response.text
    _, _, [letter, _] = await arguments(async_database, response.json()["job_id"])
    assert letter["template"] == TEMPLATE
    response = await admin.post(URL, json=body | {"template": {"subject": "x"}})
    assert code_of(response) == (422, "invalid_request")


async def test_who_may_only_read_sends_no_mail(make_client: MakeClient) -> None:
    reader = await make_client("rita", "read")
    response = await reader.post(URL, json=MAIL)
    assert code_of(response) == (403, "scope_missing")
