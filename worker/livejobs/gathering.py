"""What comes while others of its kind are under way goes on together with all that came meanwhile.

One thread does all work of a kind, as much at a time as has come. So whoever comes alone waits for
nobody, and a crowd shares what is costly: a transaction, a round trip. Where the thread hangs, it
is left behind, and another one takes its place.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)

IDLE_SECONDS = 30.0
"""A thread that has had nothing to do for so long ends."""
MAX_LEFT_BEHIND = 64
"""Threads of one kind that hang; with more of them nobody takes their place."""
EXIT_SECONDS = 1.0
"""How long a process that ends waits for what lingers."""

_log = logging.getLogger("livejobs.dispatch")


class Hands(Protocol[T_contra]):
    """Does the work of one thread, with what it keeps open for it."""

    def do(self, items: Sequence[T_contra]) -> None:
        """Work on items that have come together."""

    def close(self) -> None:
        """Close what is open; the thread ends."""


class Gatherer(Generic[T]):
    """Hands what has come to a thread, all of it together.

    Args:
        name: The thread's.
        make: Makes the hands of a new thread, in that thread.
        most: Items at a time.
        linger: Seconds to wait for more, once something has come.

    Attributes:
        rounds: How often it has done some: it grows as long as things move.
    """

    def __init__(
        self, name: str, make: Callable[[], Hands[T]], most: int, linger: float = 0.0
    ) -> None:
        self._name = name
        self._make = make
        self._most = most
        self._linger = linger
        self._hands: list[Hands[T]] = []
        self.after_fork()
        _all.add(self)

    def after_fork(self) -> None:
        """Begin anew in a child: threads stay with the parent, and what they work on too."""
        if self._hands:
            # What they have open there must not be closed here, so it is kept, unused.
            _left_to_parent.append(self._hands)
        self._hands = []
        self._lock = threading.Lock()
        self._items: SimpleQueue[T | threading.Event] = SimpleQueue()
        self._hurry = threading.Event()
        self._thread: threading.Thread | None = None
        self._busy_since: float | None = None
        self._left_behind = 0
        self.rounds = 0

    @property
    def is_mine(self) -> bool:
        """Whether the caller is the thread itself, which would wait for ever for its own work."""
        return threading.current_thread() is self._thread

    def put(self, item: T) -> None:
        """Have `item` worked on."""
        self._items.put(item)
        self._see_to_thread()

    def look(self, seconds: float) -> None:
        """Let another thread take over, if this one has been at the same items for so long."""
        with self._lock:
            since = self._busy_since
            if since is None or time.monotonic() - since < seconds:
                return
            if self._left_behind < MAX_LEFT_BEHIND:
                self._left_behind += 1
                self._begin()

    def flush(self, seconds: float) -> bool:
        """Have all done that has come, without lingering; False: it took longer than `seconds`."""
        if self._thread is None and self._items.empty():
            return True
        done = threading.Event()
        self._items.put(done)
        self._hurry.set()
        self._see_to_thread()
        return done.wait(seconds)

    def _see_to_thread(self) -> None:
        # A thread that ends says so first, and looks for items then: one of both sees the other.
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._begin()

    def _begin(self) -> None:
        self._busy_since = None
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # the system has no more threads; the next item tries again
            self._thread = None

    def _run(self) -> None:
        me, hands = threading.current_thread(), self._make()
        self._hands.append(hands)
        try:
            while (found := self._next(me)) is not None:
                items = [item for item in found if not isinstance(item, threading.Event)]
                self._busy_since = time.monotonic()
                if items:
                    self._do(hands, items)
                if self._thread is not me:
                    return
                self._busy_since = None
                self.rounds += 1
                for item in found:
                    if isinstance(item, threading.Event):
                        item.set()
                del found, items
        finally:
            hands.close()
            with self._lock:
                self._hands.remove(hands)

    def _do(self, hands: Hands[T], items: list[T]) -> None:
        try:
            hands.do(items)
        except Exception:
            _log.exception("%s failed with %d items", self._name, len(items))

    def _next(self, me: threading.Thread) -> list[T | threading.Event] | None:
        """What has come; None: the thread is to end."""
        try:
            found = [self._items.get(timeout=IDLE_SECONDS)]
        except Empty:
            return self._end(me)
        if self._linger:
            self._hurry.wait(self._linger)
            self._hurry.clear()
        while len(found) < self._most:
            try:
                found.append(self._items.get_nowait())
            except Empty:
                break
        return found

    def _end(self, me: threading.Thread) -> list[T | threading.Event] | None:
        with self._lock:
            if self._thread is me:
                self._thread = None
        if self._thread is None and not self._items.empty():
            self._see_to_thread()
        return None


def flush_all(seconds: float) -> None:
    """Have all done that has come to any of them, for at most so long."""
    end = time.monotonic() + seconds
    for gatherer in list(_all):
        gatherer.flush(max(end - time.monotonic(), 0.0))


_all: weakref.WeakSet[Gatherer[Any]] = weakref.WeakSet()
_left_to_parent: list[object] = []


def _after_fork() -> None:
    for gatherer in list(_all):
        gatherer.after_fork()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(flush_all, EXIT_SECONDS)
