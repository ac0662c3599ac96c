"""A running job as a parent: it spawns children, and says what goes on after the last of them.

What that does is done by a `Family`, which the worker gives to the job; here is what tasks call.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol


class Child(NamedTuple):
    """A child, as its parent reads it.

    Attributes:
        ordinal: The how manieth that the parent spawned, from 0; None: others made it.
        job_id: Its id.
        task: Name of its task.
        status: One of `Status`; it is over where that is final.
        result: What it returned, as JSON data.
        error: `type` and `message` of why it failed; None: it did not.
    """

    ordinal: int | None
    job_id: str
    task: str
    status: str
    result: Any
    error: dict[str, Any] | None


class Counts(NamedTuple):
    """A job's children, as they were counted last: exact for what goes on after them.

    Attributes:
        sums: What completed ones have handed in, by name.
    """

    total: int
    completed: int
    failed: int
    cancelled: int
    sums: dict[str, int]


class Call(NamedTuple):
    """Arguments of one child."""

    args: Sequence[Any]
    kwargs: Mapping[str, Any]


class Family(Protocol):
    """What makes and reads the children of a running job."""

    def spawn(
        self, task: Any, calls: Iterable[Call], first: int, options: Mapping[str, Any]
    ) -> Iterator[str]:
        """Make children with ordinals from `first` on; yields the id of each that is there."""
        ...

    def children(self, first: int = 0) -> Iterator[Child]:
        """The children from ordinal `first` on, in the order of their ordinals."""
        ...

    def counts(self) -> Counts:
        """How many there are."""
        ...


class Parent:
    """The side of a running job that has to do with its children."""

    def __init__(self) -> None:
        self.family: Family | None = None
        self.next_ordinal = 0  # of the next child
        self.then: Any = None  # what goes on after the children
        self.has_spawned = False
        self._spawning = threading.Lock()

    def spawn(
        self,
        task: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        on_children_done: Any = None,
        **options: Any,
    ) -> str:
        """Start a task as a child of this job.

        A job that is run again spawns the same children in the same order: those that are there
        are left as they are. It waits for the database for as long as the job stands.

        Args:
            task: The task, or its name.
            on_children_done: A task or signature that goes on under this job's id when it has
                returned and all its children are over; until then no worker is held. What this task
                returns is not kept then.
            **options: `tags`, `queue`, `priority`, `run_at` and `expires_in`, as for `enqueue`, and
                `at_once`, as for `spawn_many`.

        Returns:
            The child's id.

        Raises:
            JobLost: The job has been given to another worker.
            JobCancelled: Somebody asked for the job to be cancelled.
            MessageError: The arguments cannot be serialized.
        """
        calls = [Call(tuple(args), dict(kwargs or {}))]
        return self._spawn(task, calls, on_children_done, options)[0]

    def spawn_many(
        self,
        task: Any,
        items: Iterable[Any],
        kwargs: Mapping[str, Any] | None = None,
        *,
        at_once: int | None = None,
        on_children_done: Any = None,
        **options: Any,
    ) -> list[str]:
        """Start a task as a child of this job for each item, hundreds in one go.

        Args:
            items: A tuple is a child's arguments, anything else its only one. They are taken as the
                children are made.
            kwargs: Named arguments of all of them.
            at_once: So many of them are open for workers at a time, in the order of the items: each
                that is over, however it ended, lets the next one begin. None: all. It counts all
                children of this job that were spawned with it.
            on_children_done, **options: As for `spawn`.

        Returns:
            The ids of the children, in the order of the items.

        Raises:
            JobLost, JobCancelled, MessageError: As for `spawn`; what was spawned so far is there.
        """
        named = dict(kwargs or {})
        calls = (Call(item if isinstance(item, tuple) else (item,), named) for item in items)
        return self._spawn(task, calls, on_children_done, {**options, "at_once": at_once})

    def children(self, first: int = 0) -> Iterator[Child]:
        """The children of this job in the order in which they were spawned, read page by page.

        Args:
            first: Leave out so many of them.
        """
        return self._kin().children(first)

    def counts(self) -> Counts:
        """How many children this job has, and what they have handed in."""
        return self._kin().counts()

    def _spawn(
        self, task: Any, calls: Iterable[Call], then: Any, options: Mapping[str, Any]
    ) -> list[str]:
        unknown = options.keys() - {"tags", "queue", "priority", "run_at", "expires_in", "at_once"}
        if unknown:
            raise TypeError(f"a child has no option {', '.join(sorted(unknown))}")
        if (at_once := options.get("at_once")) is not None:
            if options.get("run_at") is not None:
                raise TypeError("a child with at_once begins when it has a place, not at run_at")
            if at_once < 1:
                raise ValueError("at_once has to be 1 or more")
        family, ids = self._kin(), []
        with self._spawning:  # one after the other, so that the ordinals are those of the code
            self.then = self.then if then is None else then
            for job_id in family.spawn(task, calls, self.next_ordinal, options):
                self.next_ordinal += 1
                self.has_spawned = True
                ids.append(job_id)
        return ids

    def _kin(self) -> Family:
        if self.family is None:
            raise RuntimeError(
                "There is no job here that could have children: call it in a task that runs as a "
                "job, or in livejobs.testing.run(task)."
            )
        return self.family
