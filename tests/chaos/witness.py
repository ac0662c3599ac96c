"""What becomes of each execution, written where no fault reaches: the suite's own record."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime

import psycopg

URL_VARIABLE = "CHAOS_WITNESS_URL"

_TABLE = """
CREATE TABLE executions (
    id bigserial PRIMARY KEY,
    job_id text NOT NULL,
    attempt integer NOT NULL,
    task text NOT NULL,
    pid integer NOT NULL,
    began timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended timestamptz,
    how text
)
"""


@dataclass(frozen=True)
class Executed:
    """One execution of a task's code.

    Attributes:
        id: Its number.
        ended: None: its process was killed.
        how: returned, or the name of the exception.
    """

    id: int
    job_id: str
    attempt: int
    task: str
    began: datetime
    ended: datetime | None
    how: str | None


class Witness:
    """Writes and reads the record; one for each process and thread.

    Args:
        url: A PostgreSQL of its own.
    """

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)

    def prepare(self) -> None:
        """Make the table."""
        self._connection.execute(_TABLE)

    def begins(self, job_id: str, attempt: int, task: str) -> int:
        """The code of a task begins; returns the execution's number."""
        row = self._connection.execute(
            "INSERT INTO executions (job_id, attempt, task, pid) VALUES (%s, %s, %s, %s)"
            " RETURNING id",
            (job_id, attempt, task, os.getpid()),
        ).fetchone()
        assert row is not None
        return int(row[0])

    def ends(self, number: int, how: str) -> None:
        """It has ended."""
        self._connection.execute(
            "UPDATE executions SET ended = clock_timestamp(), how = %s WHERE id = %s",
            (how, number),
        )

    def has_begun(self, job_id: str, attempt: int) -> bool:
        """Whether the code of this attempt has begun."""
        query = "SELECT 1 FROM executions WHERE job_id = %s AND attempt = %s"
        return self._connection.execute(query, (job_id, attempt)).fetchone() is not None

    def all(self) -> list[Executed]:
        """All executions, in the order of their beginnings."""
        rows = self._connection.execute(
            "SELECT id, job_id, attempt, task, began, ended, how FROM executions ORDER BY id"
        )
        return [Executed(*row) for row in rows]

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class _Own:
    """The witness of this process, which may be a fork of another."""

    def __init__(self) -> None:
        self.pid = 0
        self.witness: Witness | None = None


_own = _Own()


def witness() -> Witness:
    """The witness of this process."""
    if _own.witness is None or _own.pid != os.getpid():
        _own.pid, _own.witness = os.getpid(), Witness(os.environ[URL_VARIABLE])
    return _own.witness
