"""Two threads of a process that carry what its jobs report: to Redis, and to the database.

The first report after a silence goes to Redis at once, later ones about ten times a second, all
jobs together. The database gets them every two seconds at most, and every second while Redis is
away. Neither thread ever makes a task wait, and neither waits for the other. A third, in `leases`,
holds on to the jobs' claims, and a fourth, in `counting`, adds up ended children at their parents.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from typing import Protocol

from redis.exceptions import ResponseError

from .attempts import report
from .counting import Counting
from .database import Database, get_database
from .entries import ProgressReport
from .errors import DatabaseUnavailable, RedisUnavailable
from .leases import Leases
from .live import Live, Outcome, Publication, publication_of
from .running import RunningJob
from .settings import Settings, get_settings, settings_generation
from .statements import JobRow

MAX_ENTRIES_A_CALL = 200
OUTAGE_LOG_SECONDS = 60.0
"""An outage that lasts is logged again after this time."""
REDIS_PAUSE_SECONDS = 1.0
"""How long Redis is left alone after it did not answer."""
OUTAGE_SAVE_SECONDS = 1.0
"""While Redis is away the database is all that viewers see: it gets reports as often, at least."""

_log = logging.getLogger("livejobs.reporter")


class Publisher(Protocol):
    """Where live messages go: Redis, or a recorder in tests."""

    def publish(self, publication: Publication) -> Outcome:
        """Publish; raises `RedisUnavailable` where it cannot."""

    def close(self) -> None:
        """Close the connections."""


class Reporter:
    """Carries the reports of all jobs of this process.

    Args:
        settings: Intervals and servers.
        database: Where job records are.
        live: Where live messages go, by default Redis.
    """

    def __init__(
        self, settings: Settings, database: Database, live: Publisher | None = None
    ) -> None:
        self.settings = settings
        self.database = database
        self.live = live or Live(settings)
        self.leases = Leases(settings, database)
        self.counting = Counting(database, self.tell)
        self._jobs: dict[str, RunningJob] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._work = threading.Event()
        self._stopped = threading.Event()
        self._redis_back_at = 0.0
        self._quiet_logs: dict[str, float] = {}
        self._threads = [
            threading.Thread(target=self._send_loop, name="livejobs-send", daemon=True),
            threading.Thread(target=self._save_loop, name="livejobs-save", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def attach(self, job: RunningJob) -> None:
        """Carry the reports of `job`, and hold on to its claim, from now on."""
        self.leases.hold(job)
        with self._lock:
            self._jobs[job.worker] = job
        job.listen(self._wake.set)
        self._work.set()

    def detach(self, job: RunningJob, *, holding: bool = False) -> None:
        """The job's code has ended; what it reported last goes out with its end.

        Args:
            holding: Hold on to its claim until the end has been committed.
        """
        if not holding:
            self.leases.leave(job)
        with self._lock:
            self._jobs.pop(job.worker, None)
            self._quiet_logs.pop(f"sent {job.worker}", None)
            self._quiet_logs.pop(f"saved {job.worker}", None)
            if not self._jobs:
                self._work.clear()

    def tell(self, row: JobRow, job: RunningJob | None = None) -> None:
        """Publish a committed change of status, with what `job` has not sent yet before it.

        While Redis is away nothing is sent: the change is committed, and viewers get it from the
        database.
        """
        publication = publication_of(row)
        running = job or self._running(row)
        with contextlib.nullcontext() if running is None else running.sending:
            if self._redis_pauses():
                _log_untold(row)
                return
            try:
                if job is None:
                    self.live.publish(publication)
                else:
                    self._send_rest(job, publication)
            except RedisUnavailable as error:
                _log_untold(row)
                self._pause_redis(error)

    def stop(self) -> None:
        """End the threads; the jobs of this process are over."""
        self._stopped.set()
        self._wake.set()
        self._work.set()
        self.leases.stop()
        self.counting.stop()
        for thread in self._threads:
            thread.join(timeout=5)
        self.live.close()

    # -- to Redis --------------------------------------------------------------------------------

    def _send_loop(self) -> None:
        while not self._stopped.is_set():
            self._wake.wait()
            self._wake.clear()
            while not self._stopped.is_set() and self._send_all():
                self._stopped.wait(self.settings.flush_interval)

    def _send_all(self) -> bool:
        """Send what waits; False: there is nothing, and the next report is to wake the thread."""
        jobs = self._current()
        for job in jobs:
            job.rest(quiet=False)
        waiting = [job for job in jobs if job.has_unsent and not (job.lost or job.doubted)]
        if not waiting:
            for job in jobs:
                job.rest(quiet=True)
            # A report may have come just before the flag was set.
            return any(job.has_unsent and not job.lost for job in jobs)
        for job in waiting:
            with job.sending:
                if job.worker not in self._jobs:
                    continue
                if self._redis_pauses():
                    job.take()
                    job.not_sent()
                else:
                    self._try_to_send(job)
        return True

    def _try_to_send(self, job: RunningJob) -> None:
        """Send what waits; what is wrong with one job holds up no other."""
        try:
            if self._send(job):
                self._note_return("redis")
        except RedisUnavailable as error:
            job.not_sent()
            if isinstance(error.__cause__, ResponseError):  # it answers, but not to this
                self._note_fault(job, "sent")
            else:
                self._pause_redis(error)
        except Exception:
            job.not_sent()
            self._note_fault(job, "sent")

    def _send(self, job: RunningJob) -> bool:
        """Send some of what waits; False: there was nothing."""
        entries, progress = job.take()
        batch = entries[:MAX_ENTRIES_A_CALL]
        if not batch and progress is None:
            return False
        last_n = batch[-1].n if batch else job.last_n
        outcome = self.live.publish(
            Publication(job.id, job.attempt, last_n, batch, progress, feeds=job.feeds)
        )
        if not outcome.accepted:
            self.leases.doubt(job)
            return False
        job.sent(batch, progress)
        return True

    def _running(self, row: JobRow) -> RunningJob | None:
        """The execution in this process that may be publishing about this job."""
        same = (row.id, row.attempt)
        return next((job for job in self._current() if (job.id, job.attempt) == same), None)

    @property
    def _redis_is_away(self) -> bool:
        """Whether it did not answer when it was last asked."""
        return "redis" in self._quiet_logs

    def _redis_pauses(self) -> bool:
        return time.monotonic() < self._redis_back_at

    def _pause_redis(self, error: RedisUnavailable) -> None:
        """Leave Redis alone for a while, so that not each task waits for it in turn."""
        self._redis_back_at = time.monotonic() + REDIS_PAUSE_SECONDS
        self._note_outage("redis", error)

    def _send_rest(self, job: RunningJob, end: Publication) -> None:
        """Everything that is left, and then the job's end, so that nothing comes after it."""
        entries, progress = job.take(everything=True)
        while len(entries) > MAX_ENTRIES_A_CALL:
            batch = entries[:MAX_ENTRIES_A_CALL]
            self.live.publish(Publication(job.id, job.attempt, batch[-1].n, batch))
            job.sent(batch, None)
            entries = entries[MAX_ENTRIES_A_CALL:]
        same_attempt = end.attempt == job.attempt
        last: ProgressReport | None = progress if same_attempt else None
        self.live.publish(end._replace(entries=entries, progress=last))
        job.sent(entries, progress)

    # -- to the database -------------------------------------------------------------------------

    def _save_loop(self) -> None:
        left = self.settings.save_interval
        while not self._stopped.is_set():
            self._work.wait()
            if self._stopped.wait(min(left, OUTAGE_SAVE_SECONDS)):
                return
            left -= OUTAGE_SAVE_SECONDS
            if left > 0 and not self._redis_is_away:
                continue
            left = self.settings.save_interval
            try:
                for job in self._current():
                    self._try_to_save(job)
                self._note_return("database")
            except DatabaseUnavailable as error:
                self._note_outage("database", error)

    def _try_to_save(self, job: RunningJob) -> None:
        """Save what waits; what is wrong with one job holds up no other."""
        try:
            self._save(job)
        except DatabaseUnavailable:
            raise
        except Exception:
            self._note_fault(job, "saved")

    def _save(self, job: RunningJob) -> None:
        reported = job.reported()
        if job.lost or not job.has_unsaved or job.worker not in self._jobs:
            return
        row = self.database.run(report(job.id, job.attempt, reported))
        if row is None:
            return
        job.saved(reported)
        known, job.version = job.version, row.version
        if known and row.version > known + 1:
            # Others changed it meanwhile: a keeper that took it for stalled, perhaps.
            self.tell(row)

    # -- both ------------------------------------------------------------------------------------

    def _current(self) -> list[RunningJob]:
        with self._lock:
            return list(self._jobs.values())

    def _note_outage(self, part: str, error: Exception) -> None:
        if self._is_time_to_log(part):
            _log.warning("reports wait: %s", error)

    def _note_fault(self, job: RunningJob, what: str) -> None:
        """Log the exception being handled, once in a while for each job."""
        if self._is_time_to_log(f"{what} {job.worker}"):
            _log.exception(
                "reports of job %s could not be %s", job.id, what, extra={"job_id": job.id}
            )

    def _is_time_to_log(self, topic: str) -> bool:
        now = time.monotonic()
        with self._lock:
            last = self._quiet_logs.get(topic)
            if last is not None and now - last < OUTAGE_LOG_SECONDS:
                return False
            self._quiet_logs[topic] = now
            return True

    def _note_return(self, part: str) -> None:
        if self._quiet_logs.pop(part, None) is not None:
            _log.info("the %s is back; reports go out again", part)


