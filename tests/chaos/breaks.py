"""Takes one safeguard out of livejobs in the process that calls it, to see that the suite notices.

A build that is broken on purpose: `make chaos BREAK=fence|order|dispatch|round`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from typing import Any, Final

from sqlalchemy import and_, select, update
from sqlalchemy.sql.base import Executable
from sqlalchemy.sql.expression import ColumnElement

from livejobs import attempts, transitions
from livejobs.models import db_now
from livejobs.statements import Batch, Rows, jobs
from livejobs.views import Status

VARIABLE: Final = "CHAOS_BREAK"


def break_as_told() -> None:
    """Break what the environment names."""
    name = os.environ.get(VARIABLE)
    if name:
        BREAKS[name]()


def _fence() -> None:
    """Whoever once ran a job may change it for as long as anybody runs it."""

    def running(job_id: str, attempt: int) -> ColumnElement[bool]:
        return and_(jobs.c.id == job_id, jobs.c.status == Status.PROCESSING)

    attempts.running_attempt = running  # type: ignore[attr-defined]


def _dispatch() -> None:
    """A job that was sent once is not sent again."""

    def dispatch(limit: int) -> Generator[Executable | Batch, Rows, Rows]:
        due = and_(jobs.c.status == Status.PENDING, jobs.c.due_at <= db_now())
        new = select(jobs.c.id).where(due, jobs.c.dispatches == 0).limit(limit)
        return (
            yield update(jobs)
            .where(jobs.c.id.in_(new.with_for_update(skip_locked=True)), due)
            .values(due_at=db_now(60.0), dispatches=1)
            .returning(jobs)
        )

    transitions.dispatch = dispatch


def _round() -> None:
    """What nobody published is not looked for."""
    from livejobs_server.push.rounds import Rounds

    async def none(self: Rounds) -> None:
        """Do nothing."""

    Rounds.round = none  # type: ignore[method-assign]


def _order() -> None:
    """Read first, subscribe afterwards: what is published in between is missed."""
    from livejobs_server.push.exchange import Read, Snapshot
    from livejobs_server.push.hub import Hub
    from livejobs_server.push.topic import Topic

    def wants_read(topic: Topic, online: bool) -> bool:
        if topic.read is not None or topic.postponed:
            return False
        return bool(topic.joiners) or (topic.refresh and bool(topic.live))

    def end_read(topic: Topic) -> list[Any]:
        frames, topic.read = topic._frames, None  # noqa: SLF001
        topic._frames, topic._bytes = [], 0  # noqa: SLF001
        return frames

    def open_later(hub: Hub, job_id: str) -> Topic:
        topic = hub._topics[job_id] = Topic(job_id)  # noqa: SLF001
        return topic

    read_is_in = Hub.snapshot

    def snapshot(hub: Hub, read: Read, found: Snapshot) -> None:
        read_is_in(hub, read, found)
        topic = hub._topics.get(read.job_id)  # noqa: SLF001
        asked = read.job_id in hub._unacked  # noqa: SLF001
        if topic is not None and hub._online and not (topic.acked or asked):  # noqa: SLF001
            hub._ask(read.job_id)  # noqa: SLF001

    Topic.wants_read = wants_read  # type: ignore[method-assign,assignment]
    Topic.end_read = end_read  # type: ignore[method-assign,assignment]
    Hub._open = open_later  # type: ignore[method-assign,assignment]  # noqa: SLF001
    Hub.snapshot = snapshot  # type: ignore[method-assign,assignment]


BREAKS: Final[dict[str, Callable[[], None]]] = {
    "fence": _fence,
    "dispatch": _dispatch,
    "round": _round,
    "order": _order,
}
