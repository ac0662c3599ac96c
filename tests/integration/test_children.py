"""Children are counted exactly once each, and follow their parents, on both databases."""

from __future__ import annotations

import contextlib
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, text

from livejobs import (
    SyncSession,
    attempts,
    cascades,
    children,
    enqueue,
    oversight,
    reads,
    transitions,
)
from livejobs.database import Database, execute
from livejobs.dispatch import producer_app
from livejobs.errors import JobConflict, UnknownJob
from livejobs.models import db_now
from livejobs.settings import Settings
from livejobs.statements import OVER, TOTAL, JobRow, Program, jobs, tallies
from livejobs.transitions import NewJob
from livejobs.views import Status
from tests.support import servers
from tests.support.rows import change, read, shown, timeline
from tests.support.worker import environment

ERROR = {"type": "ValueError", "message": "it broke"}
THEN: dict[str, Any] = {"task": "then", "queue": "later", "message": {"m": "then"}}

Make = Callable[..., JobRow]


@pytest.fixture
def make(database: Database) -> Make:
    """Creates a job, which runs unless it is to be pending."""
    count = iter(range(1000))

    def make(status: str = "processing", **fields: Any) -> JobRow:
        job_id = f"job-{next(count)}"
        new = NewJob(id=job_id, task="t", queue="q", message={"m": 1}, **fields)
        row = change(database, transitions.create(new))
        if status == "processing":
            row = change(database, attempts.claim(job_id, 0, f"worker-{job_id}", 30.0))
        return row

    return make


def family(make: Make, size: int, status: str = "processing") -> tuple[JobRow, list[JobRow]]:
    """A parent that runs, and its children."""
    parent = make()
    return parent, [make(status, parent_id=parent.id, ordinal=n) for n in range(size)]


def wait(database: Database, parent: JobRow, **then: Any) -> JobRow:
    """The parent has nothing to do before its children are over."""
    new = NewJob(id=parent.id, **THEN | then)
    return change(database, attempts.wait(parent.id, parent.attempt, new, 3))


def known(database: Database, parent_id: str) -> dict[str, int]:
    """What the parent's row and the tallies say together, which is what is true."""
    row = read(database, parent_id)
    said = {kind: getattr(row, f"children_{kind}") for kind in (TOTAL, *OVER)}
    with database.begin() as connection:
        mine = select(tallies).where(tallies.c.parent_id == parent_id, tallies.c.n != 0)
        for tally in connection.execute(mine):
            said[tally.kind] += tally.n
        there = select(jobs.c.status, func.count().label("n")).where(jobs.c.parent_id == parent_id)
        found = {row.status: row.n for row in connection.execute(there.group_by(jobs.c.status))}
    assert said == {TOTAL: sum(found.values())} | {status: found.get(status, 0) for status in OVER}
    return said


def counts(database: Database, parent_id: str) -> tuple[int, int, int, int]:
    """Total, completed, failed, cancelled, as viewers see them."""
    found = shown(database, parent_id).children
    return (0, 0, 0, 0) if found is None else tuple(found.model_dump().values())


def test_children_are_counted_and_the_last_one_resumes_a_waiting_parent(
    make: Make, database: Database
) -> None:
    parent, (one, two, three) = family(make, 3)
    assert wait(database, parent).lease_until is None
    assert counts(database, parent.id) == (3, 0, 0, 0)
    change(database, attempts.complete(one.id, 1, None))
    change(database, attempts.fail(two.id, 1, ERROR))
    assert database.run(attempts.fail(two.id, 1, ERROR)) is None
    assert database.run(children.count(parent.id, at_once=True)).resumed is False
    assert read(database, parent.id).status == "processing"
    change(database, transitions.cancel(three.id))
    change(database, attempts.cancelled(three.id, 1))
    row, resumed, _ = database.run(children.count(parent.id))
    assert row is not None
    assert (resumed, row.status, row.task) == (True, "pending", "then")
    assert counts(database, parent.id) == (3, 1, 1, 1)
    assert database.run(children.count(parent.id)) == (None, False, ())
    assert database.run(attempts.claim(parent.id, 1, "w", 30.0)).attempt == 2
    assert timeline(database, parent.id) == ["created", "started", "waiting", "resumed", "started"]


