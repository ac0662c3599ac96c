"""Calls that may hang do not hang their caller."""

from __future__ import annotations

import threading
from contextvars import ContextVar

import pytest

from livejobs import patience
from livejobs.patience import MAX_THREADS, call_soon, call_within
from tests.support.waiting import wait_until


def test_result_and_error_come_back() -> None:
    assert call_within(5, lambda: 42) == 42
    with pytest.raises(ZeroDivisionError):
        call_within(5, lambda: 1 / 0)


def test_caller_does_not_wait_longer_and_the_call_goes_on() -> None:
    release, done = threading.Event(), threading.Event()

    def hang() -> None:
        release.wait(10)
        done.set()

    # Long enough for the call to begin on a busy machine: one that has not is given up.
    with pytest.raises(TimeoutError):
        call_within(1.0, hang)
    release.set()
    assert done.wait(10)


def test_calls_that_hang_do_not_stop_others_until_all_threads_do() -> None:
    release = threading.Event()
    for _ in range(MAX_THREADS - 1):
        with pytest.raises(TimeoutError):
            call_within(0.01, lambda: release.wait(10))
    assert call_within(5, lambda: "still here") == "still here"
    release.set()


def test_context_of_the_caller_is_there() -> None:
    variable: ContextVar[str] = ContextVar("variable")
    variable.set("mine")
    assert call_within(5, variable.get) == "mine"


def test_call_soon_does_not_wait() -> None:
    called = threading.Event()
    call_soon(called.set)
    assert called.wait(10)


def test_call_that_comes_right_after_one_that_hangs_gets_a_thread_of_its_own() -> None:
    for i in range(200):
        kind, release = f"pair {i % 4}", threading.Event()
        call_within(5, lambda: None, kind)  # leaves an idle thread
        call_soon(lambda release=release: release.wait(10), kind)  # type: ignore[misc]
        assert call_within(5, lambda: "at once", kind) == "at once"
        release.set()


def test_calls_that_hang_hold_up_no_other_kind() -> None:
    release = threading.Event()
    for _ in range(MAX_THREADS + 1):
        call_soon(lambda: release.wait(10), "one kind")
    assert call_within(5, lambda: "sent", "another kind") == "sent"
    release.set()


def test_idle_threads_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "IDLE_SECONDS", 0.01)

    def name() -> str:
        return threading.current_thread().name

    used = call_within(5, name, "short-lived")
    wait_until(
        lambda: used not in [thread.name for thread in threading.enumerate()],
        description="the thread ends",
    )
    assert call_within(5, name, "short-lived") == used
