"""What a task pays for reporting: loops in a process of their own, as a worker's child is one.

Usage: python -m tests.bench.reporting <job id> <calls> <port where no Redis is>
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

from celery import Celery

from livejobs.database import get_database
from livejobs.entries import ProgressReport
from livejobs.live import Live, Publication
from livejobs.reporter import Reporter
from livejobs.running import RunningJob
from livejobs.settings import configure, get_settings

from .stage import claim_of

REPEATS = 5
SLICE = 20_000
"""Calls of which a time is taken; the best counts: the machine has other work."""
ROUND_TRIPS = 1000
WARM_SECONDS = 0.3
CARRIED_SECONDS = 5.0


class _Holder:
    """Takes a value and does nothing with it."""

    value: Any = None


def best_us(loop: Callable[[int], object], calls: int, most: int = SLICE) -> float:
    """Time of one pass of a loop, in µs.

    Args:
        loop: Takes how many passes it is to make.
        calls: Passes in all, `REPEATS` times.
        most: Passes of which a time is taken.
    """
    count = min(calls, most)
    times = []
    for _ in range(REPEATS * max(1, calls // count)):
        began = time.perf_counter()
        loop(count)
        times.append(time.perf_counter() - began)
    return 1e6 * min(times) / count


def storing(calls: int) -> float:
    """Storing an attribute, which is the limit."""
    holder = _Holder()

    def loop(calls: int) -> None:
        for i in range(calls):
            holder.value = i

    return best_us(loop, calls)


def looping(calls: int) -> float:
    """The loop alone."""

    def loop(calls: int) -> None:
        for _ in range(calls):
            pass

    return best_us(loop, calls)


def with_tqdm(calls: int) -> float | None:
    """`tqdm` around the loop, None where it is not installed."""
    try:
        from tqdm import tqdm  # type: ignore[import-untyped]
    except ImportError:
        return None
    with open(os.devnull, "w", encoding="ascii") as nowhere:

        def loop(calls: int) -> None:
            for _ in tqdm(range(calls), file=nowhere):
                pass

        return best_us(loop, calls)


@contextmanager
def attached(job_id: str, redis_url: str) -> Any:
    """A running job whose reports a reporter carries."""
    settings = get_settings().model_copy(update={"redis_url": redis_url})
    reporter = Reporter(settings, get_database())
    job = RunningJob(job_id, 1, claim_of(job_id))
    reporter.attach(job)
    job.progress(0, 1)
    time.sleep(WARM_SECONDS)
    try:
        yield job
    finally:
        reporter.detach(job)
        reporter.stop()


def reporting(job: RunningJob, calls: int) -> float:
    """`progress()` in a tight loop."""

    def loop(calls: int) -> None:
        progress = job.progress
        for i in range(calls):
            progress(i, calls)

    return best_us(loop, calls)


def carrying(job: RunningJob, calls: int) -> float:
    """CPU of the reporter's threads while a task reports all the time, as a share of a core."""
    began, others = time.perf_counter(), time.process_time() - time.thread_time()
    while time.perf_counter() - began < CARRIED_SECONDS:
        for i in range(1000):
            job.progress(i, calls)
    spent = time.process_time() - time.thread_time() - others
    return spent / (time.perf_counter() - began)


def scripts(job_id: str) -> float:
    """The publish script, one round trip for each report."""
    live = Live(get_settings())

    def loop(calls: int) -> None:
        for i in range(1, calls + 1):
            report = ProgressReport(i, '{"current":1,"total":2,"data":{}}')
            live.publish(Publication(job_id, 1, 0, progress=report))

    try:
        return best_us(loop, ROUND_TRIPS)
    finally:
        live.close()


def update_state(calls: int) -> float:
    """Celery's own `update_state` on a Redis backend."""
    url = get_settings().redis_url
    app = Celery("bench", broker=url, backend=url, set_as_current=False)

    @app.task(name="bench.plain")
    def task() -> None:
        """Nothing; it only reports."""

    def loop(calls: int) -> None:
        for i in range(calls):
            task.update_state(task_id="bench", state="PROGRESS", meta={"current": i, "total": 1})

    return best_us(loop, calls)


def main(job_id: str, calls: int, closed_port: int) -> None:
    """Measure all of it, and print it as JSON; times in µs."""
    settings = configure()
    found: dict[str, float | None] = {"loop": looping(calls), "storing": storing(calls)}
    found["tqdm"] = with_tqdm(calls)
    with attached(job_id, settings.redis_url) as job:
        found["progress"] = reporting(job, calls)
        found["carrying"] = carrying(job, calls)
    with attached(job_id, f"redis://127.0.0.1:{closed_port}/0") as job:
        found["progress_redis_down"] = reporting(job, calls)
    found["script"] = scripts(job_id)
    found["update_state"] = update_state(ROUND_TRIPS)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
