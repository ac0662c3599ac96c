"""Children that are forked while the parent writes can write themselves."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from livejobs import forks, transitions
from livejobs.database import Database, get_database, migrate
from livejobs.settings import configure, reset

CHILDREN = 20
CHILD_PATIENCE_SECONDS = 3.0


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Database]:
    """A database in a file, as the processes of a worker share it."""
    settings = configure(database_url=f"sqlite:///{tmp_path / 'jobs.db'}")
    migrate(settings)
    yield get_database(CHILD_PATIENCE_SECONDS)
    get_database(CHILD_PATIENCE_SECONDS).dispose()
    reset()


def fork(work: Callable[[], object]) -> int:
    """Run `work` in a child; returns the child's process id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    finally:
        os._exit(code)


def write(name: str) -> None:
    get_database(CHILD_PATIENCE_SECONDS).run(transitions.beat(name))


def codes(children: list[int]) -> list[int]:
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def test_children_forked_while_a_thread_writes_can_write(sqlite: Database) -> None:
    ended, written = threading.Event(), threading.Event()

    def keep_writing() -> None:
        while not ended.is_set():
            sqlite.run(transitions.beat("parent"))
            written.set()

    thread = threading.Thread(target=keep_writing)
    thread.start()
    assert written.wait(10)
    try:
        children = [fork(lambda i=i: write(f"child {i}")) for i in range(CHILDREN)]  # type: ignore[misc]
        ends = codes(children)
    finally:
        ended.set()
        thread.join()
    assert ends == [0] * CHILDREN
    write("parent, afterwards")


def test_inherited_database_works_in_the_child(sqlite: Database) -> None:
    sqlite.run(transitions.beat("parent"))
    assert codes([fork(lambda: sqlite.run(transitions.beat("child")))]) == [0]


def test_fork_inside_a_transaction_of_its_own_thread_does_not_wait(sqlite: Database) -> None:
    with sqlite.begin():
        began = time.monotonic()
        child = fork(lambda: None)
        assert time.monotonic() - began < forks.FORK_PATIENCE_SECONDS / 2
    assert codes([child]) == [0]
    write("parent, afterwards")


def test_fork_waits_no_longer_than_a_bound(
    sqlite: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(forks, "FORK_PATIENCE_SECONDS", 0.05)
    begun, release = threading.Event(), threading.Event()

    def hold() -> None:
        with sqlite.begin():
            begun.set()
            release.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    assert begun.wait(10)
    assert codes([fork(lambda: None)]) == [0]
    release.set()
    thread.join()
    assert "forked during a long transaction" in caplog.text
    write("parent, afterwards")
