"""What is enqueued, kept for a test in place of the database and the broker."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from celery import Task
from kombu.serialization import dumps, loads, registry

from ..errors import IdempotencyConflict
from ..interception import intercepted
from ..transitions import NewJob


@dataclass(frozen=True, slots=True)
class EnqueuedJob:
    """A job that would have been sent.

    Attributes:
        task: The task's name.
        args: Its arguments, as the worker would get them: JSON makes lists of tuples.
        delay: Seconds that it would wait before it is sent; 0: none.
        expires_in: Seconds after which it would be too old to run; None: never.
        queue: The queue it is routed to.
        owner: Whose job it is; empty: nobody's.
    """

    job_id: str
    task: str
    args: list[Any]
    kwargs: dict[str, Any]
    queue: str
    owner: str
    tags: dict[str, str]
    delay: float
    expires_in: float | None
    idempotency_key: str | None

    def __str__(self) -> str:
        given = [*map(repr, self.args), *(f"{k}={v!r}" for k, v in self.kwargs.items())]
        about = "".join(
            f", {name} {value!r}"
            for name in ("owner", "tags", "delay")
            if (value := getattr(self, name))
        )
        return f"{self.task}({', '.join(given)}) in queue {self.queue!r}{about}"


class Enqueued:
    """What was enqueued since the recorder began."""

    def __init__(self) -> None:
        self._news: list[NewJob] = []

    def take(self, new: NewJob) -> NewJob:
        """Keep a job; returns the earlier one where its idempotency key came before.

        Raises:
            IdempotencyConflict: The key came before with something else.
        """
        for earlier in self._news:
            key = new.idempotency_key
            if key is not None and (key, new.owner) == (earlier.idempotency_key, earlier.owner):
                if earlier.idempotency_hash != new.idempotency_hash:
                    raise IdempotencyConflict(earlier.id)
                return earlier
        self._news.append(new)
        return new

    @property
    def jobs(self) -> list[EnqueuedJob]:
        """The jobs, in the order in which they were enqueued."""
        return [_readable(new) for new in self._news]

    def of(self, task: Task | str) -> list[EnqueuedJob]:
        """The jobs of one task."""
        return [job for job in self.jobs if job.task == _name(task)]

    def assert_enqueued(
        self,
        task: Task | str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        owner: str | None = None,
        queue: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> EnqueuedJob:
        """The job that was enqueued so; the last one, where there are several.

        Args:
            task: The task, or its name.
            args: Its arguments; None: any.
            kwargs: Its named arguments; None: any.
            owner: Whose it is; None: anybody's.
            queue: Where it goes; None: anywhere.
            tags: Tags that it has, perhaps beside others; None: any.

        Raises:
            AssertionError: There is none; the message says what there is.
        """
        found = [
            new
            for new in self._news
            if new.task == _name(task)
            and _matches(_arguments(new), _as_sent(new, args, kwargs))
            and (owner is None or new.owner == owner)
            and (queue is None or new.queue == queue)
            and (tags is None or tags.items() <= new.tags.items())
        ]
        if not found:
            asked = {"args": args, "kwargs": kwargs, "owner": owner, "queue": queue, "tags": tags}
            wanted = {name: value for name, value in asked.items() if value is not None}
            there = "".join(f"\n  {job}" for job in self.jobs) or " nothing was"
            raise AssertionError(f"{_name(task)} was not enqueued with {wanted}; enqueued:{there}")
        return _readable(found[-1])

    def __len__(self) -> int:
        return len(self._news)


_recorders: list[Enqueued] = []


@contextlib.contextmanager
def enqueued() -> Iterator[Enqueued]:
    """Keep what is enqueued, by any thread of this process, and send nothing.

    Neither a database nor a broker nor a result backend is asked. What is enqueued with a session
    is there once the session has committed.
    """
    recorder = Enqueued()
    _recorders.append(recorder)
    try:
        with intercepted(recorder.take):
            yield recorder
    finally:
        _recorders.remove(recorder)


def assert_enqueued(
    task: Task | str,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    **expected: Any,
) -> EnqueuedJob:
    """`Enqueued.assert_enqueued` of the recorder that is at work.

    Raises:
        RuntimeError: None is: call it within `enqueued`.
    """
    if not _recorders:
        raise RuntimeError(
            "Nothing records what is enqueued: call it within `with enqueued():`, or in a test "
            "with the fixture livejobs_enqueued."
        )
    return _recorders[-1].assert_enqueued(task, args, kwargs, **expected)


def _name(task: Task | str) -> str:
    return task if isinstance(task, str) else task.name


def _readable(new: NewJob) -> EnqueuedJob:
    args, kwargs = _arguments(new)
    return EnqueuedJob(
        job_id=new.id,
        task=new.task,
        args=args,
        kwargs=kwargs,
        queue=new.queue,
        owner=new.owner,
        tags=new.tags,
        delay=round(new.delay, 1),
        expires_in=new.expires_in,
        idempotency_key=new.idempotency_key,
    )


def _arguments(new: NewJob) -> tuple[list[Any], dict[str, Any]]:
    """The arguments as the worker would read them."""
    message = new.message
    body = base64.b64decode(message["body"]) if message["binary"] else message["body"]
    kind = message["content_type"]
    args, kwargs, _ = loads(body, kind, message["content_encoding"], accept=[kind])
    return list(args), dict(kwargs)


def _as_sent(
    new: NewJob, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None
) -> tuple[list[Any] | None, dict[str, Any] | None]:
    """Expected arguments as they would come through the serializer of the job's message."""
    serializer = registry.type_to_name[new.message["content_type"]]
    given = (None if args is None else list(args), None if kwargs is None else dict(kwargs))
    kind, encoding, data = dumps(given, serializer)
    return tuple(loads(data, kind, encoding, accept=[kind]))


def _matches(
    there: tuple[list[Any], dict[str, Any]],
    expected: tuple[list[Any] | None, dict[str, Any] | None],
) -> bool:
    return all(
        wanted is None or found == wanted for found, wanted in zip(there, expected, strict=True)
    )
