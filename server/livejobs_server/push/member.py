"""One job of a feed: how far its followers have been told, and what waits to be told."""

from __future__ import annotations

import json
from typing import Final, NamedTuple

from . import wire
from .exchange import Snapshot
from .feed_exchange import Glance
from .scope import Scope
from .wire import Frame

VIEW: Final = 1
PROGRESS: Final = 2
GONE: Final = 4
"""What a follower is owed, as bits."""


class Facts(NamedTuple):
    """What never changes of a job, out of a view."""

    owner: str
    tags: dict[str, str]

    @classmethod
    def of(cls, frame: Frame) -> Facts:
        """Out of a published view.

        Raises:
            ValueError: It is none.
        """
        try:
            view = json.loads(frame.payload)["job"]
            return cls(str(view["owner"]), dict(view["tags"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"a view without {error}") from None

    def fit(self, scope: Scope) -> bool:
        """Whether a job on the scope's channel is one of the scope's."""
        return scope.tag is None or self.tags.get(scope.tag[0]) == scope.tag[1]


class Member:
    """A job that a feed knows of.

    Frames are kept for as long as somebody is owed them; who comes later makes the row be read.

    Attributes:
        job_id: The job.
        owner: Whose it is.
        attempt: Its attempt.
        version: Version of the newest view heard of; 0: none.
        seq: Seq of the newest progress of the attempt.
        shape: See `Glance`; 0: not known of this version.
        final: Whether it is over.
        view: The newest view, where somebody is owed it.
        progress: The newest progress, where that is newer than the view.
        gone: It was deleted.
        fresh: What all followers are owed that has not been given to each yet.
        next_at: The next message about it may go out then.
        queued: It is among those to be flushed.
        wanted: Its row is wanted, or being read.
    """

    __slots__ = (
        "attempt", "final", "fresh", "gone", "job_id", "next_at", "owner", "progress", "queued",
        "seq", "shape", "version", "view", "wanted",
    )  # fmt: skip

    def __init__(self, job_id: str, owner: str = "") -> None:
        self.job_id = job_id
        self.owner = owner
        self.attempt = 0
        self.version = 0
        self.seq = 0
        self.shape = 0
        self.final = False
        self.gone = False
        self.view: Frame | None = None
        self.progress: Frame | None = None
        self.fresh = 0
        self.next_at = 0.0
        self.queued = False
        self.wanted = False

    @property
    def stand(self) -> tuple[int, int, int]:
        """Attempt, version and seq up to which followers have been told."""
        return self.attempt, self.version, self.seq

    @property
    def is_known(self) -> bool:
        """Whether any view of it was heard of or read."""
        return self.version > 0

    def hear_view(self, frame: Frame) -> bool:
        """Take a published view; False: it is old."""
        if frame.version <= self.version and not self.gone:
            return False
        self._show(frame, 0)
        self.fresh |= VIEW
        return True

    def hear_progress(self, frame: Frame) -> bool | None:
        """Take published progress; False: it is old. None: there is a view that was missed."""
        if frame.attempt > self.attempt or not self.is_known:
            return None
        if frame.attempt < self.attempt or frame.seq <= self.seq or self.final:
            return False
        self.progress, self.seq = frame, frame.seq
        self.fresh |= PROGRESS
        return True

    def hear_row(self, snapshot: Snapshot) -> bool:
        """Take what was read; False: it is older than what was heard."""
        if snapshot.version < self.version:
            return False
        newer = snapshot.version > self.version or snapshot.seq > self.seq
        self.owner = snapshot.owner
        frame = wire.job_frame(
            snapshot.job_id, snapshot.view, snapshot.attempt, snapshot.last, snapshot.version,
            snapshot.seq, snapshot.final,
        )  # fmt: skip
        self._show(frame, snapshot.shape)
        if newer:
            self.fresh |= VIEW
        return True

    def delete(self) -> None:
        """Its followers are to be told that it is there no more.

        A job may be made anew under its id: of that one nothing is known.
        """
        self.gone, self.fresh = True, GONE
        self.view = self.progress = None
        self.attempt = self.version = self.seq = self.shape = 0
        self.final = False

    def glance(self, glance: Glance) -> bool:
        """Compare with its row; whether followers may be behind."""
        self.owner = glance.owner
        if glance.attempt > self.attempt:
            return True
        if glance.attempt == self.attempt and glance.seq > self.seq:
            return True
        if glance.version < self.version:
            # Something was published since this was read; or it was deleted, and is made anew.
            return True
        if glance.version == self.version:
            return False
        if self.shape and glance.shape == self.shape:
            # Only reports were saved since: there is nothing to see.
            self.version = glance.version
            return False
        return True

    def adopt(self, glance: Glance) -> None:
        """Stand where a row is, of which its followers are told in another way."""
        self.owner, self.final, self.shape = glance.owner, glance.final, glance.shape
        self.attempt, self.version, self.seq = glance.attempt, glance.version, glance.seq

    def frame(self, owed: int) -> Frame | None:
        """What goes out next to a follower that is owed this; None: it has to be read first."""
        # Of one that was made anew, too, who knew the one before is told its end first.
        if self.gone or owed & GONE:
            return wire.gone_frame(self.job_id)
        return self.view if owed & VIEW or self.progress is None else self.progress

    def left(self, sent: Frame) -> int:
        """What is still owed after that."""
        if sent.kind == wire.GONE:
            return 0 if self.gone else VIEW
        return PROGRESS if sent is self.view and self.progress is not None else 0

    def _show(self, frame: Frame, shape: int) -> None:
        """The view that is told from now on."""
        progress = self.progress
        if progress is None or (progress.attempt, progress.seq) <= (frame.attempt, frame.seq):
            self.progress = None
        if frame.attempt != self.attempt or frame.kind == wire.FINAL:
            self.seq, self.progress = frame.seq, None
        self.seq = max(self.seq, frame.seq)
        self.attempt, self.version, self.shape = frame.attempt, frame.version, shape
        self.final = frame.kind == wire.FINAL
        self.gone = False
        self.view = frame
