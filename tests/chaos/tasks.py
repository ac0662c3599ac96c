"""The Celery app that the workers run: jobs of all kinds, each execution of which is witnessed."""

from __future__ import annotations

import os
import time
from typing import Any, Final

from celery import Celery

import livejobs
from livejobs import JobTask, current_job

from .breaks import break_as_told
from .plan import OWNER
from .witness import witness

PREFIX: Final = __name__
REDELIVERED_SECONDS: Final = 30
"""After which Celery delivers again what nobody has acknowledged; no execution takes so long."""

break_as_told()


class Witnessed(JobTask):
    """A task whose executions are put down with their beginnings and ends."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task's code."""
        job = current_job()
        number = witness().begins(job.id, job.attempt, self.name)
        how = "returned"
        try:
            return self.run(*args, **kwargs)
        except BaseException as error:
            how = type(error).__name__
            raise
        finally:
            witness().ends(number, how)


app = Celery(PREFIX, broker=os.environ["REDIS_URL"], task_cls=Witnessed)
app.conf.update(
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_transport_options={"visibility_timeout": REDELIVERED_SECONDS},
    task_acks_late=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
)
livejobs.configure(owner_of=lambda: OWNER)


def _result() -> dict[str, int]:
    """What tells which attempt a job's result is of."""
    return {"attempt": current_job().attempt}


@app.task(max_retries=20)
def quick() -> dict[str, int]:
    """Is done at once."""
    return _result()


@app.task(max_retries=20)
def talk(lines: int) -> dict[str, int]:
    """Says much in a short time."""
    job = current_job()
    for line in range(int(lines)):
        (job.log if line % 2 else job.output)(f"{job.attempt}.{line};")
        job.progress(line + 1, int(lines))
        if line % 5 == 0:
            time.sleep(0.02)
    return _result()


@app.task(max_retries=20)
def slow(steps: int, pause: float) -> dict[str, int]:
    """Goes step by step, and tells of each."""
    job = current_job()
    for step in job.track(range(int(steps))):
        job.log(f"{job.attempt}.{step}")
        time.sleep(pause)
    return _result()


@app.task(max_retries=20)
def silent(seconds: float) -> dict[str, int]:
    """Says nothing for long: what comes back from the dead gets to its end."""
    current_job().log(f"{current_job().attempt}.begins")
    time.sleep(seconds)
    return _result()


@app.task(max_retries=20)
def stubborn(seconds: float) -> dict[str, int]:
    """Hears of no cancel, and catches what it can."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.1)
    return _result()


@app.task(max_retries=20)
def tick(seconds: float) -> dict[str, int]:
    """Reports four times a second, for so long."""
    job, steps = current_job(), int(seconds * 4)
    for step in range(steps):
        job.progress(step + 1, steps)
        time.sleep(0.25)
    return _result()


@app.task(max_retries=20)
def fail() -> None:
    """Fails."""
    current_job().log(f"{current_job().attempt}.fails")
    raise ValueError("as it is meant to")


@app.task(bind=True, max_retries=20)
def flaky(self: Any, failures: int, delay: float) -> dict[str, int]:
    """Fails at first."""
    current_job().log(f"{current_job().attempt}.tries")
    try:
        if self.request.retries < failures:
            raise ConnectionError(f"failure {self.request.retries + 1}")
    except ConnectionError as error:
        raise self.retry(exc=error, countdown=delay) from None
    return _result()


@app.task(
    bind=True,
    autoretry_for=(ConnectionError,),
    max_retries=20,
    retry_backoff=1,
    retry_backoff_max=2,
    retry_jitter=True,
)
def automatic(self: Any, failures: int) -> dict[str, int]:
    """Fails at first, and Celery tries it again by itself."""
    if self.request.retries < failures:
        raise ConnectionError(f"failure {self.request.retries + 1}")
    return _result()


@app.task(acks_late=False)
def once(seconds: float) -> dict[str, int]:
    """May not be run twice."""
    current_job().log(f"{current_job().attempt}.begins")
    time.sleep(seconds)
    return _result()


@app.task(max_retries=20)
def family(children: int, waits: int) -> dict[str, int]:
    """Has children; where `waits` is set it goes on after the last of them."""
    job = current_job()
    job.spawn_many(child, range(int(children)), on_children_done=gathered.s() if waits else None)
    job.log(f"{job.attempt}.spawned")
    return _result()


@app.task(max_retries=20)
def child(ordinal: int) -> dict[str, int]:
    """Every fifth fails, some take a while."""
    current_job().log(f"{current_job().attempt}.child {ordinal}")
    if ordinal % 5 == 4:
        raise ValueError("as it is meant to")
    time.sleep(0.3 if ordinal % 3 == 0 else 0.0)
    return _result()


@app.task(max_retries=20)
def gathered() -> dict[str, int]:
    """What a family ends with: none of its children is open."""
    found = list(current_job().children())
    over = [it for it in found if it.status in ("completed", "failed", "cancelled")]
    return _result() | {"children": len(found), "over": len(over)}


@app.task(max_retries=20)
def link(before: Any = None, *, number: int = 0) -> dict[str, int]:
    """One step of a chain."""
    assert (before is None) == (number == 0), "each step but the first gets what came before"
    return _result()
