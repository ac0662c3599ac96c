"""Adds up at the parents what their children say, in the processes in which children end.

A parent is counted at once after a silence, and then four times a second at most, however many of
its children end. What a process that was killed did not add up, a keeper does.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from celery import Celery

from .children import COUNT_SECONDS, count, is_tallied
from .database import Database
from .errors import DatabaseUnavailable
from .messages import header_of, message_of, send
from .outgoing import note_sent
from .recording import send_new
from .statements import JobRow, Rows

_log = logging.getLogger("livejobs.children")

Tell = Callable[[JobRow], object]
"""Publishes a committed change."""


def count_children(
    database: Database, parent_id: str, app: Celery, tell: Tell, *, at_once: bool = False
) -> JobRow | None:
    """Add up what children say, tell of it, and send the parent on where it waited for the last.

    Children that have got places of those that are over are sent, too.

    Args:
        app: The app that sends.
        at_once: Also if its counts have just been changed.

    Returns:
        The parent's new row; None: nothing was to be added, or it was not time yet.

    Raises:
        DatabaseUnavailable: The database is away.
    """
    row, resumed, placed = database.run(count(parent_id, at_once=at_once))
    if row is not None:
        tell(row)
        if resumed:
            send_new(app, row)
    send_placed(app, placed)
    return row


def send_placed(app: Celery, rows: Rows) -> None:
    """Send children that have got places; a keeper sends those that the broker does not take."""
    for row in rows:
        if not send(app, message_of(row), header_of(row)):
            return
        note_sent(row.id, row.attempt)


class Counting:
    """Counts the parents of children that have ended in this process, in a thread.

    Args:
        database: Where the tallies are.
        tell: Publishes a committed change.
    """

    def __init__(self, database: Database, tell: Tell) -> None:
        self._database = database
        self._tell = tell
        self._parents: dict[str, Celery] = {}
        self._lock = threading.Lock()
        self._work = threading.Event()
        self._hurry = threading.Event()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def note(self, parent_id: str, app: Celery, *, at_once: bool = False) -> None:
        """A child of this parent has ended, or was made; returns at once.

        Args:
            app: The app that sends the parent on after its last child.
            at_once: Others may wait for its place: look now, however short the last time is ago.
        """
        with self._lock:
            self._parents[parent_id] = app
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="livejobs-counting", daemon=True
                )
                self._thread.start()
        self._work.set()
        if at_once:
            self._hurry.set()

    def stop(self) -> None:
        """End the thread, after what it is doing."""
        self._stopped.set()
        self._work.set()
        self._hurry.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _run(self) -> None:
        while True:
            self._work.wait()
            self._work.clear()
            self._hurry.clear()
            with self._lock:
                parents, self._parents = self._parents, {}
            for parent_id, app in parents.items():
                if not self._count(parent_id, app):
                    self.note(parent_id, app)
            self._hurry.wait(COUNT_SECONDS)
            if self._stopped.is_set():
                return

    def _count(self, parent_id: str, app: Celery) -> bool:
        """Count a parent; False: it is not time yet."""
        try:
            # A look waits for nobody, and most often others have counted already.
            if not self._database.read(is_tallied(parent_id)):
                return True
            return count_children(self._database, parent_id, app, self._tell) is not None
        except DatabaseUnavailable as error:
            _log.debug("children of %s are counted later: %s", parent_id, error)
        except Exception:
            _log.exception("children of %s could not be counted", parent_id)
        return True
