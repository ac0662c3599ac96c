"""Named points of a process at which a test lets it die, or loses the answer to a COMMIT.

The points lie between any two things that a process does to the world around it: after each
statement, before and after each COMMIT, before and after each message to the broker, each
publication in Redis, each call over HTTP and each line of a talk with a mail server. They are found
where SQLAlchemy, kombu, redis, requests, httpcore and smtplib are called, so that a new statement
of livejobs has its point without anybody's remembering it.
"""

from __future__ import annotations

import os
import re
import signal
import smtplib
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import httpcore
from kombu.messaging import Producer
from sqlalchemy import Engine, event
from sqlalchemy.engine.default import DefaultDialect

from livejobs.intake import PostgresRows, SqliteRows
from livejobs.live import AsyncLive, Live

OWN_THREADS: Final = (
    *("MainThread", "asyncio", "livejobs-call"),
    *("livejobs-build", "livejobs-intake", "livejobs-carrier"),
)
"""Where the thing that is tested happens, and not what goes on beside it at its own times."""
_WRITING = re.compile(r"(?<!FOR )(?<!KEY )\b(?:INSERT|UPDATE|DELETE)\b")
_READING = re.compile(r"SELECT\b")
_TABLE = re.compile(r"livejobs_\w+")


class FailPoints:
    """Notes the points of this process, and stops it at one of them.

    Args:
        path: Where the names of the points reached are written, a line each.
        begin: The point from which they count; earlier ones are not noted.
        stop: Die at this one, as by kill -9.
        lose: At this COMMIT the connection breaks before the answer comes.
    """

    def __init__(
        self, path: Path, begin: str = "", stop: str | None = None, lose: str | None = None
    ) -> None:
        self._begin, self._stop, self._lose = begin, stop, lose
        self._log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._seen: Counter[str] = Counter()

    def arm(self) -> None:
        """From now on, for the rest of this process."""
        event.listen(Engine, "after_cursor_execute", self._executed)
        self._surround(Producer, "publish", "broker")
        for live in (Live, AsyncLive):
            self._surround(live, "publish", "Redis")
        requests = sys.modules.get("requests")  # importing it takes long, and few parts call it
        if requests is not None:
            self._surround(requests.Session, "send", "HTTP")
        self._surround(httpcore.ConnectionPool, "handle_request", "POST")
        for said in ("send", "getreply"):
            self._surround(smtplib.SMTP, said, f"SMTP {said}")
        do_commit: Callable[[Any, Any], None] = DefaultDialect.do_commit

        def commit(dialect: Any, connection: Any) -> None:
            name = self.reach("COMMIT")
            do_commit(dialect, connection)
            if name is not None and name == self._lose:
                self._break(connection)
                raise dialect.loaded_dbapi.OperationalError("the server's answer was lost")
            self.reach("after COMMIT")

        DefaultDialect.do_commit = commit  # type: ignore[method-assign]
        self._surround_rows(SqliteRows)
        self._surround_rows(PostgresRows)

    def _surround_rows(self, rows: Any) -> None:
        """Rows of new jobs are written without SQLAlchemy; on PostgreSQL, committed as well."""
        insert, commit = rows.insert, rows.commit

        def told_insert(its: Any, *args: Any) -> Any:
            if rows is SqliteRows:
                made = insert(its, *args)
                self.reach("INSERT livejobs_jobs")
                return made
            self.reach("INSERT livejobs_jobs")
            return committing(its, lambda: insert(its, *args))

        def committing(its: Any, act: Callable[[], Any]) -> Any:
            name = self.reach("COMMIT")
            answer = act()
            if name is not None and name == self._lose:
                its.close()
                raise OSError("the server's answer was lost")
            self.reach("after COMMIT")
            return answer

        rows.insert = told_insert
        if rows is SqliteRows:
            name = "commit"
            setattr(rows, name, lambda its: committing(its, lambda: commit(its)))

    def reach(self, what: str) -> str | None:
        """Note a point, and die if it is the one; its name, unless it does not count."""
        if not threading.current_thread().name.startswith(OWN_THREADS):
            return None
        if self._begin and what != self._begin:
            return None
        self._begin = ""
        self._seen[what] += 1
        name = f"{what} {self._seen[what]}"
        os.write(self._log, f"{name}\n".encode())
        if name == self._stop:
            os.kill(os.getpid(), signal.SIGKILL)
        return name

    def _executed(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        verb = _WRITING.search(statement) or _READING.search(statement)
        table = _TABLE.search(statement)
        if verb is not None and table is not None:
            self.reach(f"{verb[0]} {table[0]}")

    def _surround(self, owner: Any, name: str, what: str) -> None:
        function: Callable[..., Any] = getattr(owner, name)

        def surrounded(*args: Any, **kwargs: Any) -> Any:
            self.reach(what)
            answer = function(*args, **kwargs)
            self.reach(f"after {what}")
            return answer

        setattr(owner, name, surrounded)

    def _break(self, connection: Any) -> None:
        raw = connection.driver_connection
        getattr(raw, "terminate", raw.close)()
