"""Forks of a process that has a SQLite database open."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from typing import Final, Protocol

FORK_PATIENCE_SECONDS = 5.0
"""How long a fork waits for the transactions of other threads."""

_log = logging.getLogger("livejobs.database")


class Closable(Protocol):
    """A database whose connections can be closed; it opens new ones when it needs them."""

    def dispose(self) -> None:
        """Close all connections."""


class ForkGate:
    """Keeps forks and SQLite transactions apart.

    SQLite keeps its locks in a table of the process. A child that is forked while a connection is
    open inherits the table but not the locks, and then finds the database locked for ever. So a
    fork waits until no transaction is open, and closes the connections.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._open: dict[int, int] = {}  # transactions by thread
        self._forking: set[int] = set()  # threads
        self._databases: weakref.WeakSet[Closable] = weakref.WeakSet()

    def add(self, database: Closable) -> None:
        """Close the connections of this database before each fork."""
        with self._changed:
            self._databases.add(database)

    def enter(self) -> int:
        """A transaction begins; returns what `leave` needs. A thread inside one never waits."""
        thread = threading.get_ident()
        with self._changed:
            while self._forking and thread not in self._open and thread not in self._forking:
                self._changed.wait()
            self._open[thread] = self._open.get(thread, 0) + 1
        return thread

    def leave(self, thread: int) -> None:
        """The transaction that `thread` entered has ended."""
        with self._changed:
            left = self._open.get(thread, 1) - 1
            if left:
                self._open[thread] = left
            else:
                self._open.pop(thread, None)
            if self._forking:
                self._changed.notify_all()

    def before_fork(self) -> None:
        """Wait until no other thread is in a transaction, and close the connections."""
        with self._changed:
            self._forking.add(threading.get_ident())
            # What forking threads have open themselves cannot end before their forks.
            alone = self._changed.wait_for(
                lambda: self._open.keys() <= self._forking, FORK_PATIENCE_SECONDS
            )
            databases = list(self._databases)
        if not alone:
            _log.warning(
                "a process is forked during a long transaction: it may find the database locked"
            )
        for database in databases:
            database.dispose()

    def after_fork_in_parent(self) -> None:
        """Let the threads go on that wait to begin."""
        with self._changed:
            self._forking.discard(threading.get_ident())
            self._changed.notify_all()

    def after_fork_in_child(self) -> None:
        """Forget the threads of the parent: only the one that forked is here."""
        thread = threading.get_ident()
        self._changed = threading.Condition(threading.Lock())
        self._open = {thread: self._open[thread]} if thread in self._open else {}
        self._forking = set()


fork_gate: Final = ForkGate()
"""The gate of this process."""

os.register_at_fork(
    before=fork_gate.before_fork,
    after_in_parent=fork_gate.after_fork_in_parent,
    after_in_child=fork_gate.after_fork_in_child,
)
