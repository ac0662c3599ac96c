"""Each end of a job makes the job that tells of it, in its own transaction; others make none."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event, select, update

from livejobs import attempts, cascades, oversight, transitions
from livejobs.database import Database
from livejobs.models import db_now, view_of
from livejobs.statements import WEBHOOK_TASK, JobRow, jobs
from livejobs.transitions import NewJob
from livejobs.webhooks import Delivery, deliveries, disable_default, remove_default, set_default
from tests.support.rows import change, read, timeline

pytest_plugins = ["tests.support.webhook_stack"]

URL = "https://example.com/hooks?key=hidden"
ERROR = {"type": "ValueError", "message": "it broke"}
Make = Callable[..., JobRow]


@pytest.fixture
def make(hooked: Database) -> Make:
    """Creates a job; a running one, unless it says otherwise."""

    def make(status: str = "processing", **fields: Any) -> JobRow:
        given: dict[str, Any] = {
            "webhook_url": URL,
            "owner": "ada",
            "rerun_when_lost": False,
        } | fields
        new = NewJob(id=uuid.uuid4().hex, task="t", queue="q", message={"m": 1}, **given)
        row = change(hooked, transitions.create(new))
        if status == "pending":
            return row
        return change(hooked, attempts.claim(row.id, 0, f"worker-{row.id}", 30.0))

    return make


def told(database: Database, job_id: str) -> list[Delivery]:
    """The deliveries of a job's ends, the newest first."""
    found = database.read(deliveries(job_id))
    with database.begin() as connection:
        tagged = connection.execute(
            select(jobs.c.id, jobs.c.tags).where(jobs.c.task == WEBHOOK_TASK)
        ).all()
    mine = {row.id for row in tagged if row.tags == {"webhook_of": job_id}}
    assert mine == {each.row.id for each in found}
    assert timeline(database, job_id).count("webhook") == len(found)
    return found


def require_one(database: Database, row: JobRow) -> None:
    """See that one delivery tells of an end as the row says it."""
    (delivery,) = told(database, row.id)
    webhook_id, url, text = delivery.arguments
    sending = delivery.row
    assert (webhook_id, url) == (sending.id, URL)
    event = json.loads(text)
    assert event["type"] == f"job.{row.status}"
    assert event["data"] == view_of(row).model_dump(mode="json")
    assert event["timestamp"] == event["data"]["completed_at"]
    assert (sending.owner, sending.status, sending.parent_id) == (row.owner, "pending", None)
    assert sending.due_at <= sending.updated_at
    assert URL not in json.dumps(sending.message["headers"])


def by_retry(row: JobRow, database: Database) -> JobRow:
    change(database, transitions.cancel(row.id))
    again = attempts.retry(row.id, 1, delay=5.0, error=ERROR, message=None)
    return change(database, again)


def by_waiting(row: JobRow, database: Database) -> JobRow:
    change(database, transitions.cancel(row.id))
    then = NewJob(id=row.id, task="t2", queue="q", message={"m": 2})
    return change(database, attempts.wait(row.id, 1, then, 0))


def by_loss(row: JobRow, database: Database) -> JobRow:
    with database.begin() as connection:
        connection.execute(update(jobs).where(jobs.c.id == row.id).values(lease_until=db_now(-1)))
    return change(database, oversight.lose(row.id))


RUNNING: dict[str, Callable[[JobRow, Database], JobRow]] = {
    "completed": lambda row, db: change(db, attempts.complete(row.id, 1, {"r": [1, "ü"]})),
    "failed": lambda row, db: change(db, attempts.fail(row.id, 1, ERROR | {"traceback": "x"})),
    "stopped": lambda row, db: change(db, attempts.cancelled(row.id, 1)),
    "stopped by a retry": by_retry,
    "stopped by waiting": by_waiting,
    "lost": by_loss,
    "overrun": lambda row, db: change(db, oversight.overrun(row.id, -1.0)),
}


@pytest.mark.parametrize("end", RUNNING)
def test_running_job_is_told_of_once(make: Make, hooked: Database, end: str) -> None:
    row = make()
    require_one(hooked, RUNNING[end](row, hooked))


def test_pending_job_is_told_of_once_when_it_is_cancelled(make: Make, hooked: Database) -> None:
    row = change(hooked, transitions.cancel(make("pending").id))
    require_one(hooked, row)
    assert hooked.run(transitions.cancel(row.id)) is None
    require_one(hooked, row)


def test_job_is_told_of_once_when_it_is_too_old(make: Make, hooked: Database) -> None:
    row = make("pending", expires_in=-1.0)
    require_one(hooked, change(hooked, transitions.expire(row.id)))


def test_job_is_told_of_once_when_its_message_is_broken(make: Make, hooked: Database) -> None:
    row = make("pending")
    require_one(hooked, change(hooked, attempts.fail_unclaimed(row.id, 0, ERROR)))


