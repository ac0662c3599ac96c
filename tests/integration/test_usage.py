"""Usage is recorded and sent to Stripe, on both databases, to a server that behaves like Stripe."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from livejobs import SyncSession, enqueue, record_usage, record_usage_async
from livejobs.database import AsyncDatabase, Database
from livejobs.errors import UsageConflict
from livejobs.settings import Settings, configure
from livejobs.usage import batches, usage
from livejobs.usage_batches import (
    LEASE_SECONDS,
    MOST_IN_A_BATCH,
    MOST_WAITING,
    decide,
    outlook,
    take,
)
from livejobs_worker import usage as worker_usage
from livejobs_worker.app import app
from tests.support.metering import batch_rows, flushed, pass_time, recorded, used
from tests.support.rows import shown
from tests.support.stripe_server import FAULTS, KEY, WEBHOOK_SECRET, StripeServer
from tests.support.waiting import wait_until
from tests.support.worker import celery_worker

pytest_plugins = ["tests.support.metering_stack"]

HOUR = 3600.0
DAY = 24 * HOUR
TOKENS = ("cus_1", "tokens")


def hours_ago(hours: float) -> datetime:
    return datetime.now(UTC) - timedelta(hours=hours)


def count(database: Database) -> int:
    with database.begin() as connection:
        return connection.execute(select(func.count()).select_from(usage)).scalar_one()


# -- recording -------------------------------------------------------------------------------------


def test_usage_recorded_again_with_its_key_counts_once(metering: Database) -> None:
    assert record_usage("cus_1", "tokens", 5, key="a") is True
    assert record_usage("cus_1", "tokens", 5, key="a") is False
    assert record_usage("cus_1", "tokens", 5, key="a", owner="ann") is True
    assert recorded(metering) == {TOKENS: 10}


@pytest.mark.parametrize(
    "other",
    [
        {"customer": "cus_2"},
        {"meter": "pages"},
        {"value": 6},
        {"at": datetime(2026, 1, 1, tzinfo=UTC)},
    ],
)
def test_key_that_comes_again_for_another_usage_is_refused(
    metering: Database, other: dict[str, Any]
) -> None:
    first: dict[str, Any] = {"customer": "cus_1", "meter": "tokens", "value": 5, "key": "a"}
    record_usage(**first)
    with pytest.raises(UsageConflict) as caught:
        record_usage(**first | other)
    assert caught.value.key == "a"
    assert recorded(metering) == {TOKENS: 5}


def test_usage_counts_only_if_its_transaction_is_committed(metering: Database) -> None:
    with SyncSession() as session:
        record_usage("cus_1", "tokens", 1, key="a", session=session)
        session.rollback()
        record_usage("cus_1", "tokens", 2, key="b", session=session)
        session.commit()
    with metering.engine.connect() as connection:
        record_usage("cus_1", "tokens", 4, key="c", session=connection)
        connection.rollback()
        record_usage("cus_1", "tokens", 8, key="d", session=connection)
        connection.commit()
    assert recorded(metering) == {TOKENS: 10}


async def test_async_usage_counts_only_if_its_transaction_is_committed(
    metering: Database, settings: Settings
) -> None:
    database = AsyncDatabase(settings)
    async with AsyncSession(database.engine) as session:
        await record_usage_async("cus_1", "tokens", 1, key="a", session=session)
        await session.rollback()
        await record_usage_async("cus_1", "tokens", 2, key="b", session=session)
        await session.commit()
    async with database.engine.connect() as connection:
        await record_usage_async("cus_1", "tokens", 4, key="c", session=connection)
        await connection.rollback()
        await record_usage_async("cus_1", "tokens", 8, key="d", session=connection)
        await connection.commit()
    await database.dispose()
    assert await record_usage_async("cus_1", "tokens", 16, key="e") is True
    assert recorded(metering) == {TOKENS: 26}


def test_key_recorded_by_many_at_once_counts_once(metering: Database) -> None:
    def record() -> None:
        for number in range(20):
            record_usage("cus_1", "tokens", 1, key=f"k{number}")

    run_at_once(record, 4)
    assert recorded(metering) == {TOKENS: 20}


def run_at_once(function: Callable[[], object], times: int) -> None:
    """Run it in threads, and meet their errors."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


# -- sending ---------------------------------------------------------------------------------------


