"""What a feed remembers of jobs that it let go; bounded."""

from __future__ import annotations

from typing import Final, Generic, TypeVar

MAX_REMEMBERED: Final = 10_000
"""Jobs remembered that are no members any more, or never were."""
NOTHING: Final = (0, 0, 0)
"""The stand of a job that was never heard of."""

V = TypeVar("V")


class Remembered(Generic[V]):
    """The newest so many things known of jobs that are no members."""

    def __init__(self) -> None:
        self._known: dict[str, V] = {}

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._known

    def add(self, job_id: str, what: V) -> None:
        """Remember it, and forget the oldest where there are too many."""
        self._known.pop(job_id, None)
        self._known[job_id] = what
        if len(self._known) > MAX_REMEMBERED:
            del self._known[next(iter(self._known))]

    def get(self, job_id: str, default: V) -> V:
        """What is known of a job."""
        return self._known.get(job_id, default)

    def pop(self, job_id: str) -> V | None:
        """What is known of a job, which is then forgotten."""
        return self._known.pop(job_id, None)