def test_counts_change_four_times_a_second_and_are_exact_at_the_end(
    make: Make, database: Database
) -> None:
    parent, (one, two, three) = family(make, 3)
    assert database.run(children.count(parent.id)).row.children_total == 3
    change(database, attempts.complete(one.id, 1, None))
    assert database.run(children.count(parent.id)).row is None, "it was counted just now"
    assert known(database, parent.id)["completed"] == 1
    change(database, attempts.complete(two.id, 1, None))
    with database.begin() as connection:
        connection.execute(jobs.update().values(counted_at=db_now(-1.0)))
    assert database.run(children.count(parent.id)).row.children_completed == 2
    change(database, attempts.complete(three.id, 1, None))
    assert database.run(children.count(parent.id)).row.children_completed == 3
    assert known(database, parent.id) == {"total": 3, "completed": 3, "failed": 0, "cancelled": 0}


ENDS: list[Callable[[str], Program]] = [
    lambda job_id: attempts.complete(job_id, 1, None),
    lambda job_id: attempts.fail(job_id, 1, ERROR),
    lambda job_id: attempts.cancelled(job_id, 1),
    lambda job_id: oversight.lose(job_id, attempt=1),
    lambda job_id: oversight.overrun(job_id, -1.0),
]


@pytest.mark.parametrize("end", ENDS, ids=["complete", "fail", "cancelled", "lose", "overrun"])
def test_job_ends_with_what_its_children_have_said(
    end: Callable[[str], Program], make: Make, database: Database
) -> None:
    parent, (one, two, _) = family(make, 3)
    assert database.run(children.count(parent.id)).row.children_total == 3
    change(database, attempts.complete(one.id, 1, None))
    change(database, attempts.fail(two.id, 1, ERROR))
    row = change(database, end(parent.id))
    assert row.status in OVER
    assert (row.children_total, row.children_completed, row.children_failed) == (3, 1, 1)
    assert row.version == read(database, parent.id).version
    assert not database.read(children.find(9)).counts, "nothing is left to be added up"


def test_cancel_that_comes_too_late_changes_nothing(make: Make, database: Database) -> None:
    parent, (one, _) = family(make, 2)
    row = change(database, attempts.complete(parent.id, 1, None))
    change(database, attempts.complete(one.id, 1, None))
    assert database.run(transitions.cancel(parent.id)) is None
    assert read(database, parent.id).version == row.version
    assert database.read(children.find(9)).counts == [parent.id], "who counts it tells of it"


def test_job_without_children_ends_in_one_change(make: Make, database: Database) -> None:
    row = make()
    assert change(database, attempts.complete(row.id, 1, None)).version == row.version + 1


def test_cancelled_job_ends_with_what_the_children_have_said_that_it_waited_for(
    make: Make, database: Database
) -> None:
    parent, (one, two, three) = family(make, 3)
    for ordinal in range(2):
        make(parent_id=two.id, ordinal=ordinal)
    wait(database, two)
    wait(database, parent)
    change(database, attempts.complete(one.id, 1, None))
    row = change(database, transitions.cancel(parent.id))
    assert (row.status, row.progress["message"]) == ("cancelled", "1 of 3 done")
    assert (row.children_total, row.children_completed) == (3, 1)
    (grandchild, _) = (
        it for it in database.read(children.page(two.id, None, 9)) if it.status not in OVER
    )
    change(database, attempts.complete(grandchild.id, 1, None))
    stopped = {it.id: it for it in database.run(cascades.stop(parent.id, 9))}
    assert stopped[three.id].status == "processing", "its worker is told"
    waited = stopped[two.id]
    assert (waited.status, waited.progress["message"]) == ("cancelled", "1 of 2 done")
    assert (waited.children_total, waited.children_completed) == (2, 1)