def _log_untold(row: JobRow) -> None:
    _log.warning(
        "viewers of job %s were not told that it is %s: Redis is away, the database has it",
        row.id,
        row.status,
        extra={"job_id": row.id},
    )


class _Shared:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.reporter: Reporter | None = None
        self.live: Publisher | None = None  # in place of Redis
        self.generation = -1

    def after_fork(self) -> None:
        # Threads and sockets stay with the parent; the child makes its own when it needs them.
        self.lock = threading.Lock()
        self.reporter = None


_shared = _Shared()
os.register_at_fork(after_in_child=_shared.after_fork)


def get_reporter() -> Reporter:
    """The reporter of this process; safe across forks."""
    with _shared.lock:
        if _shared.reporter is not None and _shared.generation != settings_generation():
            _shared.reporter.stop()
            _shared.reporter = None
        if _shared.reporter is None:
            _shared.generation = settings_generation()
            _shared.reporter = Reporter(get_settings(), get_database(), _shared.live)
        return _shared.reporter


@contextlib.contextmanager
def publishing_to(live: Publisher) -> Iterator[None]:
    """Publish to `live` in place of Redis meanwhile; for tests."""
    stop_reporter()
    before, _shared.live = _shared.live, live
    try:
        yield
    finally:
        stop_reporter()
        _shared.live = before


def stop_reporter() -> None:
    """End this process's reporter, if it has one; the next job makes a new one."""
    with _shared.lock:
        if _shared.reporter is not None:
            _shared.reporter.stop()
            _shared.reporter = None
