"""A Celery app as a user of livejobs writes it, for tests with a real worker.

It is an ordinary app with a result backend of its own: nothing but the base class and the call of
`configure()` is livejobs'.
"""

from __future__ import annotations

import os
import time
from typing import Any

from celery import Celery

import livejobs
from livejobs import JobTask, current_job

app = Celery(
    "tests.support.jobs_app",
    broker=os.environ["REDIS_URL"],
    backend=os.environ["REDIS_URL"],
    task_cls=JobTask,
)
app.conf.update(
    broker_connection_retry_on_startup=True,
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    result_expires=300,
)
livejobs.configure()


@app.task
def add(x: int, y: int) -> int:
    """As in Celery's first steps."""
    return x + y


@app.task
def total(numbers: list[int]) -> int:
    """The body of a chord."""
    return sum(numbers)


@app.task(bind=True)
def process(self: Any, items: int, pause: float = 0.01) -> dict[str, int]:
    """Celery's classic progress loop."""
    for i in range(items):
        self.update_state(
            state="PROGRESS",
            meta={"current": i + 1, "total": items, "message": f"item {i + 1}", "extra": i},
        )
        time.sleep(pause)
    return {"items": items}


@app.task(bind=True, max_retries=5)
def flaky(self: Any, failures: int, countdown: float = 0) -> str:
    """Celery's classic retry."""
    try:
        if self.request.retries < failures:
            raise ConnectionError(f"failure {self.request.retries + 1}")
    except Exception as exc:
        raise self.retry(exc=exc, countdown=countdown) from None
    return f"worked after {self.request.retries}"


@app.task(autoretry_for=(ConnectionError,), retry_backoff=False, default_retry_delay=0)
def automatic(key: str, failures: int) -> str:
    """`autoretry_for`, on a count kept outside."""
    import redis

    with redis.Redis.from_url(os.environ["REDIS_URL"]) as client:
        count = client.incr(f"tests:{key}")
    if int(count) <= failures:
        raise ConnectionError(f"failure {count}")
    return f"worked at {count}"


@app.task
def fail(message: str = "it broke") -> None:
    """A task that fails."""
    raise ValueError(message)


@app.task
def talk(lines: int, pieces: int = 0, pause: float = 0.0) -> dict[str, int]:
    """Log and output."""
    job = current_job()
    for i in range(max(lines, pieces)):
        if i < lines:
            job.log(f"line {i + 1}")
        if i < pieces:
            job.output(f"piece {i + 1};")
        job.progress(i + 1, max(lines, pieces))
        if pause:
            time.sleep(pause)
    return {"lines": lines, "pieces": pieces}


@app.task
def dictated(path: str, total: int) -> int:
    """Says each line of a file as it is written, as log and output in turn, until one is `end`."""
    job, said = current_job(), 0
    with open(path, encoding="utf-8") as script:
        while (line := script.readline()) != "end\n":
            if not line:
                time.sleep(0.01)
                continue
            said += 1
            (job.log if said % 2 else job.output)(line.removesuffix("\n"))
            job.progress(said, total)
    return said


@app.task
def tracked(items: int, pause: float = 0.05) -> int:
    """`job.track()`, which ends where the job is cancelled."""
    for _ in current_job().track(range(items)):
        time.sleep(pause)
    return items


@app.task
def custom_state(self_state: str = "UPLOADING") -> None:
    """A state of one's own."""
    custom_state.update_state(state=self_state, meta={"current": 1})
    time.sleep(0.3)


@app.task(bind=True)
def replaced(self: Any, x: int) -> Any:
    """Hands its id on to another task."""
    return self.replace(add.s(x, 1))


@app.task
def parent(x: int) -> str:
    """Starts another task, which inherits the owner."""
    return str(add.delay(x, x).id)


@app.task
def unstorable() -> object:
    """Returns what JSON cannot hold."""
    return object()


@app.task(tracked=False)
def untracked() -> str:
    """A task that leaves no row."""
    return "done"


@app.task(serializer="pickle")
def pickled(value: Any) -> str:
    """Arguments in another serializer."""
    return type(value).__name__


@app.task(bind=True)
def whoami(self: Any) -> str:
    """Celery's own id is the job's."""
    assert current_job().id == self.request.id
    return str(self.request.id)