def test_every_way_to_end_is_counted(make: Make, database: Database) -> None:
    parent = make()
    of = {"parent_id": parent.id}
    for _ in range(2):
        expired = make("pending", **of, expires_in=-1.0)
        change(database, transitions.expire(expired.id))
        assert database.run(transitions.expire(expired.id)) is None
    lost = make(**of)
    change(database, oversight.lose(lost.id, attempt=1))
    again = make(**of, rerun_when_lost=True)
    change(database, oversight.lose(again.id, attempt=1))
    change(database, oversight.overrun(make(**of).id, -1.0))
    change(database, attempts.fail_unclaimed(make("pending", **of).id, 0, ERROR))
    change(database, transitions.cancel(make("pending", **of).id))
    asked = make(**of)
    change(database, transitions.cancel(asked.id))
    change(database, attempts.retry(asked.id, 1, delay=9.0, error=None, message=None))
    retried = make(**of)
    change(database, attempts.retry(retried.id, 1, delay=0.0, error=None, message=None))
    expected = {"total": 9, "completed": 0, "failed": 5, "cancelled": 2}
    assert known(database, parent.id) == expected
    database.run(children.count(parent.id))
    assert counts(database, parent.id) == tuple(expected.values())


def test_wait_goes_on_at_once_where_no_child_is_open(make: Make, database: Database) -> None:
    parent, (only,) = family(make, 1)
    change(database, attempts.complete(only.id, 1, None))
    row = wait(database, parent, max_attempts=4)
    assert (row.status, row.task, row.queue, row.message) == ("pending", *THEN.values())
    assert (row.max_attempts, row.children_from) == (5, 3)
    assert counts(database, parent.id) == (1, 1, 0, 0)


def test_wait_after_a_cancel_request_ends_the_parent(make: Make, database: Database) -> None:
    parent, _ = family(make, 1)
    change(database, transitions.cancel(parent.id))
    assert wait(database, parent).status == "cancelled"
    assert database.read(children.find(9)).stops == [parent.id]


def test_child_that_is_run_again_or_deleted_is_counted_so(make: Make, database: Database) -> None:
    parent, (one, two, three) = family(make, 3)
    for child in (one, two, three):
        change(database, attempts.fail(child.id, 1, ERROR))
    change(database, transitions.requeue(one.id))
    assert known(database, parent.id)["failed"] == 2
    assert wait(database, parent).status == "processing"
    change(database, transitions.remove(two.id))
    assert known(database, parent.id) == {"total": 2, "completed": 0, "failed": 1, "cancelled": 0}
    new = NewJob(id=three.id, task="u", queue="q", message={"m": 2})
    change(database, transitions.take_over(new))
    assert known(database, parent.id)["failed"] == 0
    for child, attempt in ((one, 1), (three, 1)):
        change(database, attempts.claim(child.id, attempt, f"again-{child.id}", 30.0))
        assert not database.run(children.count(parent.id, at_once=True)).resumed
        change(database, attempts.complete(child.id, 2, None))
    assert database.run(children.count(parent.id)).resumed
    assert counts(database, parent.id) == (2, 2, 0, 0)


def test_child_that_is_run_again_does_not_stop_a_parent_that_has_gone_on(
    make: Make, database: Database
) -> None:
    parent, (only,) = family(make, 1)
    change(database, attempts.fail(only.id, 1, ERROR))
    wait(database, parent)
    change(database, attempts.claim(parent.id, 1, "w", 30.0))
    change(database, transitions.requeue(only.id))
    change(database, attempts.complete(parent.id, 2, None))
    change(database, attempts.claim(only.id, 1, "again", 30.0))
    change(database, attempts.complete(only.id, 2, None))
    assert database.run(children.count(parent.id)).resumed is False
    assert read(database, parent.id).status == "completed"
    assert counts(database, parent.id) == (1, 1, 0, 0)


def test_child_of_a_deleted_parent_ends_as_others(make: Make, database: Database) -> None:
    parent, (only,) = family(make, 1)
    change(database, attempts.complete(parent.id, 1, None))
    change(database, transitions.remove(parent.id))
    change(database, attempts.complete(only.id, 1, None))
    assert database.read(children.find(9)).counts == [parent.id]
    assert database.run(children.count(parent.id)) == (None, False, ())
    assert database.read(children.find(9)) == ([], [], [])


