"""A snapshot as it is told to viewers that stand at different places."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from operator import attrgetter

from . import wire
from .exchange import Read, Snapshot
from .topic import Subscription
from .wire import Frame


class Page:
    """What one read brought, cut for each joiner; frames are made once, for all of them.

    Attributes:
        snapshot: What was read.
        over: The job is over, and nothing newer is known.
    """

    def __init__(self, read: Read, snapshot: Snapshot, over: bool) -> None:
        self.snapshot = snapshot
        self.over = over
        self._ticket = read.ticket
        self._frames = [
            wire.entry_frame(snapshot.job_id, snapshot.attempt, entry.n, entry.kind, entry.payload)
            for entry in snapshot.entries
        ]
        self._begin = self._asked(read)
        more = snapshot.more and bool(self._frames)
        self._end = self._frames[-1].n if more else snapshot.last
        self._views: dict[int, Frame] = {}

    def _asked(self, read: Read) -> int:
        last = self.snapshot.last
        if read.tail is not None:
            return max(0, last - read.tail)
        if read.after is None:
            return last
        return min(read.after.n, last) if read.after.attempt == self.snapshot.attempt else 0

    def place(self, sub: Subscription) -> int | None:
        """The entry after which `sub` goes on with this page; None: it needs another page."""
        if sub.since >= self._ticket and sub.beyond(self.snapshot):
            # It came during the read and knows what happened after the read began.
            return None
        if sub.greeted and sub.attempt > self.snapshot.attempt:
            return None
        last = self.snapshot.last
        start = sub.n if sub.attempt == self.snapshot.attempt else 0
        if not sub.greeted and self.snapshot.sure:
            # A cursor out of a request may be anything.
            start = min(start, last)
        if sub.muted:
            return max(start, last)
        if sub.tail is not None:
            start = max(0, last - sub.tail)
        reached = start <= self._end or self._end == last
        return start if start >= self._begin and reached else None

    def messages(self, sub: Subscription, start: int) -> Iterator[Frame]:
        """What this page holds for `sub`, which stands after entry `start`, in order."""
        recovered = self.snapshot.complete or start >= self._gone
        if not sub.greeted or not recovered:
            yield wire.subscribed_frame(self.snapshot.job_id, recovered, sub.ref)
        if sub.fresh or sub.lacks_view(self.snapshot):
            yield self._view(start)
        if not sub.muted:
            yield from self._frames[bisect_right(self._frames, start, key=attrgetter("n")) :]
        if self.over and (sub.muted or self._end == self.snapshot.last):
            yield wire.end_frame(self.snapshot.job_id, self.snapshot.attempt, max(start, self._end))

    @property
    def _gone(self) -> int:
        """The last entry that retention may have thrown away."""
        return self._frames[0].n - 1 if self._frames else self._end

    def _view(self, start: int) -> Frame:
        frame = self._views.get(start)
        if frame is None:
            it = self.snapshot
            frame = self._views[start] = wire.job_frame(
                it.job_id, it.view, it.attempt, start, it.version, it.seq, it.final
            )
        return frame

    def done(self, sub: Subscription) -> bool:
        """Move `sub` to the page's end, all messages taken; whether nothing is left to page."""
        sub.n = max(sub.n, self._end)
        return sub.n >= self.snapshot.last