def test_flush_sends_a_sum_for_each_customer_meter_and_hour(
    metering: Database, stripe: StripeServer
) -> None:
    hour = hours_ago(5).replace(minute=0, second=0, microsecond=0)
    for minute, value in ((0, 1), (30, 10), (59, 100)):
        used(value=value, at=hour + timedelta(minutes=minute))
    used(value=1000, at=hour + timedelta(minutes=60))
    used("cus_2", 5, at=hour)
    used("cus_2", -2, at=hour)
    used(value=7, meter="pages", at=hour)
    used(value=9, at=hour, owner="ann")
    result = flushed()
    assert (result["batches"], result["usages"], result["pending"]) == (5, 8, 0)
    told = Counter(
        (event.customer, event.meter, event.value, event.timestamp) for _, event in stripe.taken
    )
    begin = int(hour.timestamp())
    assert told == Counter(
        [
            ("cus_1", "tokens", 111, begin + 59 * 60),
            ("cus_1", "tokens", 1000, begin + 3600),
            ("cus_2", "tokens", 3, begin),
            ("cus_1", "pages", 7, begin),
            ("cus_1", "tokens", 9, begin),
        ]
    )
    assert flushed()["batches"] == 0
    assert len(stripe.keys) == 5


def test_batch_holds_no_more_than_fits_the_digits(metering: Database, stripe: StripeServer) -> None:
    now = hours_ago(30)
    largest = 10**12 - 1
    with SyncSession() as session:
        for number in range(MOST_IN_A_BATCH + 1):
            record_usage("cus_1", "tokens", largest, now, key=str(number), session=session)
        session.commit()
    assert flushed()["batches"] == 2
    assert stripe.sums() == {TOKENS: largest * (MOST_IN_A_BATCH + 1)}