def follow(database: Database, limit: int = 2) -> list[int]:
    """Do as a keeper does for the children of cancelled parents; how many it changed each time."""
    changed = []
    while parents := database.read(children.find(9)).stops:
        changed += [len(database.run(cascades.stop(parent, limit))) for parent in parents]
    return changed


def test_cancelled_parent_cancels_its_children_in_batches(make: Make, database: Database) -> None:
    parent, (one, *others) = family(make, 5)
    of_one = make("pending", parent_id=one.id)
    change(database, attempts.wait(one.id, 1, NewJob(id=one.id, **THEN), 0))
    change(database, attempts.complete(others[0].id, 1, None))
    wait(database, parent)
    assert change(database, transitions.cancel(parent.id)).status == "cancelled"
    assert max(follow(database)) == 2
    assert shown(database, one.id).status == Status.CANCELLED, "it waited"
    assert shown(database, of_one.id).status == Status.CANCELLED
    assert shown(database, others[0].id).status == Status.COMPLETED
    assert all(shown(database, other.id).cancel_requested for other in others[1:])
    for other in others[1:]:
        change(database, attempts.cancelled(other.id, 1))
    assert known(database, parent.id) == {"total": 5, "completed": 1, "failed": 0, "cancelled": 4}
    assert timeline(database, of_one.id) == ["created", "cancelled"]


def test_child_that_is_made_while_its_parent_is_cancelled_is_cancelled_too(
    make: Make, database: Database
) -> None:
    parent = make()
    change(database, transitions.cancel(parent.id))
    change(database, attempts.cancelled(parent.id, 1))
    late = make("pending", parent_id=parent.id)
    database.run(children.count(parent.id))
    follow(database)
    assert shown(database, late.id).status == Status.CANCELLED


def test_cancelled_parent_that_is_run_again_waits_for_its_children_again(
    make: Make, database: Database
) -> None:
    parent, (one, two, three) = family(make, 3, "pending")
    change(database, attempts.claim(one.id, 0, "one", 30.0))
    change(database, attempts.complete(one.id, 1, None))
    wait(database, parent)
    change(database, transitions.cancel(parent.id))
    follow(database)
    database.run(children.count(parent.id))
    assert change(database, transitions.requeue(parent.id)).status == "processing"
    assert database.run(children.count(parent.id, at_once=True)) == (None, False, ())
    while parents := database.read(children.find(9)).agains:
        assert parents == [parent.id]
        database.run(cascades.run_again(parent.id, 1))
    assert known(database, parent.id) == {"total": 3, "completed": 1, "failed": 0, "cancelled": 0}
    for child in (two, three):
        change(database, attempts.claim(child.id, 0, f"again-{child.id}", 30.0))
        change(database, attempts.complete(child.id, 1, None))
    assert database.run(children.count(parent.id)).resumed
    assert counts(database, parent.id) == (3, 3, 0, 0)


def test_children_are_deleted_with_what_they_said(make: Make, database: Database) -> None:
    parent, some = family(make, 3)
    of_one = make(parent_id=some[0].id)
    foreign = make(parent_id=parent.id, owner="bob")
    for job in (of_one, foreign, *some):
        change(database, attempts.complete(job.id, 1, None))
    gone = [len(database.run(cascades.remove(parent.id, "", 1))) for _ in range(3)]
    assert gone == [1, 1, 0], "of one there are still children"
    assert len(database.run(cascades.remove(some[0].id, "", 9))) == 1
    assert len(database.run(cascades.remove(parent.id, "", 9))) == 1
    assert known(database, parent.id)["total"] == 1
    with database.begin() as connection:
        deleted = connection.execute(text("SELECT job_id FROM livejobs_deletions")).scalars()
        assert sorted(deleted) == sorted([of_one.id, *(child.id for child in some)])


