"""A job on its way from its caller to its row and to the broker, and whoever waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from celery import Celery

from .new_jobs import NewJob
from .views import JobView, Status


class Made(NamedTuple):
    """What the database said of a new row."""

    id: str
    created_at: datetime
    run_at: datetime | None


def pending_view(new: NewJob, made: Made | None = None) -> JobView:
    """The view of a new job.

    Args:
        made: What the database said of its row; None: the row is not written here.
    """
    now = datetime.now(UTC) if made is None else made.created_at
    if made is not None:
        run_at = made.run_at
    else:
        run_at = now + timedelta(seconds=new.delay) if new.delay > 0 else None
    return JobView(
        job_id=new.id,
        task=new.task,
        queue=new.queue,
        status=Status.PENDING,
        version=1,
        attempt=0,
        max_attempts=new.max_attempts,
        run_at=run_at,
        owner=new.owner,
        tags=new.tags,
        parent_id=new.parent_id,
        created_at=now,
        updated_at=now,
    )


class Arrival:
    """A new job, until it has its row and has been sent.

    Args:
        app: What sends it.
        new: The job.
        deadline: Moment of the monotonic clock at which its row is not waited for any more.
        future: Gets the arrival itself, on its own event loop; None: a thread waits in `wait`.

    Attributes:
        made: Its new row; None: there is none, as yet or at all.
        doubtful: Whether it has a row is not known: writing it failed.
        sent: Whether the broker took its message.
        given_up: Whoever waited for it has gone on without.
    """

    __slots__ = (
        "app",
        "deadline",
        "doubtful",
        "future",
        "given_up",
        "made",
        "new",
        "ready",
        "sent",
    )

    def __init__(
        self,
        app: Celery,
        new: NewJob,
        deadline: float = math.inf,
        future: asyncio.Future[Arrival] | None = None,
    ) -> None:
        self.app = app
        self.new = new
        self.deadline = deadline
        self.made: Made | None = None
        self.doubtful = False
        self.sent = False
        self.given_up = False
        self.future = future
        # The plainest that a thread can wait for: an event costs several times as much.
        self.ready = threading.Lock()
        self.ready.acquire()

    def wait(self, seconds: float) -> bool:
        """Wait until it has gone its way; False: it takes longer."""
        return self.ready.acquire(timeout=seconds)


def tell(arrivals: Sequence[Arrival]) -> None:
    """These have gone their way, as far as they came: whoever waits for one goes on."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Arrival]] = {}
    for arrival in arrivals:
        if arrival.future is None:
            arrival.ready.release()
        else:
            by_loop.setdefault(arrival.future.get_loop(), []).append(arrival)
    for loop, its in by_loop.items():
        with contextlib.suppress(RuntimeError):  # it was closed meanwhile; nobody waits there
            loop.call_soon_threadsafe(_resolve, its)


def fail(future: asyncio.Future[Arrival], error: BaseException) -> None:
    """Let whoever awaits `future` on its event loop meet `error`."""

    def reject() -> None:
        if not future.done():
            future.set_exception(error)

    with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
        future.get_loop().call_soon_threadsafe(reject)


def _resolve(arrivals: Sequence[Arrival]) -> None:
    for arrival in arrivals:
        if arrival.future is not None and not arrival.future.done():
            arrival.future.set_result(arrival)