def test_job_is_told_of_once_when_nobody_knows_its_task(make: Make, hooked: Database) -> None:
    row = make("pending")
    for _ in range(oversight.UNKNOWN_SENDS):
        last = hooked.run(oversight.meet_unknown(row.id, 0))
    assert last is not None
    require_one(hooked, last)


def test_nothing_is_told_before_the_end(make: Make, hooked: Database) -> None:
    row = make(rerun_when_lost=True)
    assert by_loss(row, hooked).status == "pending"
    change(hooked, attempts.claim(row.id, 1, "again", 30.0))
    change(hooked, attempts.retry(row.id, 2, delay=0.0, error=ERROR, message=None))
    change(hooked, attempts.claim(row.id, 2, "again", 30.0))
    change(hooked, attempts.release(row.id, 3))
    change(hooked, attempts.claim(row.id, 3, "again", 30.0))
    change(hooked, transitions.cancel(row.id))
    assert told(hooked, row.id) == []


def test_children_are_told_of_if_they_name_a_url(make: Make, hooked: Database) -> None:
    hooked.run(set_default("ada", "https://example.com/default"))
    parent = make()
    named, running, unnamed = (
        make("pending", parent_id=parent.id),
        make(parent_id=parent.id),
        make("pending", parent_id=parent.id, webhook_url=None),
    )
    change(hooked, attempts.complete(running.id, 1, None))
    require_one(hooked, read(hooked, running.id))
    change(hooked, transitions.cancel(parent.id))
    change(hooked, attempts.cancelled(parent.id, 1))
    while hooked.run(cascades.stop(parent.id, 1)):
        pass
    for row in (parent, named):
        require_one(hooked, read(hooked, row.id))
    assert read(hooked, unnamed.id).status == "cancelled"
    assert told(hooked, unnamed.id) == []


def test_each_end_of_a_job_that_is_run_again_has_its_own(make: Make, hooked: Database) -> None:
    row = make()
    change(hooked, attempts.fail(row.id, 1, ERROR))
    change(hooked, transitions.requeue(row.id))
    change(hooked, attempts.claim(row.id, 1, "again", 30.0))
    change(hooked, attempts.complete(row.id, 2, "r"))
    found = told(hooked, row.id)
    types = [json.loads(each.arguments[2])["type"] for each in found]
    assert types == ["job.completed", "job.failed"]
    assert len({each.arguments[0] for each in found}) == 2


def test_default_of_the_owner_is_told_unless_a_job_says_otherwise(
    make: Make, hooked: Database
) -> None:
    default = "https://example.com/default"
    hooked.run(set_default("ada", default))

    def url_of(**fields: Any) -> str | None:
        row = make(**fields)
        change(hooked, attempts.complete(row.id, 1, None))
        found = told(hooked, row.id)
        return found[0].arguments[1] if found else None

    assert url_of(webhook_url=None) == default
    assert url_of() == URL
    assert url_of(webhook_url="") is None
    assert url_of(webhook_url=None, owner="bob") is None
    hooked.run(disable_default("ada", URL))
    assert url_of(webhook_url=None) == default
    hooked.run(disable_default("ada", default))
    assert url_of(webhook_url=None) is None
    hooked.run(set_default("ada", default))
    assert url_of(webhook_url=None) == default
    assert hooked.run(remove_default("ada")) is True
    assert hooked.run(remove_default("ada")) is False
    assert url_of(webhook_url=None) is None


def test_end_of_a_job_that_tells_is_told_to_nobody(make: Make, hooked: Database) -> None:
    row = make()
    change(hooked, attempts.complete(row.id, 1, None))
    hooked.run(set_default("ada", "https://example.com/default"))
    (delivery,) = told(hooked, row.id)
    change(hooked, attempts.claim(delivery.row.id, 0, "w", 30.0))
    change(hooked, attempts.fail(delivery.row.id, 1, ERROR))
    assert timeline(hooked, delivery.row.id) == ["created", "started", "failed"]


def test_job_without_webhook_costs_no_statement_more(make: Make, hooked: Database) -> None:
    row, statements = make(webhook_url=None), []

    def note(*args: Any) -> None:
        statements.append(args[2].split()[0])

    event.listen(hooked.engine, "before_cursor_execute", note)
    change(hooked, attempts.complete(row.id, 1, None))
    pending = make("pending", webhook_url=None)
    before = len(statements)
    change(hooked, transitions.cancel(pending.id))
    event.remove(hooked.engine, "before_cursor_execute", note)
    begin = ["BEGIN"] if hooked.engine.dialect.name == "sqlite" else []
    assert statements[: len(begin) + 2] == [*begin, "UPDATE", "INSERT"]
    # Its children are counted before, and are to be cancelled with it.
    assert statements[before:] == [*begin, "SELECT", "UPDATE", "INSERT", "DELETE", "INSERT"]
