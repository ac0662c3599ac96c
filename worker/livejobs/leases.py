"""A thread of a process that holds on to the claims of its running jobs.

It renews all their leases in one statement, and looks about once a second which claims still stand
and whether somebody has asked for a cancel. It waits for nothing but the database, and is apart
from the threads that carry reports, so that no report ever costs a job its lease.
"""

from __future__ import annotations

import logging
import threading
import time

from .attempts import check_claims, renew
from .database import Database
from .errors import DatabaseUnavailable
from .running import RunningJob
from .settings import Settings

LOOK_SECONDS = 1.0
"""How often the claims are looked at: a cancel reaches its job within this time."""
RENEWALS_A_LEASE = 3
OUTAGE_LOG_SECONDS = 60.0
"""An outage that lasts is logged again after this time."""

_log = logging.getLogger("livejobs.leases")


class Leases:
    """Holds on to the claims of the jobs that run in this process.

    Args:
        settings: How long a lease is.
        database: Where the claims are.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self._lease = settings.lease_seconds
        self._database = database
        self._jobs: dict[str, RunningJob] = {}
        self._lock = threading.Lock()
        self._work = threading.Event()
        self._look = threading.Event()
        self._stopped = threading.Event()
        self._logged_at: float | None = None
        self._thread = threading.Thread(target=self._run, name="livejobs-leases", daemon=True)
        self._thread.start()

    def hold(self, job: RunningJob) -> None:
        """Hold on to this claim from now on."""
        with self._lock:
            self._jobs[job.worker] = job
        self._work.set()

    def leave(self, job: RunningJob) -> None:
        """The job's end has been committed, or is somebody else's."""
        with self._lock:
            self._jobs.pop(job.worker, None)
            if not self._jobs:
                self._work.clear()

    def doubt(self, job: RunningJob) -> None:
        """Redis knows of a newer attempt: look at once whether the claim still stands."""
        job.doubted = True
        self._look.set()

    def held(self) -> list[RunningJob]:
        """The jobs of this process whose ends have not been committed."""
        with self._lock:
            return list(self._jobs.values())

    def stop(self) -> None:
        """End the thread; the leases of what is left run out."""
        self._stopped.set()
        self._work.set()
        self._look.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        pause = min(LOOK_SECONDS, self._lease / (2 * RENEWALS_A_LEASE))
        renewed: float | None = None
        while True:
            self._work.wait()
            self._look.wait(pause)
            self._look.clear()
            if self._stopped.is_set():
                return
            now = time.monotonic()
            due = renewed is None or now - renewed >= self._lease / RENEWALS_A_LEASE
            try:
                self._look_after(self.held(), renewing=due)
            except DatabaseUnavailable as error:
                self._note_outage(error)
            except Exception:
                _log.exception("the claims of running jobs could not be looked at")
            else:
                self._logged_at = None
                renewed = now if due else renewed

    def _look_after(self, jobs: list[RunningJob], *, renewing: bool) -> None:
        """See which claims still stand and what was asked of them; renew their leases."""
        workers = [job.worker for job in jobs]
        if not workers:
            return
        if renewing:
            rows = self._database.run(renew(workers, self._lease))
        else:
            rows = self._database.read(check_claims(workers))
        standing = {row.worker: row for row in rows}
        for job in jobs:
            row = standing.get(job.worker)
            if row is not None:
                job.cancel_requested = row.cancel_requested_at is not None
                job.doubted = False
            elif job.worker in self._jobs:
                job.lost = True

    def _note_outage(self, error: Exception) -> None:
        now = time.monotonic()
        if self._logged_at is None or now - self._logged_at > OUTAGE_LOG_SECONDS:
            self._logged_at = now
            _log.warning("leases cannot be renewed: %s", error)
