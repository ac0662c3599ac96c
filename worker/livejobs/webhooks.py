"""Completion webhooks as the database knows them: who is told of a job's end, and by which job.

A webhook is sent by a job of its own, whose row is inserted in the transaction of the end that it
tells of: so there is one for each end, whatever dies. The id of that job is the webhook's id, and
follows from the job and the version that its end gave it. What is sent is written down with it, and
is the same in each try.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from typing import Any, Final, NamedTuple
from uuid import UUID, uuid4, uuid5

from sqlalchemy import Insert, Row, and_, delete, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql.base import Executable

from .errors import WebhookError
from .models import db_now, view_of
from .new_jobs import NEW_EVENT, NEW_JOB, NewJob, parameters
from .settings import Settings, get_settings
from .statements import WEBHOOK_TASK, Batch, JobRow, Rows, change, events, jobs, note, webhooks
from .views import Status, format_time, to_json
from .webhook_urls import check

TAG: Final = "webhook_of"
"""Tag of the jobs that send webhooks: the job of whose end they tell."""
KIND: Final = "webhook"
"""In the timeline of a job: there is a job that tells of its end."""
EXECUTIONS: Final = 24
"""Of a job that sends a webhook, also those whose worker died."""
_NAMES: Final = UUID("0b1f2d0e-6a3c-4d7e-8e0f-5a4f6d1c9b27")

Steps = Generator[Executable | Batch, Rows, Any]


def checked_url(url: str | None, settings: Settings | None = None) -> str | None:
    """A URL that a job's end can be told to; None and the empty text are nobody's.

    Raises:
        WebhookError: No webhook can go there, or nothing is set to sign it with.
    """
    if not url:
        return url
    settings = settings or get_settings()
    require_possible(url, settings)
    require_secret(settings)
    return url


def require_secret(settings: Settings) -> str:
    """The secret that webhooks are signed with now, the first one of the settings.

    Raises:
        WebhookError: None is set.
    """
    if not settings.webhook_secret:
        raise WebhookError(
            "webhook_not_set_up",
            "There is no secret to sign webhooks with: set LIVEJOBS_WEBHOOK_SECRET, for servers, "
            "workers and whoever enqueues, to what `livejobs webhooks secret` prints.",
        )
    return settings.webhook_secret[0].get_secret_value()


def require_possible(url: str, settings: Settings) -> None:
    """See that a webhook can go to a URL.

    Raises:
        WebhookError: None can.
    """
    try:
        check(url, settings.webhook_networks)
    except ValueError as error:
        raise WebhookError("webhook_invalid", f"No webhook can go to this URL: {error}.") from None


# -- the job that sends one ------------------------------------------------------------------------


def deliver(row: JobRow, url: str | None) -> Generator[Executable | Batch, Rows, None]:
    """Make the job that tells of a job's end, if anybody is to be told.

    A keeper sends it within a second. It is the only row that is inserted under its id, so that
    nobody has to wait for it.

    Args:
        row: The job's, after its end.
        url: Where to; empty or None: nobody is told.
    """
    if url:
        job_id = str(uuid5(_NAMES, f"{row.id}:{row.version}"))
        yield from _make(row, job_id, [job_id, url, _event(row)])


def send_again(row: JobRow, delivery: JobRow) -> Generator[Executable | Batch, Rows, str]:
    """Make a job that sends once more what an earlier one has sent, under the same webhook id.

    Args:
        row: The job that it tells of.
        delivery: The earlier one.

    Returns:
        The id of the new one.
    """
    job_id = str(uuid4())
    yield from _make(row, job_id, json.loads(delivery.message["body"])[0])
    return job_id


def hurry(job_id: str) -> Generator[Executable | Batch, Rows, JobRow | None]:
    """Try a delivery at once that waits for its next try; None: it does not wait."""
    waits = and_(jobs.c.id == job_id, jobs.c.status == Status.PENDING, jobs.c.run_at.is_not(None))
    rows = yield change(waits, run_at=None, due_at=db_now(), dispatches=0)
    return rows[0] if rows else None


def _make(
    row: JobRow, job_id: str, arguments: list[str]
) -> Generator[Executable | Batch, Rows, None]:
    queue = get_settings().webhook_queue
    new = NewJob(
        id=job_id,
        task=WEBHOOK_TASK,
        queue=queue,
        message=_message(job_id, queue, arguments),
        owner=row.owner,
        tags={TAG: row.id},
        max_attempts=EXECUTIONS,
        rerun_when_lost=True,
    )
    # Nobody else sends it, so it is due at once.
    yield NEW_JOB, parameters(new) | {"due_in": 0.0}
    yield NEW_EVENT, {"job_id": job_id}
    yield from note(row, KIND, {"job_id": job_id})


def _event(row: JobRow) -> str:
    """The body, as Standard Webhooks has it."""
    view = view_of(row)
    event = {
        "type": f"job.{view.status}",
        "timestamp": format_time(row.completed_at),
        "data": view.model_dump(mode="json"),
    }
    return to_json(event)


def _message(job_id: str, queue: str, arguments: list[str]) -> dict[str, Any]:
    """The Celery message, as `messages.encode` would have it; what ends a job need have no app."""
    nothing = dict.fromkeys(("callbacks", "errbacks", "chain", "chord"))
    return {
        "body": json.dumps([arguments, {}, nothing], ensure_ascii=False),
        "binary": False,
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "headers": {
            **{"lang": "py", "task": WEBHOOK_TASK, "id": job_id, "root_id": job_id},
            **dict.fromkeys(("shadow", "eta", "expires", "group", "group_index", "parent_id")),
            **{"retries": 0, "timelimit": [None, None], "replaced_task_nesting": 0},
            # The URL is nothing for the logs of brokers and workers.
            **{"argsrepr": f"({job_id!r}, …)", "kwargsrepr": "{}", "origin": "livejobs"},
            **{"ignore_result": True, "stamped_headers": None, "stamps": {}},
        },
        "properties": {"delivery_mode": 2, "correlation_id": job_id, "reply_to": ""},
        **{"exchange": "", "routing_key": queue, "queue": queue, "declare": None},
    }


# -- what came of them -----------------------------------------------------------------------------


class Delivery(NamedTuple):
    """A job that tells of another one's end.

    Attributes:
        row: Its row.
        tries: The events of its timeline that end a try, the oldest first.
    """

    row: JobRow
    tries: list[Row[Any]]

    @property
    def arguments(self) -> list[str]:
        """The webhook's id, its URL, and what is sent."""
        found: list[str] = json.loads(self.row.message["body"])[0]
        return found


