"""What it costs to enqueue: a process of its own, as the web application is one.

Usage: python -m tests.bench.enqueueing <calls>
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import psycopg
from celery import Celery

from livejobs import JobTask, JobView
from livejobs.dispatch import enqueue, enqueue_many
from livejobs.errors import DatabaseUnavailable
from livejobs.settings import configure, get_settings

BODY = "x" * 1000
"""About what a message takes in its row."""
CROWDS = 4
ROUNDS = 10
"""Of plain Celery and livejobs in turn; the best of each counts: the machine has other work."""


def _app(name: str, **options: Any) -> Any:
    app = Celery(name, broker=get_settings().redis_url, set_as_current=False, **options)
    app.conf.task_ignore_result = True

    @app.task(name=f"{name}.add")
    def add(x: int, y: int) -> int:
        return x + y

    return add


def delays(task: Any, calls: int) -> float:
    """`task.delay()` one by one; µs for each."""
    began = time.perf_counter()
    for i in range(calls):
        task.delay(i, i)
    return 1e6 * (time.perf_counter() - began) / calls


async def enqueues(task: Any, calls: int) -> float:
    """`await enqueue()` one by one; µs for each."""
    began = time.perf_counter()
    for i in range(calls):
        await enqueue(task, (i, i))
    return 1e6 * (time.perf_counter() - began) / calls


async def at_once(task: Any, calls: int) -> tuple[float, int]:
    """Many at once; jobs a second, and how many were refused."""
    began = time.perf_counter()
    jobs = [enqueue(task, (i, i)) for i in range(calls)]
    outcomes = await asyncio.gather(*jobs, return_exceptions=True)
    seconds = time.perf_counter() - began
    refused = sum(isinstance(outcome, DatabaseUnavailable) for outcome in outcomes)
    if unexpected := [it for it in outcomes if not isinstance(it, JobView | DatabaseUnavailable)]:
        raise RuntimeError(f"{len(unexpected)} failed: {unexpected[0]}")
    return (calls - refused) / seconds, refused


def floors() -> Callable[[int], float]:
    """The least that a row costs that is there after a crash: one small INSERT and its COMMIT."""
    settings = get_settings()
    if settings.database_url.startswith("sqlite"):
        path = settings.database_url.removeprefix("sqlite:///")
        small: Any = sqlite3.connect(path, isolation_level=None)
        small.execute("PRAGMA journal_mode=WAL")
        small.execute("PRAGMA synchronous=NORMAL")
        insert = "INSERT INTO floor VALUES (?, ?)"
    else:
        small = psycopg.connect(settings.database_url, autocommit=True)
        insert = "INSERT INTO floor VALUES (%s, %s)"
    small.execute("CREATE TABLE floor (id TEXT PRIMARY KEY, body TEXT)")

    def rows(calls: int) -> float:
        began = time.perf_counter()
        for _ in range(calls):
            small.execute(insert, (uuid4().hex, BODY))
        return 1e6 * (time.perf_counter() - began) / calls

    return rows


async def many(task: Any, calls: int) -> float:
    """`await enqueue_many()`; jobs a second."""
    began = time.perf_counter()
    await enqueue_many(task, [(i, i) for i in range(calls)])
    return calls / (time.perf_counter() - began)


def main(calls: int) -> None:
    """Measure all of it, and print it as JSON; times in µs."""
    configure()
    plain, ours = _app("plain"), _app("ours", task_cls=JobTask)
    measures: dict[str, Callable[[int], float]] = {
        "celery": lambda count: delays(plain, count),
        "delay": lambda count: delays(ours, count),
        "enqueue": lambda count: asyncio.run(enqueues(ours, count)),
        "floor": floors(),
    }
    for measure in measures.values():
        measure(max(1, calls // 10))  # connections are made, modules loaded
    found: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(ROUNDS):
        for name, measure in measures.items():
            found[name].append(measure(max(1, calls // ROUNDS)))
    best = {name: min(times) for name, times in found.items()}
    rate, refused = max(asyncio.run(at_once(ours, calls)) for _ in range(CROWDS))
    together = max(asyncio.run(many(ours, calls)) for _ in range(CROWDS))
    print(json.dumps(best | {"at_once": rate, "refused": refused, "many": together}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
