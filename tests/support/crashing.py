"""Runs parts of livejobs in processes that die at a named point: ``python -m`` this module.

One process has imported everything; for each run it forks a child, so that a run costs
milliseconds. It reads a line of JSON for each thing to do, and answers each with a line.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import signal
import sys
import time
import zlib
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from livejobs.settings import Settings

from .asking import Asked
from .fail_points import FailPoints
from .launching import WORKER
from .process_logs import note_log
from .worker import environment

RUN_SECONDS: Final = 40.0
"""A run that takes longer hangs."""
STRIPE: Final = ("stripe._stripe_client", "stripe._v1_services", "stripe.billing._meter_event")
"""What it imports with the first call."""
ALL_POINTS: Final = os.environ.get("LIVEJOBS_TESTS_POINTS") == "all"


def by_turns(points: list[str], database_url: str, *always: str) -> list[str]:
    """The points to be tried on this database: one half on SQLite, the other on PostgreSQL.

    With `LIVEJOBS_TESTS_POINTS=all`, all are tried on both.

    Args:
        always: These are tried on both in any case.
    """
    turn = 0 if database_url.startswith("sqlite") else 1
    return [
        point
        for point in points
        if ALL_POINTS or point in always or zlib.crc32(point.encode()) % 2 == turn
    ]


class Crasher:
    """Runs a part again and again, each time in a process of its own.

    Args:
        settings: Where the servers are.
        folder: For its log, and for the names of the points.
        app: The module of the tasks.
    """

    def __init__(self, settings: Settings, folder: Path, app: str) -> None:
        self._points = folder / "points"
        log = folder / "crashing.log"
        note_log(log)
        self._log = log.open("ab")
        env = {**os.environ, **environment(settings)}
        self._process = Asked(__spec__.name, app, log=self._log, env=env)

    def __enter__(self) -> Crasher:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._process.kill()
        self._log.close()

    def start(self, part: str, arguments: dict[str, Any], **points: str | None) -> int:
        """Begin a run; the arguments of `FailPoints` say what befalls it. Its process id."""
        self._points.unlink(missing_ok=True)
        run = {"part": part, "arguments": arguments, "path": str(self._points), **points}
        return int(self._process.ask(run))

    def end(self, pid: int) -> str:
        """How the run ended: ``done``, ``killed``, or what went wrong."""
        return str(self._process.ask({"wait": pid}))

    def kill(self, pid: int) -> None:
        """End a run from outside."""
        os.kill(pid, signal.SIGKILL)
        self.end(pid)

    def reached(self) -> list[str]:
        """The points that the last run has reached."""
        return self._points.read_text().splitlines() if self._points.exists() else []


# -- in the process --------------------------------------------------------------------------------


def apply(tasks: Any, task: str, args: list[Any], **options: Any) -> None:
    """A caller sends a task."""
    getattr(tasks, task).apply_async(args, **options)


def enqueue(tasks: Any, task: str, args: list[Any], **options: Any) -> None:
    """A caller on an event loop enqueues a task."""
    from livejobs import enqueue

    async def call() -> None:
        await enqueue(getattr(tasks, task), args, **options)

    asyncio.run(call())


def change(_tasks: Any, module: str, program: str, args: list[Any]) -> None:
    """A program of statements runs in a transaction of its own."""
    from livejobs.database import get_database

    get_database().run(getattr(importlib.import_module(module), program)(*args))


def tell(tasks: Any, job_id: str, args: list[str]) -> None:
    """A webhook is sent, inline, by the job that is there for it."""
    tasks.send.apply(args, task_id=job_id)


def keep(tasks: Any) -> None:
    """A keeper does a round."""
    from livejobs.keeper import Keeper
    from livejobs.settings import get_settings

    Keeper(get_settings(), tasks.app).round()


def work(tasks: Any, queue: str) -> None:
    """A worker takes what is in a queue, until it is ended."""
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat")
    tasks.app.worker_main(["worker", "--pool=solo", "-Q", queue, *quiet])


def work_uncounted(tasks: Any, queue: str) -> None:
    """The same, without the thread that counts children: it would do now one thing, now another."""
    from livejobs.counting import Counting

    Counting.note = lambda *_, **__: None  # type: ignore[method-assign]
    work(tasks, queue)


def record(_tasks: Any, **usage: Any) -> None:
    """Usage is recorded, in a transaction of its own."""
    from livejobs import record_usage

    record_usage(**usage)


def flush(tasks: Any) -> None:
    """Usage is sent to Stripe."""
    tasks.flush.run()


def mail(tasks: Any, job_id: str, letter: dict[str, Any], recipients: list[Any]) -> None:
    """A job mails some people, inline."""
    tasks.app.conf.task_always_eager = True
    tasks.send.apply_async((letter, recipients), task_id=job_id)


def clean(tasks: Any) -> None:
    """A cleanup runs, inline, as the job that it is."""
    tasks.app.conf.task_always_eager = True
    tasks.cleanup.apply_async()


def beat(tasks: Any) -> None:
    """A beat begins, and sends what is due."""
    from livejobs.beat import Scheduler

    scheduler = Scheduler(app=tasks.app)
    while scheduler.tick() == 0:
        pass


PARTS = {
    part.__name__: part
    for part in (
        *(apply, enqueue, change, tell, keep, work, work_uncounted),
        *(record, flush, mail, clean, beat),
    )
}


def _run(tasks: Any, run: dict[str, Any]) -> None:
    points = {name: run[name] for name in ("begin", "stop", "lose") if run.get(name)}
    FailPoints(Path(run["path"]), **points).arm()
    PARTS[run["part"]](tasks, **run["arguments"])


def _fork(tasks: Any, run: dict[str, Any], inherited: list[int]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        for descriptor in inherited:
            os.close(descriptor)
        _run(tasks, run)
        code = 0
    finally:
        os._exit(code)


def _wait(pid: int) -> str:
    deadline = time.monotonic() + RUN_SECONDS
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return {0: "done", -signal.SIGKILL: "killed"}.get(code, f"exit code {code}")
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "hung"


def _load(tasks: Any) -> None:
    """Do what each worker would do for itself: nine hundred modules take it half a second."""
    for name in (*WORKER, *(STRIPE if "stripe" in sys.modules else ())):
        importlib.import_module(name)
    tasks.app.loader.import_default_modules()
    tasks.app.finalize()
    gc.freeze()  # a fork that looked for garbage among all this would copy it


def main() -> None:
    """Answer what is asked until nobody asks any more."""
    tasks = importlib.import_module(sys.argv[1])
    _load(tasks)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a run prints belongs into the log
    for line in sys.stdin:
        question = json.loads(line)
        if "wait" in question:
            answer: Any = _wait(question["wait"])
        else:
            answer = _fork(tasks, question, [0, answers.fileno()])
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