def deliveries(
    job_id: str, limit: int | None = None
) -> Generator[Executable | Batch, Rows, list[Delivery]]:
    """The jobs that tell of a job's ends, as far as they are still there, the newest first."""
    ids = yield from delivery_ids(job_id, limit)
    if not ids:
        return []
    found = yield select(jobs).where(jobs.c.id.in_(ids))
    rows = {row.id: row for row in found}
    ends = [each.value for each in (Status.COMPLETED, Status.FAILED, Status.CANCELLED)]
    noted = yield (
        select(events)
        .where(events.c.job_id.in_(ids), events.c.kind.in_(["retried", "lost", *ends]))
        .order_by(events.c.id)
    )
    return [
        Delivery(rows[each], [event for event in noted if event.job_id == each])
        for each in ids
        if each in rows
    ]


def delivery_ids(
    job_id: str, limit: int | None = None
) -> Generator[Executable | Batch, Rows, list[str]]:
    """The ids of the jobs that tell of a job's ends, the newest first."""
    noted = yield (
        select(events.c.detail)
        .where(events.c.job_id == job_id, events.c.kind == KIND)
        .order_by(events.c.id.desc())
        .limit(limit)
    )
    return [event.detail["job_id"] for event in noted]


# -- an owner's default ----------------------------------------------------------------------------


def set_default(owner: str, url: str) -> Steps:
    """From now on, whoever is at `url` is told of the ends of an owner's jobs that name no other.

    Children are left out. The caller has checked the URL.

    Returns:
        The row of ``livejobs_webhooks``.
    """
    values: Mapping[str, Any] = {"url": url, "changed_at": db_now(), "disabled_at": None}
    new: Insert = (
        insert(webhooks)
        .values(owner=owner, created_at=db_now(), **values)
        .on_conflict_do_update(index_elements=[webhooks.c.owner], set_=values)
    )
    return (yield new.returning(webhooks))[0]


def find_default(owner: str) -> Steps:
    """An owner's default; None: there is none."""
    rows = yield select(webhooks).where(webhooks.c.owner == owner)
    return rows[0] if rows else None


def remove_default(owner: str) -> Steps:
    """Tell nobody any more; whether there was a default."""
    rows = yield delete(webhooks).where(webhooks.c.owner == owner).returning(webhooks.c.owner)
    return bool(rows)


def disable_default(owner: str, url: str) -> Steps:
    """Whoever is at `url` wants no more; whether it was the owner's default."""
    mine = and_(webhooks.c.owner == owner, webhooks.c.url == url, webhooks.c.disabled_at.is_(None))
    rows = yield (
        update(webhooks).where(mine).values(disabled_at=db_now()).returning(webhooks.c.owner)
    )
    return bool(rows)
