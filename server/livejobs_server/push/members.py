"""The jobs that a feed knows of, and what it remembers of those that it has let go; bounded."""

from __future__ import annotations

from typing import Final

from . import wire
from .feed_exchange import MAX_MEMBERS
from .member import Member
from .remembered import NOTHING, Remembered
from .wire import Frame

EVICTION_TRIES: Final = 100
"""Members looked at to find one that can be let go."""


class Members(dict[str, Member]):
    """By their ids, the one changed last at the end.

    Attributes:
        deleted: Jobs that were deleted.
        strangers: Jobs that are none of the feed's.
        owners: Whose the deleted ones were: some may still have to be told.
    """

    def __init__(self) -> None:
        super().__init__()
        self.deleted = Remembered[None]()
        self.strangers = Remembered[None]()
        self.owners = Remembered[str]()
        # Jobs let go: attempt, version and seq up to which all is told.
        self._passed = Remembered[tuple[int, int, int]]()

    def find_or_add(self, job_id: str) -> Member:
        """The member, added if it is none."""
        member = self.get(job_id)
        if member is None:
            member = self[job_id] = Member(job_id, self.owners.get(job_id, ""))
            passed = self._passed.pop(job_id) or NOTHING
            member.attempt, member.version, member.seq = passed
            if len(self) > MAX_MEMBERS:
                self._evict()
        return member

    def touch(self, member: Member) -> None:
        """It is the one that changed last."""
        self.pop(member.job_id, None)
        self[member.job_id] = member

    def settle(self, member: Member) -> None:
        """Nobody is owed anything about it now: what ended, or is not known, is let go."""
        member.view = None
        if member.gone:
            self.owners.add(member.job_id, member.owner)
        if member.gone or member.final or not member.is_known:
            self.pop(member.job_id, None)
        if member.final and not member.gone:
            self._passed.add(member.job_id, member.stand)

    def is_news(self, frame: Frame) -> bool:
        """Whether a message about a job that is no member tells anything."""
        attempt, version, _ = self._passed.get(frame.job_id, NOTHING)
        if frame.kind in wire.VIEWS:
            return frame.version > version
        return frame.attempt > attempt and frame.job_id not in self.deleted

    def version(self, job_id: str) -> int:
        """The newest version of a member that was heard of; 0: it is none."""
        member = self.get(job_id)
        return 0 if member is None else member.version

    def passed_version(self, job_id: str) -> int:
        """The version up to which all is told of a job that was let go; 0: it is none of them."""
        return self._passed.get(job_id, NOTHING)[1]

    def _evict(self) -> None:
        """Let the member go that changed longest ago and that nothing waits for."""
        for job_id, _ in zip(self, range(EVICTION_TRIES), strict=False):
            member = self[job_id]
            if not (member.queued or member.wanted):
                del self[job_id]
                return
