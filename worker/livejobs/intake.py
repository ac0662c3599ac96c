"""Rows of new jobs, written by one thread in as few transactions as it takes.

This is the short way, for what goes well: statements that are made ready once, on a connection
that stays open. What does not go well is left to the callers, who go the long way, each by itself.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from sqlalchemy import Engine
from sqlalchemy.sql.base import Executable

from .arrivals import Arrival, Made, tell
from .database import Database, get_database, schemas
from .forks import fork_gate
from .gathering import Gatherer
from .messages import PATIENCE_SECONDS
from .new_jobs import (
    LAST_NUMBER,
    NEW_JOB_UNTOLD,
    NEW_JOBS,
    NEWER_EVENTS,
    NEWER_JOBS,
    NewJob,
    parameters,
)
from .outgoing import carrier

MOST = 500
"""Jobs in one transaction: on SQLite all other writers wait for it."""

_log = logging.getLogger("livejobs.dispatch")

CLOCK_SECONDS = 60.0
"""How long a reading of the database's clock is good."""


class Rows(Protocol):
    """A connection that stays open, and writes rows of new jobs."""

    def insert(self, news: Sequence[NewJob], deadline: float) -> list[Made]:
        """Insert these; those that exist already are not among what comes back.

        Args:
            deadline: Nothing is to be inserted after this moment of the monotonic clock.
        """

    def commit(self) -> None:
        """Commit what was inserted, where that has not been done with it."""

    def undo(self) -> bool:
        """Take back what was inserted; False: it has been committed already."""

    def close(self) -> None:
        """Close the connection."""


class _Prepared:
    """A statement as its driver takes it."""

    def __init__(self, statement: Executable, database: Database) -> None:
        compiled = statement.compile(  # type: ignore[attr-defined]
            dialect=database.engine.dialect,
            schema_translate_map=schemas(database.settings),
            render_schema_translate=True,
        )
        self.sql: str = compiled.string
        self._names: list[str] | None = compiled.positiontup
        self._constants: dict[str, Any] = {
            name: value for name, value in compiled.params.items() if value is not None
        }

    def bind(self, values: dict[str, Any]) -> Any:
        """The parameters, by place or by name as the driver wants them."""
        named = self._constants | values
        return named if self._names is None else [named[name] for name in self._names]


_as_text: Final = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), allow_nan=False
).encode


def _values(new: NewJob) -> dict[str, Any]:
    """The parameters of a new job, with its message as the text that the row has."""
    return parameters(new) | {"message": _as_text(new.message)}


def _own_connection(engine: Engine) -> Any:
    """A connection as the engine makes them, which its pool does not have any more."""
    pooled = engine.raw_connection()
    connection = pooled.driver_connection
    pooled.detach()
    return connection


class SqliteRows:
    """All other writers wait for a transaction; so there is one, and it is short."""

    def __init__(self, database: Database) -> None:
        self._connection: sqlite3.Connection = _own_connection(database.engine)
        self._last, self._job, self._events, self._made = (
            _Prepared(statement, database)
            for statement in (LAST_NUMBER, NEW_JOB_UNTOLD, NEWER_EVENTS, NEWER_JOBS)
        )

    def insert(self, news: Sequence[NewJob], deadline: float) -> list[Made]:
        connection, job = self._connection, self._job
        values = [job.bind(_values(new) | {"tags": json.dumps(new.tags)}) for new in news]
        connection.execute("BEGIN IMMEDIATE")
        (last,) = connection.execute(self._last.sql).fetchone()
        connection.executemany(job.sql, values)
        connection.execute(self._events.sql, self._events.bind({"last": last}))
        made = connection.execute(self._made.sql, self._made.bind({"last": last}))
        return [Made(row[0], _utc(row[1]), row[2] and _utc(row[2])) for row in made]

    def commit(self) -> None:
        self._connection.execute("COMMIT")

    def undo(self) -> bool:
        self._connection.execute("ROLLBACK")
        return True

    def close(self) -> None:
        self._connection.close()


def _utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


