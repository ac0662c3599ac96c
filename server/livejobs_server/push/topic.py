"""One watched job as the hub sees it: where its viewers stand, and what they need next.

Pure bookkeeping without I/O; `hub` decides when any of it is used.
"""

from __future__ import annotations

from typing import Final

from livejobs.entries import START, Cursor

from . import wire
from .exchange import EntriesWanted, Read, Snapshot, Viewer
from .feed_exchange import Glance
from .live import Listener, Live
from .position import Position
from .wire import Frame

BUFFERED_FRAMES: Final = 1000
"""Messages kept for one job while a read is under way."""
BUFFERED_BYTES: Final = 1024 * 1024
"""Their size, at most."""
KEPT_FRAMES: Final = 100
"""Messages since a read after which newcomers are not told by that read any more."""
KEPT_BYTES: Final = 64 * 1024
"""Their size, at most."""


class Subscription(Listener):
    """One viewer's watch on one job.

    The position counts while the viewer waits or lags; a live one stands where its topic is.

    Attributes:
        viewer: Whose it is.
        topic: The job watched.
        muted: Wants no entries.
        tail: Wants only the last so many entries, until it has been told where it is; None: all
            after its position.
        ref: The number the request carried.
        greeted: `subscribed` has been sent.
        fresh: Gets the view even if it is no newer than the one it has.
        since: Ticket of the newest read when it began to wait.
    """

    __slots__ = ("fresh", "greeted", "muted", "ref", "since", "tail", "topic", "viewer")

    def __init__(
        self, viewer: Viewer, topic: Topic, at: Position, entries: EntriesWanted, ref: int | None
    ) -> None:
        super().__init__(at.attempt, at.n, at.version, at.seq)
        self.viewer = viewer
        self.topic = topic
        self.muted = entries == "none"
        self.tail = entries if isinstance(entries, int) else None
        self.ref = ref
        self.greeted = False
        self.fresh = at.version == 0
        self.since = 0

    def begin(self, attempt: int, n: int) -> None:
        """It goes on after this entry, whatever it asked for at first."""
        self.attempt, self.n, self.tail = attempt, n, None

    def took(self, frame: Frame) -> None:
        """Move past a frame that has been taken."""
        super().took(frame)
        if frame.kind == wire.SUBSCRIBED:
            self.greeted, self.ref = True, None
        elif frame.kind in wire.VIEWS:
            self.fresh = False


