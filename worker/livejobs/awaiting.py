"""Jobs that coroutines enqueue: built and written elsewhere, while the event loop goes on."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

from celery import Celery

from .arrivals import Arrival, fail, tell
from .gathering import Gatherer
from .intake import intake
from .messages import PATIENCE_SECONDS
from .new_jobs import NewJob
from .outgoing import carrier

_log = logging.getLogger("livejobs.dispatch")


class _Plan:
    """A job whose message is to be built, which code of the application's may take part in."""

    __slots__ = ("app", "arrival", "built_at", "context", "future", "make")

    def __init__(
        self, app: Celery, make: Callable[[], NewJob], future: asyncio.Future[Arrival]
    ) -> None:
        self.app = app
        self.make = make
        self.future = future
        self.context = contextvars.copy_context()
        self.arrival: Arrival | None = None
        self.built_at = 0.0


class _Builder:
    """The hands of the thread that builds messages."""

    def do(self, plans: Sequence[_Plan]) -> None:
        """Build each, and put it on its way."""
        for plan in plans:
            try:
                new = plan.context.run(plan.make)
            except BaseException as error:
                fail(plan.future, error)
            else:
                plan.built_at = time.monotonic()
                plan.arrival = Arrival(plan.app, new, future=plan.future)
                if new.parent_id is None:
                    intake.put(plan.arrival)
                else:
                    tell([plan.arrival])  # its parent has to be told too: that is the long way

    def close(self) -> None:
        """Nothing is open."""


_builds: Final[Gatherer[_Plan]] = Gatherer("livejobs-build", _Builder, most=1)


async def arrived(app: Celery, make: Callable[[], NewJob]) -> Arrival:
    """Build a job, write its row and send its message, together with others that come now.

    Returns:
        The job; where it was not made, it is to go the long way.

    Raises:
        TimeoutError: Its row was not written in time, and will not be.
    """
    loop = asyncio.get_running_loop()
    plan = _Plan(app, make, loop.create_future())
    _builds.put(plan)
    watch = _Watch(plan, loop)
    try:
        return await plan.future
    finally:
        watch.end()


class _Watch:
    """Sees to it that nobody waits longer than a second for a row or a broker that does not move.

    In a crowd it may take longer, as long as others before it get on.
    """

    def __init__(self, plan: _Plan, loop: asyncio.AbstractEventLoop) -> None:
        self._plan = plan
        self._loop = loop
        self._rounds = (intake.rounds, 0)
        self._timer = loop.call_later(PATIENCE_SECONDS, self._look)

    def end(self) -> None:
        """Stop watching; whoever waited has got it, or was cancelled."""
        self._timer.cancel()

    def _look(self) -> None:
        arrival, future = self._plan.arrival, self._plan.future
        # The first message of a process may take long to build, for which nobody else is slow.
        left = self._plan.built_at + PATIENCE_SECONDS - time.monotonic()
        if arrival is not None and left > 0:
            self._timer = self._loop.call_later(left, self._look)
            return
        carries = carrier(self._plan.app)
        before, self._rounds = self._rounds, (intake.rounds, carries.rounds)
        if future.done():
            return
        if arrival is None:
            _builds.look(PATIENCE_SECONDS / 2)
        elif arrival.made is None and before[0] == self._rounds[0]:
            intake.look(PATIENCE_SECONDS / 2)
            arrival.given_up = True
            future.set_exception(TimeoutError("the row was not written in time"))
            return
        elif arrival.made is not None and before[1] == self._rounds[1]:
            carries.look(PATIENCE_SECONDS / 2)
            arrival.given_up = True
            _log.warning("job %s could not be sent now, a keeper will send it", arrival.new.id)
            future.set_result(arrival)
            return
        self._timer = self._loop.call_later(PATIENCE_SECONDS, self._look)
