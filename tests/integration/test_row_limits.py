"""What takes some rows takes no more than that, however PostgreSQL plans to find them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import func, insert, select, true, update

from livejobs import oversight, transitions
from livejobs.cleanup import BATCH, delete_some, remove_jobs
from livejobs.database import Database
from livejobs.statements import events, jobs
from livejobs.transitions import NewJob
from livejobs.usage import usage
from livejobs.usage_batches import MOST_IN_A_BATCH, take
from livejobs.views import Status

OTHER_PLANS = ("hashjoin", "mergejoin", "hashagg", "material", "sort", "indexscan", "bitmapscan")
"""Without these PostgreSQL reads a subquery anew for each row, as it sometimes does by choice."""
FEW = 5
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
def looping(database: Database) -> Database:
    """A database that joins in nested loops, if it can be made to."""
    if database.engine.dialect.name == "postgresql":
        with database.begin() as connection:
            name = connection.exec_driver_sql("SELECT current_database()").scalar_one()
            for plan in OTHER_PLANS:
                connection.exec_driver_sql(f'ALTER DATABASE "{name}" SET enable_{plan} = off')
        database.engine.dispose()
    return database


def add_jobs(database: Database, how_many: int, **values: object) -> None:
    for number in range(how_many):
        new = NewJob(id=f"job-{number}", task="some.task", queue="celery", message={"headers": {}})
        database.run(transitions.create(new))
    with database.begin() as connection:
        connection.execute(update(jobs).values(due_at=LONG_AGO, **values))


def test_no_more_jobs_are_sent_at_once_than_asked_for(looping: Database) -> None:
    add_jobs(looping, 3 * FEW)
    assert len(looping.run(transitions.dispatch(FEW))) == FEW


def test_no_more_jobs_are_ended_at_once_than_asked_for(looping: Database) -> None:
    since = {"cancel_requested_at": LONG_AGO, "lease_until": LONG_AGO}
    add_jobs(looping, 3 * FEW, status=Status.PROCESSING, **since)
    assert len(looping.run(oversight.take_overdue(FEW, 1.0))) == FEW


def test_no_more_jobs_are_removed_at_once_than_fit_a_batch(looping: Database) -> None:
    add_jobs(looping, BATCH + FEW)
    rows, _ = looping.run(remove_jobs(true()))
    assert len(rows) == BATCH


def test_no_more_rows_are_removed_at_once_than_fit_a_batch(looping: Database) -> None:
    add_jobs(looping, BATCH + FEW)
    assert len(looping.run(delete_some(events, true()))) == BATCH


def test_no_more_usage_goes_into_a_batch_than_fits(looping: Database) -> None:
    now = datetime.now(UTC)
    alike = {"owner": "", "customer": "cus_1", "meter": "tokens", "value": 1}
    with looping.begin() as connection:
        connection.execute(
            insert(usage),
            [
                alike | {"key": str(number), "at": now, "recorded_at": now}
                for number in range(MOST_IN_A_BATCH + FEW)
            ],
        )
    batch = looping.run(take())
    assert batch is not None
    assert batch.events == MOST_IN_A_BATCH
    with looping.begin() as connection:
        left = select(func.count()).select_from(usage).where(usage.c.batch_id.is_(None))
        assert connection.execute(left).scalar_one() == FEW
