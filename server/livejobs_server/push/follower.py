"""One viewer of one feed: where it begins, and what it has not been told yet."""

from __future__ import annotations

from typing import Final

from .feed_exchange import MAX_MEMBERS, OVERLAP_SECONDS, FeedViewer, Glance

OVERLAP: Final = int(OVERLAP_SECONDS * 1_000_000)


class Follower:
    """One viewer of one feed.

    Attributes:
        viewer: Whose it is.
        wants_open: Begins with the jobs that are not over, whenever they changed.
        since: It knows what changed until then; microseconds since the epoch, None: nothing.
        ref: The number the request carried.
        owed: What it has not been told, as bits by job; while it lags, that is all it costs.
        awaited: Of what it begins with, the jobs still owed, with the time of their change.
        lagging: It refused a message.
        lost: It lagged for so long that it has to begin anew.
        told_since: The time of the last reading it was told of; None: it waits for one.
    """

    __slots__ = (
        "awaited", "lagging", "lost", "owed", "ref", "since", "told_since", "viewer", "wants_open",
    )  # fmt: skip

    def __init__(
        self, viewer: FeedViewer, since: int | None, wants_open: bool, ref: int | None
    ) -> None:
        self.viewer = viewer
        self.wants_open = wants_open
        self.since = since
        self.ref = ref
        self.owed: dict[str, int] = {}
        self.awaited: dict[str, int] = {}
        self.lagging = False
        self.lost = False
        self.told_since: int | None = None

    @property
    def floor(self) -> int | None:
        """Changes from this time on may be news to it; None: it asked for no changes."""
        return None if self.since is None else self.since - OVERLAP

    def wants(self, glance: Glance) -> bool:
        """Whether it is to begin with this job."""
        floor = self.floor
        changed = floor is not None and glance.changed >= floor
        return changed or (self.wants_open and not glance.final)

    def owe(self, job_id: str, what: int) -> None:
        """It is to be told this."""
        if self.lost:
            return
        self.owed[job_id] = self.owed.get(job_id, 0) | what
        if len(self.owed) > MAX_MEMBERS and self.lagging:
            self.lost = True
            self.owed.clear()
            self.awaited.clear()

    def begin_anew(self) -> None:
        """Wait for a reading again, with what changed since the last one."""
        self.lost = False
        if self.told_since is not None:
            self.since, self.told_since = self.told_since, None
