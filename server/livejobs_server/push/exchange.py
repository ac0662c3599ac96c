"""What the hub and its surroundings say to each other: viewers, actions, and answers to reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from livejobs.entries import Cursor

from .wire import Frame

EntriesWanted = Literal["all", "none"] | int
"""Which entries a viewer wants: all, none, or to begin with the last so many."""


class Viewer(Protocol):
    """One connection. It must be hashable, by identity.

    Attributes:
        watches: The hub's own, see `watches`; None at first.
    """

    watches: Any

    def deliver(self, frame: Frame) -> bool:
        """Take a frame for sending; False: full, the frame was NOT taken.

        After False the viewer is lagging and gets nothing until `Hub.resume`. It never blocks and
        never calls the hub.
        """
        ...

    def may_see(self, job_id: str, owner: str) -> bool:
        """Whether it may watch this job; never calls the hub."""
        ...


class Entry(NamedTuple):
    """One stored entry: its number, its complete wire message, and its kind, log or output."""

    n: int
    payload: bytes
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What the database (and Redis, for the newest) says about one job: the answer to a `Read`.

    Attributes:
        job_id: The job.
        found: False: there is no such job; all else is then left out.
        owner: Whose it is.
        final: Whether it is over.
        attempt: Its attempt.
        version: The view's version.
        seq: Seq of the progress in the view.
        view: JSON of the `JobView`, the newest progress already in it.
        entries: What was asked for, of this attempt only, ascending and gapless.
        last: Number of the attempt's last entry.
        more: `entries` is a page that ends before what was asked for does.
        complete: False: entries that were asked for have been thrown away by retention.
        shape: Stands for all of the view that saving reports does not change; 0: not known.
        sure: False: Redis did not answer, and may have entries after `last`.
    """

    job_id: str
    found: bool = True
    owner: str = ""
    final: bool = False
    attempt: int = 0
    version: int = 0
    seq: int = 0
    view: bytes = b""
    entries: Sequence[Entry] = ()
    last: int = 0
    more: bool = False
    complete: bool = True
    shape: int = 0
    sure: bool = True


@dataclass(frozen=True, slots=True)
class Read:
    """Wanted: a `Snapshot` of one job, with a page of entries of its present attempt.

    Attributes:
        job_id: The job.
        after: Entries after this cursor; one of another attempt means from the first. None: see
            `tail`.
        tail: The last so many entries. None, with `after` None too: no entries.
        ticket: Tells this read from others.
    """

    job_id: str
    after: Cursor | None
    tail: int | None
    ticket: int


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Wanted: SUBSCRIBE to the job's channel; report its acknowledgement to `Hub.subscribed`."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Wanted: UNSUBSCRIBE from the job's channel; its acknowledgement does not matter."""

    job_id: str


Action = Subscribe | Unsubscribe | Read
