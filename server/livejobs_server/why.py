"""Why a job is not moving, in one sentence: from what the database and the workers say; pure."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Table, func, select
from sqlalchemy.sql.base import Executable

from livejobs.models import SCHEMA_TOKEN, Beat, db_now
from livejobs.oversight import UNKNOWN_SENDS
from livejobs.statements import Batch, JobRow, Rows, events, jobs
from livejobs.views import Status

KEEPER_SECONDS: Final = 20.0
"""A keeper that gave no sign of life for this long is taken for dead."""
SENDING_SECONDS: Final = 3.0
"""So long after it was due, a job that was not sent is late."""
_beats: Final[Table] = Beat.metadata.tables[f"{SCHEMA_TOKEN}.livejobs_beats"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of a job.

    Attributes:
        row: Its row.
        now: The database's time.
        keeper_at: When a keeper gave its last sign of life; None: never, or not for a day.
        met_unknown: How often workers got it that do not know its task.
        grace: Seconds that a job has to stop after its cancel.
    """

    row: JobRow
    now: datetime
    keeper_at: datetime | None
    met_unknown: int = 0
    grace: float = 30.0

    @property
    def is_sent(self) -> bool:
        """Whether it lies in a queue, so that the workers are to be asked."""
        row = self.row
        waits = row.run_at is not None and row.run_at > self.now
        return row.status == Status.PENDING and row.dispatches > 0 and not waits

    def since(self, moment: datetime | None) -> float:
        """Seconds since a moment; negative where it is still to come, 0 where there is none."""
        return 0.0 if moment is None else (self.now - moment).total_seconds()


def read_facts(job_id: str, grace: float) -> Generator[Executable | Batch, Rows, Facts | None]:
    """Read what the database knows; None: there is no such job."""
    rows = yield select(jobs, db_now().label("now")).where(jobs.c.id == job_id)
    if not rows:
        return None
    beat = yield select(func.max(_beats.c.at))
    met = yield select(func.count()).where(
        events.c.job_id == job_id, events.c.kind == "unknown", events.c.attempt == rows[0].attempt
    )
    return Facts(
        row=rows[0], now=rows[0].now, keeper_at=beat[0][0], met_unknown=met[0][0], grace=grace
    )


def explain(facts: Facts, workers: Mapping[str, Sequence[str]] | None = None) -> str:
    """Why the job is where it is, in one sentence.

    Args:
        workers: The workers that answered, each with the queues it takes from; None: the broker
            did not answer.
    """
    match Status(facts.row.status):
        case Status.PENDING:
            return _pending(facts, workers)
        case Status.PROCESSING:
            return _processing(facts)
        case over:
            ago = span(facts.since(facts.row.completed_at))
            return f"It is over: {over} {ago} ago{_because(facts.row.error)}."


def span(seconds: float) -> str:
    """A length of time as people say it: 40 s, 14 min, 3 h, 2 d."""
    for most, size, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < most:
            return f"{max(seconds, 0) / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def _because(error: Mapping[str, Any] | None) -> str:
    return "" if error is None else f" with {error['type']}: {error['message']}".rstrip(".")


# -- it waits --------------------------------------------------------------------------------------


def _pending(facts: Facts, workers: Mapping[str, Sequence[str]] | None) -> str:
    row = facts.row
    if row.held:
        places = "the one place" if row.at_once == 1 else f"one of {row.at_once} places"
        return f"It waits for {places} of its parent."
    if row.due_at is None:
        return "Its task has replaced itself by others, and it waits for the last of them."
    late = facts.since(row.due_at)
    if late > SENDING_SECONDS and _keeper_is_dead(facts):
        return f"{_no_keeper(facts)}, so nobody sends it: start a server, a worker or a keeper."
    if row.run_at is not None and row.run_at > facts.now:
        after = f", after attempt {row.attempt} failed" if row.attempt else ""
        return f"It is due in {span(-facts.since(row.run_at))}{after}{_because(row.error)}."
    if late > SENDING_SECONDS:
        return f"It has been due for {span(late)}, but the broker does not take it."
    if not facts.is_sent:
        return "It is about to be sent."
    return _sent(facts, workers)


def _sent(facts: Facts, workers: Mapping[str, Sequence[str]] | None) -> str:
    row, queue = facts.row, facts.row.queue
    if workers is None:
        return f"It was sent to queue {queue}, but the broker does not answer now."
    if not workers:
        return f"It waits in queue {queue}, and no worker answers: is one running?"
    takers = [worker for worker, queues in workers.items() if queue in queues]
    if not takers:
        return f"No worker takes from queue {queue}; {len(workers)} take from others."
    if facts.met_unknown:
        return (
            f"{facts.met_unknown} of {UNKNOWN_SENDS} times a worker got it that does not know "
            f"{row.task}; it is sent again in {span(-facts.since(row.due_at))}."
        )
    are = "1 worker that takes from it is" if len(takers) == 1 else f"{len(takers)} workers are"
    again = span(-facts.since(row.due_at))
    return f"It waits in queue {queue}: the {are} busy; it is sent once more in {again}."


def _keeper_is_dead(facts: Facts) -> bool:
    return facts.keeper_at is None or facts.since(facts.keeper_at) > KEEPER_SECONDS


def _no_keeper(facts: Facts) -> str:
    if facts.keeper_at is None:
        return "There is no keeper"
    return f"There has been no keeper for {span(facts.since(facts.keeper_at))}"


# -- it runs ---------------------------------------------------------------------------------------


def _processing(facts: Facts) -> str:
    row = facts.row
    if row.lease_until is None:
        over = row.children_completed + row.children_failed + row.children_cancelled
        return f"It waits for {row.children_total - over} of {row.children_total} children."
    where = _where(row.worker)
    expired = facts.since(row.lease_until)
    if expired > 0:
        if _keeper_is_dead(facts):
            return f"Its worker, {where}, is lost, and {_lower(_no_keeper(facts))} to take it back."
        return (
            f"Its worker, {where}, has lost its lease {span(expired)} ago; it is taken back soon."
        )
    if row.cancel_requested_at is not None:
        left = facts.grace - facts.since(row.cancel_requested_at)
        then = f"in {span(left)} its process is ended" if left > 0 else "its process is being ended"
        asked = span(facts.since(row.cancel_requested_at))
        return f"Its cancel was asked for {asked} ago, the task on {where} goes on, and {then}."
    reported = span(facts.since(row.reported_at))
    running = span(facts.since(row.started_at))
    return f"It has been running on {where} for {running}, and last reported {reported} ago."


def _where(claim: str | None) -> str:
    host, _, rest = (claim or "").partition(":")
    return f"{host}, process {rest.partition(':')[0]}" if rest else "an unknown host"


def _lower(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:]
