"""A worker's claim of a job, held on to through outages of the database."""

from __future__ import annotations

import logging
import os
import socket
import time
import uuid
from collections.abc import Callable
from typing import TypeVar

from . import reads
from .database import Database
from .errors import DatabaseUnavailable
from .statements import JobRow, Program

T = TypeVar("T")

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 5.0

_log = logging.getLogger("livejobs.task")


def new_claim() -> str:
    """A name that no other claim has: host, process, and something unique."""
    return claims_of(os.getpid()) + uuid.uuid4().hex


def claims_of(pid: int) -> str:
    """What the names of all claims of a process of this host begin with."""
    return f"{socket.gethostname()}:{pid}:"


def insist(
    database: Database,
    program: Callable[[], Program],
    job_id: str,
    worker: str,
    most: float | None = None,
) -> JobRow | None:
    """Run a transition of a running job, through outages of the database.

    After a broken connection nobody knows whether the commit took place: a row that carries this
    claim's own name was changed here.

    Args:
        program: Makes the transition, anew for each try.
        worker: The claim's name.
        most: Seconds after which it gives up; None: never.

    Raises:
        DatabaseUnavailable: It gave up.
    """

    def run(doubtful: bool) -> JobRow | None:
        row = database.run(program())
        if row is None and doubtful:
            row = own_row(database.read(reads.job(job_id)), worker)
        return row

    return persist(run, job_id, most)


def persist(act: Callable[[bool], T], job_id: str, most: float | None = None) -> T:
    """Do something for a running job, through outages of the database.

    Args:
        act: Called until the database answers; told whether an earlier call may be committed.
        most: Seconds after which it gives up; None: never.

    Raises:
        DatabaseUnavailable: It gave up.
    """
    begun, pause, doubtful = time.monotonic(), FIRST_PAUSE_SECONDS, False
    while True:
        try:
            return act(doubtful)
        except DatabaseUnavailable as error:
            doubtful = True
            if most is not None and time.monotonic() - begun > most:
                raise
            _log.warning("job %s waits for the database: %s", job_id, error)
        time.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


def own_row(row: JobRow | None, worker: str) -> JobRow | None:
    """The row, if this claim is the last that had it."""
    return row if row is not None and row.worker == worker else None
