"""Starts workers and servers as forks of a process that has loaded all they need.

A Python that begins anew takes more than a second of a processor to import what a worker or a
server needs, and the tests begin hundreds; a fork of a process that has it takes a third of that.
All else is as in a process begun by its command line: a group, an environment and a log of its own,
and the same `__main__`. The process that forks is ``python -m`` this module.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Final, Protocol

from .asking import Asked

ROOT: Final = Path(__file__).resolve().parents[2]
PROGRAMS: Final = ("celery", "uvicorn", "livejobs_server.cli")
"""Modules that are begun so, where the command is ``python -m`` one of them."""
WORKER: Final = (
    *("celery.bin.celery", "celery.apps.worker", "celery.worker.worker", "celery.worker.strategy"),
    *("celery.worker.consumer.connection", "celery.worker.autoscale", "celery.app.log"),
    *("celery.worker.components", "celery.worker.consumer.delayed_delivery", "celery.app.control"),
    *("celery.concurrency.solo", "celery.concurrency.prefork"),
    *("celery.events.dispatcher", "celery.events.receiver", "celery.backends.redis"),
    *("kombu.transport.redis", "kombu.pidbox", "kombu.matcher", "encodings.idna"),
    *("livejobs.bootstep", "livejobs.execution", "livejobs.spawning", "livejobs.task"),
)
"""What a worker imports when it begins, or meets its first task, and not before."""
BUILT_IN: Final = (
    *("bs4", "docx", "httpcore", "jinja2.sandbox", "pypdf", "semantic_text_splitter"),
    *("standardwebhooks", "stripe"),
)
"""What the tasks of the built-in worker need. Those are not imported: every app would have them."""
SERVER: Final = (
    *("livejobs_server.app", "livejobs_server.cli", "livejobs_server.push.takeover"),
    *("sqlalchemy.dialects.postgresql.asyncpg", "sqlalchemy.dialects.postgresql.psycopg"),
    *("sqlalchemy.dialects.sqlite.aiosqlite", "asyncpg", "psycopg", "aiosqlite", "uvloop"),
    *("uvicorn.main", "uvicorn.lifespan.on", "uvicorn.loops.uvloop"),
)
"""What a server imports."""


class Process(Protocol):
    """What the tests use of a `subprocess.Popen`."""

    pid: int

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it ends; its exit code."""

    def send_signal(self, sig: int) -> None:
        """Send it a signal, unless it has ended."""

    def terminate(self) -> None:
        """Ask it to end."""

    def kill(self) -> None:
        """End it at once."""


class Launched:
    """A process that the launcher has started; as a `subprocess.Popen`.

    Attributes:
        pid: Its number, which is also that of its group.
    """

    def __init__(self, launcher: Launcher, command: list[str], pid: int) -> None:
        self.pid = pid
        self._launcher = launcher
        self._command = command
        self._code: int | None = None
        self._descriptor = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it ends; its exit code."""
        code = self._ended(timeout)
        if code is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(self._command, timeout)
        return code

    def send_signal(self, sig: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, sig)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def _ended(self, seconds: float | None) -> int | None:
        if self._code is None:
            poller = select.poll()
            poller.register(self._descriptor, select.POLLIN)
            if poller.poll(None if seconds is None else seconds * 1000):
                self._code = int(self._launcher.ask({"reap": self.pid}))
                os.close(self._descriptor)
        return self._code


class Launcher(Asked):
    """The process that starts others."""

    def __init__(self) -> None:
        super().__init__(__spec__.name, cwd=ROOT)

    def start(self, command: list[str], log: Path, env: dict[str, str]) -> Launched:
        """Start a process; `command` is ``python -m`` one of the programs, with its arguments."""
        folder = os.getcwd()
        question = {
            "command": command[2:],
            "log": str(log.absolute()),
            "env": env,
            "folder": folder,
        }
        return Launched(self, command, int(self.ask(question)))


def starts(command: list[str]) -> bool:
    """Whether this command is begun by a fork in this process: coverage measures others only."""
    return (
        command[:2] == [sys.executable, "-m"]
        and command[2] in PROGRAMS
        and "PYTEST_VERSION" in os.environ
        and "COVERAGE_PROCESS_CONFIG" not in os.environ
    )


@functools.cache
def launcher() -> Launcher:
    """The launcher of this process, begun with its first use."""
    found = Launcher()
    atexit.register(found.close)
    return found


# -- in the process --------------------------------------------------------------------------------


def load() -> None:
    """Import all that the programs import sooner or later."""
    for name in (*WORKER, *BUILT_IN, *SERVER):
        importlib.import_module(name)
    gc.freeze()  # a fork that looked for garbage among all this would copy it


def _fork(question: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(question["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for descriptor, file in enumerate((nothing, log, log)):
        os.dup2(file, descriptor)
    os.close(nothing)
    os.close(log)
    os.chdir(question["folder"])
    os.environ.clear()
    os.environ.update(question["env"])
    own = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [question["folder"], *own, *sys.path[1:]]
    return 0


def main() -> None:
    """Start what is asked for, until nobody asks any more; a fork leaves with its program."""
    load()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # nothing else is to be among the answers
    for line in sys.stdin:
        question = json.loads(line)
        if "reap" in question:
            _, status = os.waitpid(question["reap"], 0)
            answer = os.waitstatus_to_exitcode(status)
        else:
            answer = _fork(question)
            if answer == 0:
                answers.close()
                name, *arguments = question["command"]
                sys.argv = [name, *arguments]
                runpy.run_module(name, run_name="__main__", alter_sys=True)
                return
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