class Topic:
    """A watched job: its subscriptions, each live, joining or parked, and the read under way.

    Attributes:
        job_id: The job.
        owner: Whose it is; None: not known yet.
        live: Told everything as it comes.
        joiners: Wait for a snapshot, each at its own position, the one that waits longest first.
        parked: Of lagging viewers, each at its own position.
        acked: Redis has acknowledged the subscription to the channel.
        read: The read under way.
        postponed: No read until `Hub.retry_reads`.
        refresh: A read is wanted even if nobody waits.
        keeps: What was published since the last read is kept: with what that brought, it tells
            newcomers how the job stands.
        seen: The newest entry that was ever heard of.
        seen_version: The newest version.
        seen_seq: The newest progress of the newest attempt.
    """

    __slots__ = (
        "_bytes", "_floor", "_floor_version", "_frames", "_shape", "_sound", "acked", "job_id",
        "joiners", "keeps", "live", "owner", "parked", "postponed", "read", "refresh", "seen",
        "seen_seq", "seen_version",
    )  # fmt: skip

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self.owner: str | None = None
        self.live = Live[Subscription]()
        self.joiners: dict[Subscription, None] = {}
        self.parked: dict[Subscription, None] = {}
        self.acked = False
        self.read: Read | None = None
        self.postponed = False
        self.refresh = False
        self.keeps = False
        self.seen = START
        self.seen_version = 0
        self.seen_seq = 0
        self._shape = 0
        # What arrived since the read began, and what was known then.
        self._frames: list[Frame] = []
        self._bytes = 0
        self._sound = False
        self._floor = START
        self._floor_version = 0

    @property
    def empty(self) -> bool:
        """Whether nobody watches any more."""
        return not (self.live.all or self.joiners or self.parked)

    def detach(self, sub: Subscription) -> None:
        """Forget a subscription, wherever it is."""
        if sub.place >= 0:
            self.live.leave(sub)
            return
        for group in (self.joiners, self.parked):
            if group.pop(sub, self) is None and not group:
                group.clear()  # An emptied dict keeps its memory.

    # -- reads ----------------------------------------------------------------------------------

    def wants_read(self, online: bool) -> bool:
        """Whether a read is due. Without the channel, one for everybody new is all there is."""
        if self.read is not None or self.postponed:
            return False
        if self.refresh and (self.live.all or self.joiners):
            return True
        if self.acked:
            return bool(self.joiners)
        return not online and any(sub.waiting for sub in self.joiners)

    def begin_read(self, ticket: int) -> Read:
        """A read for as many joiners as possible, always for the one that waits longest.

        What was published before it begins is in what it reads, so the buffer starts anew.
        """
        self.read = Read(self.job_id, *self._wanted(), ticket)
        self.refresh = self.keeps = False
        self._frames, self._bytes = [], 0
        self._sound = self.acked
        self._floor, self._floor_version = self.seen, self.seen_version
        return self.read

    def _wanted(self) -> tuple[Cursor | None, int | None]:
        hungry = [sub for sub in self.joiners if not sub.muted]
        if not hungry:
            return None, None
        if hungry[0].tail is not None:
            return None, max(sub.tail for sub in hungry if sub.tail is not None) or None
        return min(Cursor(sub.attempt, sub.n) for sub in hungry if sub.tail is None), None

    def end_read(self) -> list[Frame] | None:
        """The read is over: what arrived since it began, None if some of that is lost."""
        frames = self._frames if self._sound and self.acked else None
        self.read, self._frames, self._bytes = None, [], 0
        return frames

    def hear(self, frame: Frame) -> None:
        """Note what a published message tells, and keep it for the joiners of a read."""
        self._learn(frame.attempt, frame.n, frame.version, frame.seq)
        if not ((self.read is not None or self.keeps) and self._sound):
            return
        self._frames.append(frame)
        self._bytes += frame.size
        if not self.keeps:
            if len(self._frames) > BUFFERED_FRAMES or self._bytes > BUFFERED_BYTES:
                self.spoil()
        elif len(self._frames) > KEPT_FRAMES or self._bytes > KEPT_BYTES:
            self.let_go()

    def spoil(self) -> None:
        """Messages are lost: nobody can go live with the read under way."""
        self._sound = False
        self.let_go()

    def keep(self, since: list[Frame]) -> None:
        """Keep what was published since the read that is over, and what will be."""
        self.keeps = True
        self._frames, self._bytes = since, sum(frame.size for frame in since)

    def let_go(self) -> None:
        """Keep nothing that was published."""
        self.keeps, self._frames, self._bytes = False, [], 0

    @property
    def published_since(self) -> list[Frame]:
        """What is kept."""
        return list(self._frames)

    def learn(self, snapshot: Snapshot) -> None:
        """Note what a snapshot tells."""
        self.owner = snapshot.owner
        self._learn(snapshot.attempt, snapshot.last, snapshot.version, snapshot.seq)
        if snapshot.version == self.seen_version:
            self._shape = snapshot.shape

    def _learn(self, attempt: int, n: int, version: int, seq: int) -> None:
        if attempt > self.seen.attempt:
            self.seen_seq = 0
        if attempt >= self.seen.attempt and seq > self.seen_seq:
            self.seen_seq = seq
        if (attempt, n) > self.seen:
            self.seen = Cursor(attempt, n)
        if version > self.seen_version:
            self.seen_version = version
            self._shape = 0

    def is_behind(self, glance: Glance) -> bool:
        """Whether a row tells of anything that was never heard of or read."""
        behind = glance.attempt > self.seen.attempt or (
            glance.attempt == self.seen.attempt
            and (glance.last > self.seen.n or glance.seq > self.seen_seq)
        )
        if behind or glance.version <= self.seen_version:
            return behind
        if not self._shape or glance.shape != self._shape:
            return True
        # Only reports were saved since: there is nothing to see.
        self.seen_version = glance.version
        return False

    def over(self, snapshot: Snapshot) -> bool:
        """Whether the job has ended for good, as far as is known."""
        return snapshot.final and snapshot.version >= self.seen_version

    def stale(self, snapshot: Snapshot) -> bool:
        """Whether the read under way lacks what was published before it began.

        That happens for a moment after Redis lost its data: the newest entries are then on their
        way to the database, with the worker's next report or the job's end.
        """
        behind = (snapshot.attempt, snapshot.last) < self._floor and not self.over(snapshot)
        return behind or snapshot.version < self._floor_version