def test_flush_without_a_key_keeps_usage_and_says_so(
    metering: Database, settings: Settings, stripe: StripeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    used(value=3)
    monkeypatch.setenv("STRIPE_API_KEY", "")
    configure(database_url=settings.database_url)
    result = flushed()
    assert (result["batches"], result["pending"]) == (0, 1)
    assert "STRIPE_API_KEY is not set" in result["why"]
    monkeypatch.setenv("STRIPE_API_KEY", KEY)
    configure(database_url=settings.database_url)
    assert flushed() | {"why": None} == result | {
        "batches": 1, "usages": 1, "pending": 0, "why": None
    }  # fmt: skip
    assert stripe.sums() == {TOKENS: 3}


def test_usage_of_the_future_waits_and_what_is_too_old_is_reported(
    metering: Database, stripe: StripeServer
) -> None:
    used(value=1, at=hours_ago(-2))
    used(value=2, at=hours_ago(36 * 24))
    used(value=4, at=hours_ago(34 * 24))
    result = flushed()
    assert (result["batches"], result["pending"], result["too_old"]) == (1, 1, 1)
    assert stripe.sums() == {TOKENS: 4}


@pytest.mark.parametrize("code", [None, "resource_already_exists", "duplicate_meter_event"])
def test_identifier_that_stripe_knows_counts_as_delivered(
    metering: Database, stripe: StripeServer, code: str | None
) -> None:
    stripe.duplicate_code = code
    used(value=3)
    stripe.fail("cut after")
    flushed()
    pass_time(metering, stripe, HOUR)
    assert flushed()["batches"] == 1
    assert [row.status for row in batch_rows(metering)] == ["sent"]
    assert stripe.sums() == {TOKENS: 3}
    assert len(stripe.keys) == 2


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_waited_for_and_nothing_counts_twice(
    metering: Database, stripe: StripeServer, fault: str
) -> None:
    used(value=3)
    stripe.fail(fault, fault)
    result = flushed()
    assert (result["batches"], result["pending"]) == (0, 1)
    assert result["why"].startswith("To be tried again at ")
    row = batch_rows(metering)[0]
    assert (row.in_doubt_since is None) == (fault == "429")
    assert (row.status, row.tries) == ("open", 1)
    assert 50 < (row.due_at - datetime.now(UTC)).total_seconds() < 61
    assert flushed()["batches"] == 0  # it waits
    pass_time(metering, stripe, 60)
    flushed()
    row = batch_rows(metering)[0]
    assert 110 < (row.due_at - datetime.now(UTC)).total_seconds() < 121
    pass_time(metering, stripe, 121)
    result = flushed()
    assert (result["batches"], result["pending"], result["why"]) == (1, 0, None)
    assert stripe.sums() == {TOKENS: 3}
    assert len(set(stripe.keys)) == len(stripe.keys)


def test_what_may_have_arrived_is_held_after_a_day_and_a_person_decides(
    metering: Database, stripe: StripeServer
) -> None:
    for customer, fault in (("cus_1", "cut after"), ("cus_2", "cut")):
        used(customer, 3)
        stripe.fail(fault)
        flushed()
    pass_time(metering, stripe, DAY)
    for _ in range(2):
        assert flushed()["held"] == 2
    assert len(stripe.keys) == 1  # it was not sent again
    assert metering.run(outlook()).pending == 0
    arrived = {identifier for identifier, _ in stripe.taken}
    for row in batch_rows(metering):
        assert row.status == "held"
        assert metering.run(decide(row.id, arrived=row.id in arrived)) is not None
        assert metering.run(decide(row.id, arrived=False)) is None
    result = flushed()
    assert (result["batches"], result["held"]) == (1, 0)
    assert stripe.sums() == {TOKENS: 3, ("cus_2", "tokens"): 3}
    assert sorted(row.status for row in batch_rows(metering)) == ["released", "sent", "sent"]


def test_what_certainly_did_not_arrive_is_sent_after_any_time(
    metering: Database, stripe: StripeServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    used(value=3)
    stripe.fail("429")
    flushed()
    pass_time(metering, stripe, 3 * DAY)
    monkeypatch.setenv("LIVEJOBS_STRIPE_API_BASE", "http://127.0.0.1:9")  # nobody listens
    configure(database_url=settings.database_url)
    assert flushed()["held"] == 0
    pass_time(metering, stripe, 3 * DAY)
    monkeypatch.setenv("LIVEJOBS_STRIPE_API_BASE", stripe.url)
    configure(database_url=settings.database_url)
    result = flushed()
    assert (result["batches"], result["held"]) == (1, 0)
    assert stripe.sums() == {TOKENS: 3}


def test_wrong_key_loses_nothing(
    metering: Database, stripe: StripeServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    used(value=3)
    monkeypatch.setenv("STRIPE_API_KEY", "sk_test_wrong")
    configure(database_url=settings.database_url)
    assert "401" in flushed()["why"]
    assert batch_rows(metering)[0].in_doubt_since is None
    pass_time(metering, stripe, DAY)
    monkeypatch.setenv("STRIPE_API_KEY", KEY)
    configure(database_url=settings.database_url)
    flushed()
    assert stripe.sums() == {TOKENS: 3}


def test_refused_usage_is_shown_and_the_rest_goes_on(
    metering: Database, stripe: StripeServer
) -> None:
    stripe.refuse = lambda customer, _: ("no_meter", "unknown") if customer == "cus_0" else None
    for number in range(5):
        used(f"cus_{number}", 3)
    result = flushed()
    assert (result["batches"], result["failed"], result["pending"]) == (4, 1, 0)
    failed = next(row for row in batch_rows(metering) if row.status == "failed")
    assert (failed.customer, failed.error) == ("cus_0", "400 no_meter: unknown")
    stripe.refuse = lambda customer, meter: None
    assert flushed()["batches"] == 0
    metering.run(decide(failed.id, arrived=False))
    result = flushed()
    assert (result["batches"], result["failed"]) == (1, 0)
    assert sum(stripe.sums().values()) == 15


def test_refused_after_a_call_that_may_have_arrived_is_for_a_person(
    metering: Database, stripe: StripeServer
) -> None:
    used(value=3)
    stripe.fail("500")
    flushed()
    stripe.refuse = lambda customer, meter: ("archived_meter", "archived")
    pass_time(metering, stripe, HOUR)
    assert flushed()["held"] == 1
    assert batch_rows(metering)[0].error == "400 archived_meter: archived"


def test_outage_of_any_length_leaves_few_in_doubt_and_loses_nothing(
    metering: Database, stripe: StripeServer
) -> None:
    stripe.fault = lambda: "500"
    for hour in range(30):
        for number in range(5):
            used(f"cus_{number}", 1, at=hours_ago(hour))
    for _ in range(20):
        flushed()
        pass_time(metering, stripe, HOUR)
    assert len(batch_rows(metering)) == MOST_WAITING
    stripe.fault = lambda: None
    result = flushed()
    assert (result["pending"], result["held"]) == (0, 0)
    assert stripe.sums() == recorded(metering)


def test_batch_with_a_fault_of_its_own_holds_up_no_other(
    metering: Database, stripe: StripeServer
) -> None:
    used("cus_bad", 1, at=hours_ago(2))
    stripe.fail("500")
    used("cus_1", 3)
    result = flushed()
    assert (result["batches"], result["pending"]) == (1, 1)
    assert stripe.sums() == {TOKENS: 3}


def test_undelivered_batch_becomes_too_old(metering: Database, stripe: StripeServer) -> None:
    used(value=3, at=hours_ago(34 * 24))
    stripe.fail("429")
    flushed()
    with metering.begin() as connection:
        connection.execute(update(batches).values(at=hours_ago(36 * 24)))
    pass_time(metering, stripe, HOUR)
    result = flushed()
    assert (result["batches"], result["too_old"], result["pending"]) == (0, 1, 0)
    assert stripe.sums() == {}


def test_many_flushes_at_once_do_no_harm(metering: Database, stripe: StripeServer) -> None:
    for number in range(60):
        used(f"cus_{number % 20}", number, at=hours_ago(number % 3))

    run_at_once(flushed, 4)
    flushed()
    assert stripe.sums() == recorded(metering)
    assert {row.status for row in batch_rows(metering)} == {"sent"}
    assert len(stripe.keys) == len(stripe.taken)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_flush_neither_waits_for_a_batch_that_is_being_changed_nor_sends_it(
    metering: Database, stripe: StripeServer
) -> None:
    for customer in ("cus_1", "cus_2"):
        used(customer, 3)
        assert metering.run(take()) is not None
    forgotten = update(batches).values(in_doubt_since=hours_ago(25), due_at=hours_ago(1))
    with metering.begin() as connection:
        connection.execute(forgotten)
    with metering.begin() as connection:
        one = select(batches).where(batches.c.customer == "cus_1")
        connection.execute(one.with_for_update())
        flush = threading.Thread(target=flushed)
        flush.start()
        flush.join(10)
        assert not flush.is_alive()
        assert {row.customer: row.status for row in batch_rows(metering)} == {
            "cus_1": "open",
            "cus_2": "held",
        }
    flushed()
    assert {row.status for row in batch_rows(metering)} == {"held"}
    assert stripe.keys == []


def test_flush_that_was_frozen_sends_nothing_late(
    metering: Database, stripe: StripeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    used(value=3)
    now = time.time
    batch = metering.run(take())
    assert batch is not None
    assert not batch.expired
    monkeypatch.setattr("livejobs.usage_batches.time.time", lambda: now() + LEASE_SECONDS)
    assert batch.expired
    assert metering.run(take()) is None  # its flush may be at work still
    pass_time(metering, stripe, LEASE_SECONDS)
    monkeypatch.undo()
    again = metering.run(take())
    assert again is not None
    assert (again.id, again.tries, again.doubtful) == (batch.id, 2, True)


def test_secrets_are_never_logged(
    metering: Database, stripe: StripeServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    used(value=3)
    stripe.fail("500", "429", "cut")
    for _ in range(5):
        flushed()
        pass_time(metering, stripe, HOUR)
    assert stripe.sums() == {TOKENS: 3}
    told = caplog.text + "".join(str(row.error) for row in batch_rows(metering))
    for secret in (KEY, WEBHOOK_SECRET):
        assert secret not in told
        assert secret not in repr(metering.settings)


# -- in a worker -----------------------------------------------------------------------------------


async def test_flush_is_a_job_of_the_worker(
    metering: Database, settings: Settings, stripe: StripeServer, tmp_path: Path
) -> None:
    used(value=3)
    used(value=5, at=hours_ago(40 * 24))
    app.conf.broker_url = settings.redis_url
    view = await enqueue(worker_usage.flush)
    with celery_worker(settings, tmp_path / "worker.log", "livejobs_worker.app", concurrency=1):
        wait_until(
            lambda: shown(metering, view.job_id).status.is_final,
            description="the flush is over",
            seconds=30,
        )
    view = shown(metering, view.job_id)
    assert view.status == "completed", view.error
    assert view.result["batches"] == 1
    assert view.result["too_old"] == 1
    assert stripe.sums() == {TOKENS: 3}
    assert KEY not in (tmp_path / "worker.log").read_text()
