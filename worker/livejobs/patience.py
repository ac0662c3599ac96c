"""Calls that may hang, made so that the caller does not.

A broker or database behind a broken network can hold a call for minutes, and not every driver has
a time-out for it. Here daemon threads make such calls; the caller waits as long as it likes. Each
kind of call has threads of its own, so that a database that hangs does not hold up the broker.
"""

from __future__ import annotations

import contextvars
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")

MAX_THREADS = 64
"""Calls of one kind that may hang at a time."""
IDLE_SECONDS = 30.0
"""A thread that has had nothing to do for so long ends."""

_Call = tuple["Future[Any]", Callable[[], Any], contextvars.Context]


class _Threads:
    """The threads of one kind of call."""

    def __init__(self, kind: str) -> None:
        self._name = f"livejobs-call-{kind}" if kind else "livejobs-call"
        self._changed = threading.Condition(threading.Lock())
        self._calls: deque[_Call] = deque()
        self._threads = 0
        self._idle = 0

    def submit(self, function: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()
        call = (future, function, contextvars.copy_context())
        with self._changed:
            self._calls.append(call)
            # Each waiting call has a thread that is idle or begins, as long as there may be more.
            if len(self._calls) > self._idle and self._threads < MAX_THREADS:
                self._begin(call)
            self._changed.notify()
        return future

    def _begin(self, call: _Call) -> None:
        self._threads += 1
        try:
            threading.Thread(target=self._work, name=self._name, daemon=True).start()
        except RuntimeError:  # the system has no more threads
            self._threads -= 1
            if not self._threads:
                self._calls.remove(call)
                raise

    def _work(self) -> None:
        while (call := self._next()) is not None:
            future, function, context = call
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(context.run(function))
            except BaseException as error:
                future.set_exception(error)
            del call, future, function, context

    def _next(self) -> _Call | None:
        """The next call; None: none came for a while, and the thread is to end."""
        with self._changed:
            self._idle += 1
            self._changed.wait_for(lambda: self._calls, IDLE_SECONDS)
            self._idle -= 1
            if self._calls:
                return self._calls.popleft()
            self._threads -= 1
            return None


class _Kinds:
    def __init__(self) -> None:
        self.after_fork()

    def after_fork(self) -> None:
        # The threads stay with the parent.
        self._lock = threading.Lock()
        self._threads: dict[str, _Threads] = {}

    def of(self, kind: str) -> _Threads:
        with self._lock:
            threads = self._threads.get(kind)
            if threads is None:
                threads = self._threads[kind] = _Threads(kind)
            return threads


_kinds = _Kinds()
os.register_at_fork(after_in_child=_kinds.after_fork)


def call_soon(function: Callable[[], object], kind: str = "") -> None:
    """Have `function` called; its result and its errors are nobody's.

    Args:
        function: What to call.
        kind: What it calls, such as "database" or "broker"; each kind has threads of its own.
    """
    _kinds.of(kind).submit(function)


def call_within(seconds: float, function: Callable[[], T], kind: str = "") -> T:
    """The result of `function`, if it comes within so many seconds.

    Args:
        seconds: How long to wait.
        function: What to call.
        kind: As for `call_soon`.

    Raises:
        TimeoutError: It did not; the call goes on by itself, unless it had not begun.
    """
    future = _kinds.of(kind).submit(function)
    try:
        return future.result(seconds)
    except TimeoutError:
        future.cancel()
        raise
