"""Renews leases for processes of the pool that cannot do it themselves.

A task that holds Python's global lock, in a long call into C code, keeps the threads of its own
process from running. The main process of the worker is not held up by that: as long as the other
one is there and not frozen, its jobs are not lost.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from .attempts import renew, unrenewed
from .claims import claims_of
from .database import get_database
from .errors import DatabaseUnavailable

LOOKS_A_LEASE = 6
BATCH = 100
"""Jobs in one statement."""

_log = logging.getLogger("livejobs.leases")


class Guard:
    """Looks after the leases of the jobs in a worker's pool, in a thread.

    Args:
        lease: How long a lease is, in seconds.
        active: Tells which jobs run in which processes.
    """

    def __init__(self, lease: float, active: Callable[[], Mapping[str, int]]) -> None:
        self._lease = lease
        self._active = active
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="livejobs-guard", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stopped.wait(self._lease / LOOKS_A_LEASE):
            try:
                self._look()
            except DatabaseUnavailable as error:
                _log.debug("the guard waits: %s", error)
            except Exception:
                _log.exception("the leases of the pool could not be looked after")

    def _look(self) -> None:
        alive = {job: claims_of(pid) for job, pid in self._active().items() if _is_running(pid)}
        jobs = list(alive)
        for start in range(0, len(jobs), BATCH):
            some = {job: alive[job] for job in jobs[start : start + BATCH]}
            # Its own process renews when a third of the lease is over, and here half of it is.
            rows = get_database().read(unrenewed(some, self._lease / 2))
            if rows:
                get_database().run(renew([row.worker for row in rows], self._lease))


def _is_running(pid: int) -> bool:
    """Whether a process is there, and neither stopped nor dead."""
    try:
        # The state follows the name, which is in brackets and may hold anything.
        state = (
            Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0]
        )
    except FileNotFoundError:
        return _exists(pid) if not Path("/proc/self/stat").exists() else False
    except OSError:
        return False
    return state not in ("T", "t", "Z", "X")


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True
