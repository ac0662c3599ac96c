"""Ends the children of `livejobs up` when it was killed and could not do so itself.

A process of its own, run by path, with nothing but the standard library: it reads a pipe whose
writing end `up` holds. Each child writes its process id there before it becomes what it shall be,
so there is no moment at which a child runs that the guardian does not know. The end of the pipe
without a farewell means that `up` is gone, however it went: kill -9 closes pipes too. This works
on every Unix, and reaches grandchildren, which the kernel's own parent-death signal does not.

On the pipe, one a line: ``<pid>`` a child begins, and leads a process group; ``-<pid>`` it has
ended; ``done`` all have.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable

GRACE_SECONDS = 10.0
"""Time that children have to end by themselves before they are killed."""


def children_left(lines: Iterable[str]) -> set[int]:
    """The children still running when the pipe closed; none after a farewell."""
    running: set[int] = set()
    for line in lines:
        word = line.strip()
        if word == "done":
            return set()
        if word.startswith("-"):
            running.discard(int(word[1:]))
        elif word:
            running.add(int(word))
    return running


def end(children: set[int], grace: float = GRACE_SECONDS) -> None:
    """Ask each child to end, wait for them, and kill the process groups of those that stay."""
    for child in children:
        with contextlib.suppress(OSError):
            os.kill(child, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while any(map(_is_running, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for child in children:
        with contextlib.suppress(OSError):
            os.killpg(child, signal.SIGKILL)


def _is_running(child: int) -> bool:
    try:
        os.kill(child, 0)
    except ProcessLookupError:
        return False
    return True


def main() -> None:
    """Guard until the pipe on standard input closes."""
    # A terminal's Ctrl-C is for `up`; the guardian outlives it.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    end(children_left(sys.stdin))


if __name__ == "__main__":
    main()