class PostgresRows:
    """One statement does it all, in one round trip.

    Where a unique key may have to wait for somebody else's transaction, it is not committed before
    it is known that somebody still waits.
    """

    def __init__(self, database: Database) -> None:
        self._connection = _own_connection(database.engine)
        self._connection.rollback()  # of the ping that the pool sends
        self._connection.autocommit = True
        self._statement = _Prepared(NEW_JOBS, database)
        self._is_open = False  # a transaction
        self._read_at = -CLOCK_SECONDS
        self._clock = datetime.min

    def insert(self, news: Sequence[NewJob], deadline: float) -> list[Made]:
        given = {
            "news": json.dumps([_values(new) for new in news]),
            "deadline": self._in_the_database(deadline),
        }
        self._is_open = any(new.idempotency_key is not None for new in news)
        if self._is_open:
            self._connection.execute("BEGIN")
        rows = self._connection.execute(self._statement.sql, self._statement.bind(given)).fetchall()
        if len(rows) < len(news):
            self._read_at = -CLOCK_SECONDS  # perhaps its clock was set
        return [Made(row[0], row[1].astimezone(UTC), row[2]) for row in rows]

    def _in_the_database(self, moment: float) -> datetime:
        """A moment of the monotonic clock by the database's clock, at the latest."""
        if time.monotonic() - self._read_at > CLOCK_SECONDS:
            (self._clock,) = self._connection.execute("SELECT clock_timestamp()").fetchone()
            self._read_at = time.monotonic()
        return self._clock + timedelta(seconds=moment - self._read_at)

    def commit(self) -> None:
        if self._is_open:
            self._connection.execute("COMMIT")

    def undo(self) -> bool:
        if self._is_open:
            self._connection.execute("ROLLBACK")
        return self._is_open

    def close(self) -> None:
        self._connection.close()


_KINDS: Final[dict[str, Callable[[Database], Rows]]] = {
    "sqlite": SqliteRows,
    "postgresql": PostgresRows,
}


class _Clerk:
    """The hands of the thread that writes the rows."""

    def __init__(self) -> None:
        self._database: Database | None = None
        self._rows: Rows | None = None
        fork_gate.add(self)

    def do(self, arrivals: Sequence[Arrival]) -> None:
        """Write the rows of these in one transaction, and send on what is to run at once."""
        thread = fork_gate.enter()
        try:
            self._insert([arrival for arrival in arrivals if not arrival.given_up])
        except Exception as error:  # whatever it is, the callers meet it again on the long way
            _log.debug("%d jobs go the long way: %s", len(arrivals), error)
            self.dispose()
            for arrival in arrivals:
                arrival.doubtful = True
        finally:
            fork_gate.leave(thread)
        here = []
        for arrival in arrivals:
            if arrival.made is not None and arrival.new.delay <= 0:
                carrier(arrival.app).put(arrival)
            else:
                here.append(arrival)
        tell(here)

    def _insert(self, arrivals: list[Arrival]) -> None:
        rows = self._open()
        while arrivals:
            soon = time.monotonic() + PATIENCE_SECONDS
            deadline = min(soon, *(arrival.deadline for arrival in arrivals))
            made = rows.insert([arrival.new for arrival in arrivals], deadline)
            left = [arrival for arrival in arrivals if not arrival.given_up]
            if len(left) < len(arrivals) and rows.undo():
                arrivals = left
                continue
            rows.commit()
            found = {row.id: row for row in made}
            for arrival in arrivals:
                arrival.made = found.get(arrival.new.id)
            return

    def _open(self) -> Rows:
        database = get_database(PATIENCE_SECONDS)
        if self._rows is None or database is not self._database:
            self.dispose()
            self._database = database
            self._rows = _KINDS[database.engine.dialect.name](database)
        return self._rows

    def dispose(self) -> None:
        """Close the connection; the next job opens a new one."""
        rows, self._rows = self._rows, None
        if rows is not None:
            try:
                rows.close()
            except Exception as error:  # it may be broken in any way
                _log.debug("a connection could not be closed: %s", error)

    def close(self) -> None:
        """Close the connection."""
        self.dispose()


intake: Final[Gatherer[Arrival]] = Gatherer("livejobs-intake", _Clerk, MOST)
"""Where new jobs are put to get their rows."""
