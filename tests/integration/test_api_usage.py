"""`GET /v1/usage`, the batches behind it, and Stripe's reports, over real HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from livejobs.database import Database
from livejobs.settings import Settings, configure, get_settings
from livejobs.usage import SHOWN
from livejobs.usage_batches import delivered, take
from livejobs_server import create_key
from tests.support.live_server import LiveServer, running_server
from tests.support.metering import batch_rows, flushed, pass_time, used
from tests.support.stripe_server import KEY, StripeServer, signed

pytest_plugins = ["tests.support.metering_stack"]

NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=3)
WEBHOOK = "/v1/stripe/webhook"


@pytest.fixture
async def server(metering: Database) -> AsyncIterator[LiveServer]:
    """A server that is set up for the Stripe of the test."""
    async with running_server(get_settings()) as server:
        yield server


@pytest.fixture
async def alice(server: LiveServer) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody with usage of her own."""
    async with server.client("alice") as client:
        yield client


@pytest.fixture
async def admin(server: LiveServer, metering: Database) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody who sees all."""
    key, _ = create_key(metering, "root", ["admin"])
    async with server.client(None) as client:
        client.headers["X-API-Key"] = key
        yield client


@pytest.fixture
async def nobody(server: LiveServer) -> AsyncIterator[httpx.AsyncClient]:
    """A client without credentials, as Stripe is one."""
    async with server.client(None) as client:
        yield client


async def items(client: httpx.AsyncClient, path: str = "/v1/usage", **params: Any) -> list[Any]:
    """All items of a list, read in pages of two."""
    found: list[Any] = []
    params["limit"] = 2
    while True:
        answer = await client.get(path, params=params)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += page["items"]
        assert len(page["items"]) <= 2
        assert ("next" in answer.links) == (page["next"] is not None)
        if page["next"] is None:
            return found
        params["page"] = page["next"]


# -- what is shown ---------------------------------------------------------------------------------


async def test_usage_is_shown_by_customer_meter_and_day_and_adds_up(
    metering: Database, stripe: StripeServer, alice: httpx.AsyncClient
) -> None:
    stripe.refuse = lambda customer, _: ("no_meter", "x") if customer == "cus_failed" else None
    used("cus_held", 4, at=NOON, owner="alice")
    stripe.fail("500")
    flushed()
    pass_time(metering, stripe, 86_400)
    used("cus_sent", 1, at=NOON, owner="alice")
    used("cus_sent", 2, at=NOON + timedelta(hours=5), owner="alice")
    used("cus_sent", 2, at=NOON + timedelta(days=1), owner="alice")
    used("cus_sent", 2, at=NOON, owner="alice", meter="pages")
    used("cus_failed", 3, at=NOON, owner="alice")
    used("cus_old", 5, at=NOON - timedelta(days=40), owner="alice")
    flushed()
    used("cus_sent", 7, at=NOON, owner="alice")
    since = (NOON - timedelta(days=41)).date().isoformat()
    found = await items(alice, since=since)
    for item in found:
        assert item["recorded"] == sum(item[name] for name in SHOWN)
    day, old = NOON.date().isoformat(), (NOON - timedelta(days=40)).date().isoformat()
    following = (NOON + timedelta(days=1)).date().isoformat()
    assert [
        tuple(item[name] for name in ("day", "customer", "meter", "events", *SHOWN))
        for item in found
    ] == [
        (following, "cus_sent", "tokens", 1, 0, 2, 0, 0, 0),
        (day, "cus_failed", "tokens", 1, 0, 0, 3, 0, 0),
        (day, "cus_held", "tokens", 1, 0, 0, 0, 4, 0),
        (day, "cus_sent", "pages", 1, 0, 2, 0, 0, 0),
        (day, "cus_sent", "tokens", 3, 7, 3, 0, 0, 0),
        (old, "cus_old", "tokens", 1, 0, 0, 0, 0, 5),
    ]
    assert len(await items(alice)) == 5
    assert len(await items(alice, customer="cus_sent")) == 3
    assert len(await items(alice, meter="pages")) == 1
    assert [item["day"] for item in await items(alice, since=since, until=old)] == [old]


async def test_usage_is_its_owners_and_admins(
    metering: Database, stripe: StripeServer, alice: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    for owner in ("alice", "bob", ""):
        used("cus_1", 1, owner=owner, at=NOON)
    flushed()
    for path in ("/v1/usage", "/v1/usage/batches"):
        assert [item["owner"] for item in await items(alice, path)] == ["alice"]
        assert await items(alice, path, owner="bob") == []
        assert {item["owner"] for item in await items(admin, path)} == {"alice", "bob", ""}
        assert [item["owner"] for item in await items(admin, path, owner="bob")] == ["bob"]


async def test_batches_that_are_stuck_are_shown_with_their_error_and_decided(
    metering: Database, stripe: StripeServer, alice: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    stripe.refuse = lambda customer, _: ("no_meter", "unknown")
    used("cus_1", 3, owner="alice")
    used("cus_2", 4, owner="alice")
    flushed()
    stuck = await items(alice, "/v1/usage/batches", status=["failed", "held"])
    assert {(item["customer"], item["value"], item["error"]) for item in stuck} == {
        ("cus_1", 3, "400 no_meter: unknown"),
        ("cus_2", 4, "400 no_meter: unknown"),
    }
    path = f"/v1/usage/batches/{stuck[0]['identifier']}"
    assert (await alice.post(path, json={"arrived": False})).status_code == 403
    answer = await admin.post(path, json={"arrived": False})
    assert (answer.status_code, answer.json()["status"]) == (200, "released")
    answer = await admin.post(path, json={"arrived": False})
    assert (answer.status_code, answer.json()["code"]) == (409, "batch_conflict")
    answer = await admin.post("/v1/usage/batches/unknown", json={"arrived": False})
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_batch")
    other = f"/v1/usage/batches/{stuck[1]['identifier']}"
    assert (await admin.post(other, json={"arrived": True})).json()["status"] == "sent"
    stripe.refuse = lambda customer, meter: None
    flushed()
    assert list(stripe.sums().values()) == [stuck[0]["value"]]
    assert await items(alice, "/v1/usage/batches", status="failed") == []


@pytest.mark.parametrize(
    ("path", "params", "code"),
    [
        ("/v1/usage", {"page": "x"}, "invalid_cursor"),
        ("/v1/usage", {"page": "WyJ4IiwiYSIsImIiLCJjIl0"}, "invalid_cursor"),
        ("/v1/usage", {"since": "yesterday"}, "invalid_request"),
        ("/v1/usage", {"day": "2026-11-11"}, "invalid_request"),
        ("/v1/usage/batches", {"page": "WzFlMzAsICJhIl0"}, "invalid_cursor"),
        ("/v1/usage/batches", {"status": "lost"}, "invalid_request"),
    ],
)
async def test_wrong_filters_are_refused(
    alice: httpx.AsyncClient, path: str, params: dict[str, str], code: str
) -> None:
    answer = await alice.get(path, params=params)
    assert (answer.status_code, answer.json()["code"]) == (422, code)


# -- what Stripe reports ---------------------------------------------------------------------------


async def test_report_marks_the_events_it_names(
    metering: Database, stripe: StripeServer, nobody: httpx.AsyncClient, alice: httpx.AsyncClient
) -> None:
    for number in range(3):
        used(f"cus_{number}", 1 + number, owner="alice", at=NOON)
    flushed()
    first, second, third = batch_rows(metering)
    # Named by the identifier, or by the idempotency key of the call that brought it.
    body = stripe.report(first.id, f"{second.id}.1", "of somebody else")
    for _ in range(2):
        answer = await nobody.post(WEBHOOK, content=body, headers=signed(body))
        assert (answer.status_code, answer.text) == (204, "")
    rows = {row.id: (row.status, row.error) for row in batch_rows(metering)}
    why = "meter_event_customer_not_found: no use for"
    assert rows == {
        first.id: ("failed", f"{why} {first.id}"),
        second.id: ("failed", f"{why} {second.id}.1"),
        third.id: ("sent", None),
    }
    shown = {item["customer"]: item for item in await items(alice)}
    assert (shown[first.customer]["failed"], shown[third.customer]["sent"]) == (
        first.value,
        third.value,
    )


async def test_report_that_comes_before_the_answer_stays(
    metering: Database, stripe: StripeServer, nobody: httpx.AsyncClient
) -> None:
    used(value=3)
    stripe.fail("cut after")
    flushed()
    [row] = batch_rows(metering)
    assert row.status == "open"
    body = stripe.report(row.id)
    answer = await nobody.post(WEBHOOK, content=body, headers=signed(body))
    assert answer.status_code == 204
    pass_time(metering, stripe, 3600)
    assert flushed()["failed"] == 1
    assert [row.status for row in batch_rows(metering)] == ["failed"]
    assert len(stripe.keys) == 1


async def test_report_while_the_batch_is_being_sent_is_not_overwritten(
    metering: Database, stripe: StripeServer, nobody: httpx.AsyncClient
) -> None:
    used(value=3)
    batch = metering.run(take())
    assert batch is not None
    body = stripe.report(batch.id)
    await nobody.post(WEBHOOK, content=body, headers=signed(body))
    metering.run(delivered(batch))
    assert [row.status for row in batch_rows(metering)] == ["failed"]


async def test_report_without_stripes_signature_does_nothing(
    metering: Database, stripe: StripeServer, nobody: httpx.AsyncClient
) -> None:
    used(value=3)
    flushed()
    body = stripe.report(batch_rows(metering)[0].id)
    for headers in (
        {},
        {"Stripe-Signature": "t=1,v1=00"},
        {"Stripe-Signature": "nonsense"},
        signed(body, "whsec_another"),
        signed(body, at=time.time() - 3600),
        signed(body + b" "),
    ):
        answer = await nobody.post(WEBHOOK, content=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_signature")
        assert "whsec" not in answer.text
    answer = await nobody.post(WEBHOOK, content=b"\xff", headers=signed(b"\xff"))
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_signature")
    assert [row.status for row in batch_rows(metering)] == ["sent"]


@pytest.mark.parametrize("body", [b"{}", b"[]", b"x", b'{"object":"event","type":"a"}', b"null"])
async def test_signed_nonsense_is_refused(nobody: httpx.AsyncClient, body: bytes) -> None:
    answer = await nobody.post(WEBHOOK, content=body, headers=signed(body))
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_body")


async def test_events_of_other_kinds_are_left_alone(
    stripe: StripeServer, nobody: httpx.AsyncClient
) -> None:
    ping = json.loads(stripe.report("x"))
    ping["type"] = "v2.core.event_destination.ping"
    body = json.dumps(ping).encode()
    answer = await nobody.post(WEBHOOK, content=body, headers=signed(body))
    assert answer.status_code == 204


async def test_report_that_cannot_be_fetched_is_asked_for_again(
    metering: Database, stripe: StripeServer, nobody: httpx.AsyncClient
) -> None:
    used(value=3)
    flushed()
    body = stripe.report(batch_rows(metering)[0].id)
    stripe.fail("500")
    answer = await nobody.post(WEBHOOK, content=body, headers=signed(body))
    assert (answer.status_code, answer.json()["code"]) == (503, "stripe_unavailable")
    assert KEY not in answer.text
    answer = await nobody.post(WEBHOOK, content=body, headers=signed(body))
    assert answer.status_code == 204
    assert [row.status for row in batch_rows(metering)] == ["failed"]


@pytest.mark.parametrize("missing", ["STRIPE_WEBHOOK_SECRET", "STRIPE_API_KEY"])
async def test_server_that_is_not_set_up_for_reports_says_so(
    settings: Settings,
    metering: Database,
    stripe: StripeServer,
    monkeypatch: pytest.MonkeyPatch,
    missing: str,
) -> None:
    monkeypatch.delenv(missing)
    configure(database_url=settings.database_url, redis_url=settings.redis_url)
    body = stripe.report("x")
    async with running_server(get_settings()) as server, server.client(None) as client:
        answer = await client.post(WEBHOOK, content=body, headers=signed(body))
    assert (answer.status_code, answer.json()["code"]) == (501, "stripe_not_set_up")
    assert missing in answer.json()["detail"]