def test_ordinal_of_a_parent_makes_one_child(make: Make, database: Database) -> None:
    parent, (one,) = family(make, 1)
    twice = NewJob(id="other", task="t", queue="q", message={}, parent_id=parent.id, ordinal=0)
    assert database.run(transitions.create(twice)) is None
    assert known(database, parent.id)["total"] == 1
    assert database.read(reads.job(one.id)) is not None


@pytest.mark.parametrize("seed", [1, 2])
def test_counts_are_exact_though_many_processes_end_the_same_children(
    make: Make, database: Database, tmp_path: Path, seed: int
) -> None:
    parent, some = family(make, 8, "pending")
    wait(database, parent)
    command = [sys.executable, "-m", "tests.support.ending", parent.id]
    with contextlib.ExitStack() as stack:
        running = [
            stack.enter_context(
                servers.child(
                    [*command, str(10 * seed + number), "150"],
                    tmp_path / f"{number}.log",
                    environment(database.settings),
                )
            )
            for number in range(4)
        ]
        for process in running:
            assert process.wait(timeout=120) == 0
    said = known(database, parent.id)
    assert said["total"] < len(some) or said["completed"] > 0, "something has happened"
    # However often the children were ended and run again, the parent goes on once they are over.
    for job in some:
        row = database.read(reads.job(job.id))
        if row is not None and row.status not in OVER:
            change(database, transitions.cancel(row.id))
            database.run(attempts.cancelled(row.id, row.attempt))
    database.run(children.count(parent.id, at_once=True))
    row = read(database, parent.id)
    assert row.status == "pending"
    assert counts(database, parent.id) == tuple(known(database, parent.id).values())
    assert timeline(database, parent.id).count("resumed") == 1


async def test_enqueue_makes_a_child_of_an_open_job(
    make: Make, database: Database, settings: Settings
) -> None:
    app = producer_app(settings)
    parent = make("pending", owner="ada")
    child = await enqueue("some.task", app=app, parent=parent.id)
    assert (child.parent_id, child.owner) == (parent.id, "ada")
    of_bob = await enqueue("some.task", app=app, parent=parent.id, owner="bob")
    assert of_bob.owner == "bob"
    once = [
        await enqueue("some.task", app=app, parent=parent.id, idempotency_key="k") for _ in range(2)
    ]
    assert once[0].job_id == once[1].job_id
    with SyncSession() as session:
        await enqueue("some.task", app=app, parent=parent.id, session=session)
        session.rollback()
        joined = await enqueue("some.task", app=app, parent=parent.id, session=session)
        session.commit()
    assert read(database, joined.job_id).parent_id == parent.id
    assert known(database, parent.id)["total"] == 4
    with pytest.raises(UnknownJob):
        await enqueue("some.task", app=app, parent="nobody")
    change(database, transitions.cancel(parent.id))
    with pytest.raises(JobConflict):
        await enqueue("some.task", app=app, parent=parent.id)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_two_that_make_children_of_the_same_parents_do_not_wait_for_each_other(
    make: Make, database: Database
) -> None:
    parents = [make(), make()]
    with database.begin() as mine, database.begin() as theirs:
        for connection, order in ((mine, (0, 1)), (theirs, (1, 0))):
            connection.execute(text("SET LOCAL lock_timeout = '2s'"))
            for number in order:
                parent = parents[number]
                new = NewJob(
                    id=uuid.uuid4().hex, task="t", queue="q", message={}, parent_id=parent.id
                )
                assert execute(connection, attempts.spawn(parent.id, 1, [new]))
        # Meanwhile the parents' leases are renewed, and they may be cancelled.
        workers = [parent.worker for parent in parents]
        with database.begin() as renewing:
            renewing.execute(text("SET LOCAL lock_timeout = '2s'"))
            before = [read(database, parent.id).lease_until for parent in parents]
            execute(renewing, attempts.renew(workers, 99.0))
        after = [read(database, parent.id).lease_until for parent in parents]
        assert all(new > old for new, old in zip(after, before, strict=True))
        assert database.run(transitions.cancel(parents[0].id)) is not None
