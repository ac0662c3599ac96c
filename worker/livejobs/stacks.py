"""Where the code of another process stands.

A process of the pool is asked by a signal, which Python's faulthandler answers even where the code
holds the interpreter's lock, into a file of its own that the main process reads.
"""

from __future__ import annotations

import contextlib
import faulthandler
import linecache
import logging
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import IO

ANSWER_SECONDS = 1.0
SETTLED_SECONDS = 0.05
"""An answer that has not grown for so long is complete."""
_LAST_FREE = 7
"""Real-time signals from the first one on that C libraries and tools like to take."""
_OURS = ("reporter.py", "leases.py", "patience.py")
"""Files of threads that are not the task's."""

_PREFIX = "livejobs-stacks-"

_log = logging.getLogger("livejobs.worker")

_FRAME = re.compile(
    r'^  File "(?P<file>.*)", line (?P<line>\d+) in (?P<function>.*)$', re.MULTILINE
)


class _Place:
    def __init__(self) -> None:
        self.folder: Path | None = None
        self.lock: int | None = None
        self.answer: IO[str] | None = None


_place = _Place()


def _signal() -> int | None:
    """A signal that nobody else uses; None: this system has none to spare."""
    first = getattr(signal, "SIGRTMIN", None)
    return None if first is None else int(first) + _LAST_FREE


def open_folder() -> None:
    """In the main process, before it forks: make the folder for answers.

    It is locked as long as the worker lives, so that those of workers that were killed are told
    from it, and removed here.
    """
    if _place.folder is not None or _signal() is None:
        return
    _remove_left()
    new = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}"))
    _place.lock = _locked(new)
    # Another worker that begins now finds it only once it is locked.
    _place.folder = new.rename(new.with_name(new.name.removeprefix(".")))


def close_folder() -> None:
    """In the main process, at its end: remove the folder. A pool may have no other processes."""
    number = _signal()
    if _place.answer is not None and number is not None:
        faulthandler.unregister(number)
        _place.answer.close()
        _place.answer = None
    if _place.folder is not None:
        shutil.rmtree(_place.folder, ignore_errors=True)
        _place.folder = None
    if _place.lock is not None:
        os.close(_place.lock)
        _place.lock = None


def _remove_left() -> None:
    """Remove the folders of workers that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        lock = _locked(folder)
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _locked(folder: Path) -> int | None:
    """What keeps a folder locked; None: its worker lives, or it is another user's."""
    # Only Unix has it, as it has the signal.
    import fcntl

    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def be_ready() -> None:
    """In a process of the pool: answer the signal from now on."""
    number = _signal()
    if _place.lock is not None:
        # It is the main process's: a process that outlives it has nobody to answer.
        os.close(_place.lock)
        _place.lock = None
    if _place.folder is None or number is None:
        return
    path = _place.folder / str(os.getpid())
    try:
        _place.answer = path.with_suffix(".new").open("a")
        faulthandler.register(number, _place.answer, all_threads=True)
        # Who finds the file may send the signal, which would kill a process that is not ready.
        path.with_suffix(".new").rename(path)
    except OSError:  # the worker is ending, or there is no room for the file
        _log.debug("the stacks of this process cannot be shown", exc_info=True)


def of_process(pid: int) -> str | None:
    """The stack of the main thread of a process of the pool; None: it did not answer."""
    number = _signal()
    if _place.folder is None or number is None:
        return None
    path = _place.folder / str(pid)
    try:
        os.truncate(path, 0)
        os.kill(pid, number)
        return _readable(_settled(path))
    except OSError:  # the process, or its file, is not there
        return None


def of_thread(thread: int) -> str | None:
    """The stack of a thread of this process; None: there is no such thread."""
    # Frames of other threads are what this function is for.
    frame = sys._current_frames().get(thread)  # noqa: SLF001
    return None if frame is None else "".join(traceback.format_stack(frame))


def _settled(path: Path) -> str:
    """What was written to a file, once it has not grown for a moment."""
    deadline, before = time.monotonic() + ANSWER_SECONDS, ""
    while time.monotonic() < deadline:
        time.sleep(SETTLED_SECONDS)
        text = path.read_text("utf-8", "replace")
        if text and text == before:
            break
        before = text
    return before


def _readable(dump: str) -> str | None:
    """What faulthandler wrote, as Python writes stacks: the task's thread, the newest call last."""
    threads = [list(_FRAME.finditer(thread)) for thread in dump.split("\n\n")]
    mine = [thread for thread in threads if thread and not _is_ours(thread)]
    if not mine:
        return None
    # The main thread was there first; faulthandler begins with the newest.
    lines = []
    for frame in reversed(mine[-1]):
        lines.append(f'  File "{frame["file"]}", line {frame["line"]}, in {frame["function"]}')
        with contextlib.suppress(OSError):
            source = linecache.getline(frame["file"], int(frame["line"])).strip()
            lines.extend([f"    {source}"] if source else [])
    linecache.checkcache()
    return "\n".join(lines) + "\n"


def _is_ours(thread: list[re.Match[str]]) -> bool:
    folder = os.path.dirname(__file__)
    return any(frame["file"] in [os.path.join(folder, name) for name in _OURS] for frame in thread)
