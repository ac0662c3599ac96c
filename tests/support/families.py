"""Tasks that split their work into children, for tests with a real worker."""

from __future__ import annotations

import os
import time
from typing import Any

import redis

from livejobs import current_job

from .jobs_app import app

QUEUE = "families"
"""Taken from by workers that know these tasks; that of `jobs_app` does not."""
app.conf.task_routes = {"tests.support.families.*": {"queue": QUEUE}}
# The app may have sent something before this module was read, and know its routes since then.
app.amqp.flush_routes()
app.amqp.__dict__.pop("router", None)


def witness(key: str, what: str) -> None:
    """Note outside of the database what was done."""
    with redis.Redis.from_url(os.environ["REDIS_URL"]) as client:
        client.rpush(f"tests:{key}", what)


@app.task
def square(number: int, pause: float = 0.0) -> int:
    """A child."""
    time.sleep(pause)
    return number * number


@app.task(bind=True, max_retries=1)
def picky(self: Any, number: int) -> int:
    """A child that fails for some, and for others only once."""
    if number % 3 == 0:
        raise ValueError(f"{number} is a multiple of three")
    if number % 3 == 1 and self.request.retries == 0:
        raise self.retry(countdown=0)
    return number


@app.task
def gather(what: str) -> dict[str, Any]:
    """Goes on after the children."""
    found = list(current_job().children())
    return {
        "what": what,
        "ordinals": [child.ordinal for child in found],
        "results": [child.result for child in found],
        "statuses": sorted({child.status for child in found}),
    }


@app.task
def squares(numbers: int, pause: float = 0.0, queue: str | None = None) -> str:
    """Has numbers squared, and gathers them."""
    job = current_job()
    calls = ((number, pause) for number in range(numbers))
    job.spawn_many(square, calls, on_children_done=gather.s("squares"), queue=queue)
    return "not kept"


@app.task
def choosy(numbers: int) -> None:
    """Spawns one by one, children some of which fail."""
    job = current_job()
    for number in range(numbers):
        job.spawn(picky, (number,), on_children_done=gather.s("choosy"))


@app.task
def careless(numbers: int) -> str:
    """Does not wait for its children."""
    current_job().spawn_many(square, range(numbers))
    return "done"


@app.task
def staged(numbers: int) -> None:
    """Children, and further children after them."""
    current_job().spawn_many(square, range(numbers), on_children_done=second_stage.s(numbers))


@app.task
def second_stage(numbers: int) -> None:
    """Spawns once more."""
    job = current_job()
    before = sum(child.result for child in job.children())
    job.spawn_many(square, [before] * numbers, on_children_done=gather.s("staged"))


@app.task(bind=True, max_retries=3)
def forgetful(self: Any, numbers: int) -> None:
    """Fails after it has spawned half of its children, and spawns them all once more."""
    job = current_job()
    job.spawn_many(square, range(numbers // 2))
    if job.attempt == 1:
        raise self.retry(countdown=0)
    job.spawn_many(square, range(numbers // 2, numbers), on_children_done=gather.s("forgetful"))


@app.task(bind=True, max_retries=3)
def slow_spawner(self: Any, key: str, numbers: int, pause: float) -> None:
    """Takes its time between children."""
    job = current_job()
    for number in range(numbers):
        job.spawn(square, (number,))
        witness(key, f"{job.attempt} {number}")
        time.sleep(pause)
    job.then = gather.s("slow")


@app.task
def nested(depth: int, width: int) -> None:
    """Children that have children."""
    job = current_job()
    if depth:
        job.spawn_many(nested, [(depth - 1, width)] * width, on_children_done=gather.s("nested"))


@app.task
def unspawnable() -> None:
    """What it spawns cannot be sent."""
    current_job().spawn_many(square, [(1,), (object(),)])


@app.task
def badly_continued() -> None:
    """Names something that cannot go on."""
    current_job().spawn(square, (1,), on_children_done=square.s(1) | square.s())


@app.task
def few(queue: str) -> None:
    """Spawns in both ways, into a queue of its own."""
    job = current_job()
    job.spawn(square, (2,), queue=queue)
    job.spawn_many(square, [3], queue=queue, on_children_done=gather.s("few").set(queue=queue))


@app.task
def one_at_a_time(queue: str) -> None:
    """Spawns children of which one may run at a time."""
    job, then = current_job(), gather.s("one").set(queue=queue)
    job.spawn_many(square, [2, 3], queue=queue, at_once=1, on_children_done=then)
    job.spawn(square, (4,), queue=queue, at_once=1)


@app.task(bind=True, max_retries=2)
def crowded(self: Any, key: str, number: int) -> int:
    """A child that notes how many are in here with it; some are tried again, and some fail."""
    with redis.Redis.from_url(os.environ["REDIS_URL"]) as client:
        within = client.incr(f"tests:{key}:within")
        client.rpush(f"tests:{key}", within)
        time.sleep(0.002 * (number % 5))
        client.decr(f"tests:{key}:within")
    if number % 7 == 3 and self.request.retries == 0:
        raise self.retry(countdown=0)
    if number % 7 == 5:
        raise ValueError(f"{number} fails")
    current_job().hand_in(numbers=1, sum=number)
    return number


@app.task
def counted() -> dict[str, Any]:
    """Goes on after them."""
    return current_job().counts()._asdict()


@app.task
def crowd(key: str, numbers: int, at_once: int) -> None:
    """Has many do their work, some at a time."""
    calls = ((key, number) for number in range(numbers))
    current_job().spawn_many(crowded, calls, at_once=at_once, on_children_done=counted.s())
