"""The loop that looks after jobs that no worker looks after.

It sends what is due, takes back what is lost, and ends what is too old or does not end by itself.

It runs in every server process and in every worker's main process, safe any number of times over:
each job is taken by one statement that only one keeper's transaction wins. It is a thread and not
a coroutine, because the broker's clients block.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterable

from celery import Celery
from kombu.exceptions import KombuError

from . import cascades, oversight, reads, transitions
from .children import Found
from .control import ask_to_end
from .counting import count_children
from .database import Database, get_database
from .errors import DatabaseUnavailable, LivejobsError
from .live import Live
from .messages import PATIENCE_SECONDS, header_of, message_of, publish
from .patience import call_within
from .settings import Settings
from .statements import JobRow, Program, Rows
from .steadiness import Steadiness, now

ROUND_SECONDS = 1.0
ROUNDS_A_LEASE = 6
"""At least; short leases make the rounds quicker."""
BATCH = 100
CHILDREN_BATCH = 500
POSTPONE_SECONDS = 5.0
"""When what the broker did not take is tried again."""
BEAT_SECONDS = 5.0
OUTAGE_PAUSE_SECONDS = 2.0

_log = logging.getLogger("livejobs.keeper")


class Keeper:
    """Looks after the jobs that no worker looks after, until it is stopped.

    Args:
        settings: Where the servers are.
        app: The Celery app whose broker the jobs go to.
        kind: server or worker; part of the name under which its sign of life is written.
        clock: Seconds, also of the time in which this machine sleeps.
    """

    def __init__(
        self,
        settings: Settings,
        app: Celery,
        kind: str = "server",
        clock: Callable[[], float] = now,
    ) -> None:
        self.settings = settings
        self.name = f"{kind}:{socket.gethostname()}:{os.getpid()}"
        self._app = app
        self._database: Database = get_database()
        self._live = Live(settings)
        self._clock = clock
        self._steadiness = Steadiness(settings.lease_seconds)
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._next_beat = 0.0
        self._in_outage = False
        self._counted_soon: set[str] = set()  # parents whose children have changed here

    def start(self) -> None:
        """Begin, in a thread of its own."""
        self._thread = threading.Thread(target=self._run, name="livejobs-keeper", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End after the round under way; returns when it has ended, or within seconds."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(timeout=5)
        self._live.close()

    async def run(self) -> None:
        """Run until cancelled, for async composition."""
        self.start()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.to_thread(self.stop)

    def round(self) -> None:
        """Do once what there is to do.

        Raises:
            DatabaseUnavailable: The database is away.
        """
        grace, most = self.settings.cancel_grace, self.settings.max_runtime
        quiet = self.settings.quiet_after
        try:
            found = self._database.read(reads.chores(BATCH, grace=grace, most=most, quiet=quiet))
        except BaseException:
            self._steadiness.broken()
            raise
        self._steadiness.good(self._clock())
        if self._steadiness.may_judge:
            # What is run again is due at once.
            found = found._replace(due=self._lose(found.lost) or found.due)
        if found.due:
            self._dispatch()
        self._change(transitions.expire(row.id) for row in found.expired)
        self._change(oversight.fall_silent(row.id, quiet) for row in found.silent)
        over = self._change(oversight.overrun(row.id, most) for row in found.overrun)
        if over:
            claims = {row.id: row.worker for row in found.overrun}
            self._end({row.id: claims[row.id] for row in over}, over=True)
        if found.overdue:
            rows = self._database.run(oversight.take_overdue(BATCH, grace))
            self._end({row.id: row.worker for row in rows}, over=False)
        self._look_after_children(found.parents)

    def _look_after_children(self, parents: Found) -> None:
        """Have the children of some parents follow them, and count the children of others."""
        changed = {
            *(parent_id for parent_id in parents.stops if self._all_of(parent_id, cascades.stop)),
            *(id for id in parents.agains if self._all_of(id, cascades.run_again)),
        }
        for parent_id in {*parents.counts, *changed, *self._counted_soon}:
            self._counted_soon.discard(parent_id)
            count_children(
                self._database,
                parent_id,
                self._app,
                self._live.publish_view,
                # Nobody comes back to it for a mark that is gone.
                at_once=parent_id in changed,
            )

    def _all_of(self, parent_id: str, change: Callable[[str, int], cascades.Steps]) -> bool:
        """Change a parent's children, batch by batch; False: the rest is left to the next round."""
        end = self._clock() + ROUND_SECONDS
        while not self._stopped.is_set() and self._clock() < end:
            rows = self._database.run(change(parent_id, CHILDREN_BATCH))
            if not rows:
                return True
            self._live.publish_views(rows)
        return False

    def _lose(self, found: Rows) -> bool:
        """Take back what is lost; whether any of it is to be run again."""
        rows = self._change(oversight.lose(row.id) for row in found)
        for row in rows:
            _log.warning(
                "job %s was lost by its worker and is %s now",
                row.id,
                row.status,
                extra={"job_id": row.id},
            )
        return bool(rows)

    def _dispatch(self) -> None:
        while True:
            rows = self._database.run(transitions.dispatch(BATCH))
            unsent = self._send(rows)
            if unsent:
                self._database.run(transitions.postpone(unsent, POSTPONE_SECONDS))
            if len(rows) < BATCH or unsent or self._stopped.is_set():
                return

    def _end(self, claims: dict[str, str], *, over: bool) -> None:
        """Have the workers end the processes of these jobs."""
        ask = functools.partial(ask_to_end, self._app, claims, over)
        try:
            call_within(PATIENCE_SECONDS * 2, ask, "broker")
        except (KombuError, OSError, TimeoutError) as error:
            _log.warning("the processes of %d jobs cannot be ended now: %s", len(claims), error)

    def _change(self, programs: Iterable[Program]) -> list[JobRow]:
        """Run each program that still finds its job as it was, and tell of the change."""
        changed, redis_answers = [], True
        for program in programs:
            row = self._database.run(program)
            if row is not None:
                changed.append(row)
                if row.parent_id is not None:
                    self._counted_soon.add(row.parent_id)
                # A Redis that hangs costs a second, but not a second for each job.
                redis_answers = redis_answers and self._live.publish_view(row)
        return changed

    def _run(self) -> None:
        usual = min(ROUND_SECONDS, self.settings.lease_seconds / ROUNDS_A_LEASE)
        pause = 0.0
        while not self._stopped.wait(pause):
            pause = OUTAGE_PAUSE_SECONDS
            try:
                self._beat()
                self.round()
            except DatabaseUnavailable as error:
                self._note_outage(error)
            except LivejobsError as error:
                _log.error("the keeper waits: %s", error)
            except Exception:
                _log.exception("a round of the keeper failed")
            else:
                pause = usual
                self._in_outage = False

    def _beat(self) -> None:
        moment = self._clock()
        if moment >= self._next_beat:
            self._database.run(transitions.beat(self.name))
            self._next_beat = moment + BEAT_SECONDS

    def _send(self, rows: Rows) -> list[str]:
        """Send each; returns the ids of those that the broker did not take."""
        for index, row in enumerate(rows):
            try:
                call_within(PATIENCE_SECONDS * 2, functools.partial(self._publish, row), "broker")
            except (KombuError, OSError, TimeoutError) as error:
                _log.warning(
                    "%d jobs wait for the broker: %s",
                    len(rows) - index,
                    str(error) or type(error).__name__,
                )
                return [unsent.id for unsent in rows[index:]]
            except Exception:
                _log.exception("job %s cannot be sent", row.id, extra={"job_id": row.id})
        return []

    def _publish(self, row: JobRow) -> None:
        publish(self._app, message_of(row), header_of(row))
        _log.info("job %s was due and has been sent", row.id, extra={"job_id": row.id})

    def _note_outage(self, error: Exception) -> None:
        if not self._in_outage:
            _log.warning("the keeper waits: %s", error)
        self._in_outage = True
