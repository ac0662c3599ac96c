"""What the feeds and their surroundings say to each other: viewers, actions, answers to reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from .scope import Scope
from .wire import Frame

OVERLAP_SECONDS: Final = 10.0
"""Reads of what changed since a moment begin so much earlier: a change is seen when it is
committed, but bears the time of its statement."""
MAX_MEMBERS: Final = 10_000
"""Jobs that a feed knows of at a time: those changed last."""


class FeedViewer(Protocol):
    """One connection. It must be hashable, by identity. None of its methods calls the feeds."""

    def deliver_in(self, feed: str, frame: Frame) -> bool:
        """Take a frame for sending; False: full, the frame was NOT taken.

        After False the viewer is lagging and gets nothing until `Feeds.resume`. It never blocks.
        """
        ...

    def may_see_in(self, feed: str, job_id: str, owner: str) -> bool:
        """Whether it may be shown this job in this feed."""
        ...

    def has_caught_up(self, feed: str) -> None:
        """It has been told all that the feed began with."""
        ...


class Glance(NamedTuple):
    """How far a job is by its row: enough to see who is behind.

    Attributes:
        job_id: The job.
        owner: Whose it is.
        parent_id: The job it is a child of; None: of none.
        final: Whether it is over.
        attempt: Its attempt.
        version: The view's version.
        seq: Seq of the progress in the row.
        last: Its last entry in the row.
        shape: Stands for all of the view that saving reports does not change; 0: not known.
        changed: When it was changed last, in microseconds since the epoch.
    """

    job_id: str
    owner: str
    parent_id: str | None
    final: bool
    attempt: int
    version: int
    seq: int
    last: int
    shape: int
    changed: int


class Deleted(NamedTuple):
    """A job that is there no more."""

    job_id: str
    owner: str
    parent_id: str | None


class Listing(NamedTuple):
    """The answer to a `ListJobs`.

    Attributes:
        at: When it was read, by the database's clock, in microseconds since the epoch.
        jobs: What was asked for, the oldest change first; of too many, those changed last.
        deleted: Jobs deleted since.
        complete: Nothing was left out.
        parent_owner: Whose the job is whose children these are; None: there is no such job.
    """

    at: int
    jobs: Sequence[Glance] = ()
    deleted: Sequence[Deleted] = ()
    complete: bool = True
    parent_owner: str | None = None


class Changes(NamedTuple):
    """A page of what a round finds: everything changed since the one before.

    Attributes:
        at: As of a `Listing`.
        jobs: The oldest change first.
        deleted: Jobs deleted; all are in the first page.
        more: There is another page, after the last of these jobs.
    """

    at: int
    jobs: Sequence[Glance] = ()
    deleted: Sequence[Deleted] = ()
    more: bool = False


@dataclass(frozen=True, slots=True)
class ListJobs:
    """Wanted: a `Listing` of a scope.

    Attributes:
        scope: Which jobs.
        open: Those that are not over, whenever they changed.
        since: Those changed at this time or later, in microseconds since the epoch; None: none.
        ticket: Tells this read from others.
    """

    scope: Scope
    open: bool
    since: int | None
    ticket: int


@dataclass(frozen=True, slots=True)
class ReadJobs:
    """Wanted: a `Snapshot` without entries of each of these jobs that is in the scope.

    Attributes:
        scope: Which jobs count.
        job_ids: The jobs.
        ticket: Tells this read from others.
    """

    scope: Scope
    job_ids: tuple[str, ...]
    ticket: int


@dataclass(frozen=True, slots=True)
class Listen:
    """Wanted: SUBSCRIBE to a channel; report its acknowledgement to `Feeds.subscribed`."""

    channel: str


@dataclass(frozen=True, slots=True)
class Leave:
    """Wanted: UNSUBSCRIBE from a channel; its acknowledgement does not matter."""

    channel: str


FeedRead = ListJobs | ReadJobs
FeedAction = Listen | Leave | FeedRead