@app.task(time_limit=1)
def endless() -> None:
    """Runs into its hard time limit."""
    time.sleep(60)


@app.task(soft_time_limit=1)
def softly_endless() -> None:
    """Runs into its soft time limit."""
    time.sleep(60)


class InContext(JobTask):
    """The pattern of Flask's documentation: a `__call__` that runs the task by itself."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run in a context of the app's."""
        return self.run(*args, **kwargs)


@app.task(base=InContext)
def in_context() -> str:
    """A task of such a class."""
    current_job().log("in context")
    return "done"


class Unprepared(JobTask):
    """Fails before it begins."""

    abstract = True

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Celery calls it before the task."""
        raise RuntimeError("not prepared")


@app.task(base=Unprepared)
def unprepared() -> None:
    """A task of such a class."""


@app.task(bind=True)
def replaced_by_chain(self: Any) -> Any:
    """Hands its id on to the last of several tasks."""
    return self.replace(add.s(1, 1) | add.s(10))


@app.task(bind=True)
def replaced_by_chord(self: Any) -> Any:
    """Hands its id on to the body of a chord."""
    from celery import chord

    return self.replace(chord([add.s(1, 1), add.s(2, 2)], total.s()))


class Unspeakable(Exception):
    """Cannot say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no")


@app.task
def unspeakable() -> None:
    """Fails with an exception that cannot say what it is."""
    raise Unspeakable


@app.task(bind=True)
def declared_failure(self: Any) -> None:
    """Declares its own state, as many examples do."""
    from celery.exceptions import Ignore

    self.update_state(state="FAILURE", meta={"exc_type": "ValueError", "exc_message": "declared"})
    raise Ignore


@app.task(bind=True)
def retried_in_block(self: Any) -> str:
    """Retries from inside a tracked block."""
    with livejobs.track("a block") as block:
        block.progress(1, 1)
        if self.request.retries == 0:
            raise self.retry(countdown=0)
    return "done"


@app.task
def gives_up() -> None:
    """Cancels itself."""
    raise livejobs.JobCancelled(current_job().id)


@app.task(bind=True, max_retries=3)
def witnessed(self: Any, key: str, items: int, pause: float = 0.05) -> int:
    """Keeps a list outside of what becomes of each execution."""
    import redis

    job = current_job()
    with redis.Redis.from_url(os.environ["REDIS_URL"]) as client:

        def witness(what: str) -> None:
            client.rpush(f"tests:{key}", f"{job.attempt} {what}")

        witness("begins")
        try:
            for i in range(items):
                job.progress(i + 1, items)
                job.log(f"{job.attempt}.{i}")
                time.sleep(pause)
        except Exception as error:
            witness("retries")
            raise self.retry(exc=error) from None
        except BaseException as error:
            witness(type(error).__name__)
            raise
        witness("ends")
    return int(job.attempt)


@app.task(acks_late=False)
def unrepeatable(seconds: float) -> None:
    """May not be run twice."""
    time.sleep(seconds)


@app.task
def stubborn(key: str, seconds: float = 60.0) -> None:
    """Hears of no cancel; says outside whether it was allowed to clean up."""
    import redis

    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            time.sleep(0.05)
    finally:
        with redis.Redis.from_url(os.environ["REDIS_URL"]) as client:
            client.set(f"tests:{key}", "cleaned up")


@app.task
def immovable(seconds: float) -> str:
    """Holds the interpreter's lock, and is interrupted by no signal, as some C code does."""
    import ctypes
    import signal

    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    ctypes.PyDLL(None).sleep(int(seconds))
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return "moved"


@app.task
def hushed(seconds: float) -> None:
    """Is silent for a while between two reports."""
    current_job().progress(1, 2)
    time.sleep(seconds)
    current_job().progress(2, 2)
    time.sleep(seconds)


@app.task(bind=True, max_retries=5)
def catches_all(self: Any) -> None:
    """As many tasks are written."""
    try:
        for _ in current_job().track(range(2000)):
            time.sleep(0.05)
    except Exception as exc:
        raise self.retry(exc=exc, countdown=0) from None


@app.task(bind=True, max_retries=5)
def retries_later(self: Any, seconds: float) -> None:
    """Asks nobody whether it is cancelled."""
    time.sleep(seconds)
    raise self.retry(countdown=60)


app.conf.accept_content = ["json", "pickle"]
