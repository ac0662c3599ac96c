"""One feed as all its viewers share it: the jobs it knows of, and what each viewer is owed.

Pure bookkeeping without I/O; `feeds` decides when any of it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from . import wire
from .exchange import Snapshot
from .feed_exchange import Deleted, FeedViewer, Glance, Listing, ListJobs
from .follower import Follower
from .member import GONE, VIEW, Facts, Member
from .members import Members
from .scope import Scope
from .times import time_text
from .wire import Frame

SPACING_SECONDS: Final = 0.25
"""Between two messages about one job: so no more than four in any second."""
RECENT_SECONDS: Final = 20.0
"""A change that the last round has not told of was made no longer before it than this."""
READ_JOBS: Final = 100
"""Rows read at a time."""
RENEW_SECONDS: Final = 60.0
"""So often followers are told where to resume, so that who comes back is told little."""

MICROSECONDS: Final = 1_000_000
RENEW: Final = int(RENEW_SECONDS * MICROSECONDS)


class Feed:
    """A feed that somebody follows.

    Args:
        scope: Its jobs.
        queue: Called with the feed and a member that is to be flushed.
        lag: Called with a viewer that refused a message.
        expel: Called with a viewer that failed.
        dismiss: Called with the feed and a viewer that may not follow it.

    Attributes:
        scope: The same.
        members: The jobs it knows of.
        joiners: Wait for a listing.
        followers: Have been told where they begin.
        wanted: Jobs whose rows are wanted.
        listing: The listing under way.
        reading: Reads of rows under way, by ticket: the version of each that was known then.
        postponed: No read until `Feeds.retry_reads`.
    """

    def __init__(
        self,
        scope: Scope,
        queue: Callable[[Feed, Member], None],
        lag: Callable[[FeedViewer], None],
        expel: Callable[[FeedViewer], None],
        dismiss: Callable[[Feed, FeedViewer], None],
    ) -> None:
        self.scope = scope
        self.members = Members()
        self.joiners: dict[FeedViewer, Follower] = {}
        self.followers: dict[FeedViewer, Follower] = {}
        self.wanted: dict[str, None] = {}
        self.listing: ListJobs | None = None
        self.reading: dict[int, dict[str, int]] = {}
        self.postponed = False
        self._queue = queue
        self._lag = lag
        self._expel = expel
        self._dismiss = dismiss
        # When the last round began, in microseconds since the epoch; 0: there was none.
        self._looked_at = 0
        # Who waits for the listing under way, and the jobs heard of since it began.
        self._waiting: set[FeedViewer] = set()
        self._heard: dict[str, None] = {}

    @property
    def is_empty(self) -> bool:
        """Whether nobody follows it any more."""
        return not (self.joiners or self.followers)

    # -- followers ------------------------------------------------------------------------------

    def join(self, follower: Follower) -> None:
        """Add somebody who waits for a listing."""
        self.drop(follower.viewer)
        self.joiners[follower.viewer] = follower

    def drop(self, viewer: FeedViewer) -> None:
        """Forget a viewer, if it is one of its."""
        self.joiners.pop(viewer, None)
        self.followers.pop(viewer, None)
        self._waiting.discard(viewer)

    def move(self, viewer: FeedViewer, to: FeedViewer) -> None:
        """Let another viewer take the place of one."""
        for group in (self.joiners, self.followers):
            follower = group.pop(viewer, None)
            if follower is not None:
                follower.viewer = to
                group[to] = follower
        if viewer in self._waiting:
            self._waiting.remove(viewer)
            self._waiting.add(to)

    def find(self, viewer: FeedViewer) -> Follower | None:
        """A viewer's place here."""
        return self.joiners.get(viewer) or self.followers.get(viewer)

    def resume(self, viewer: FeedViewer) -> None:
        """A lagging viewer has drained: it gets the newest of all that it is owed."""
        follower = self.find(viewer)
        if follower is None or not follower.lagging:
            return
        follower.lagging = False
        if follower.lost:
            follower.begin_anew()
            self.join(follower)
            return
        self._prepare_owed(follower)

    # -- what is heard --------------------------------------------------------------------------

    def hear(self, frame: Frame) -> None:
        """Take a published message about a job."""
        if frame.job_id in self.members.strangers:
            return
        member = self.members.get(frame.job_id)
        if member is None and not self.members.is_news(frame):
            return
        if frame.kind in wire.VIEWS:
            self._hear_view(member, frame)
        else:
            self._hear_progress(member or self.members.find_or_add(frame.job_id), frame)

    def _hear_view(self, member: Member | None, frame: Frame) -> None:
        if member is None or not member.is_known:
            facts = Facts.of(frame)
            if not facts.fit(self.scope):
                self._forget(frame.job_id)
                return
            member = member or self.members.find_or_add(frame.job_id)
            member.owner = facts.owner
        if member.hear_view(frame):
            self.members.deleted.pop(frame.job_id)
            self._note(frame.job_id)
            self.members.touch(member)
            self._queue(self, member)

    def _hear_progress(self, member: Member, frame: Frame) -> None:
        news = member.hear_progress(frame)
        if news is None:
            self.want(member)
        elif news:
            self._note(frame.job_id)
            self.members.touch(member)
            self._queue(self, member)

    def hear_deleted(self, deleted: Deleted) -> None:
        """Take the news that a job was deleted; once is enough."""
        job_id = deleted.job_id
        if job_id in self.members.deleted or job_id in self.members.strangers:
            return
        member = self.members.find_or_add(job_id)
        member.owner = deleted.owner or member.owner
        self._tell_gone(member)

    def _tell_gone(self, member: Member) -> None:
        job_id = member.job_id
        self.members.deleted.add(job_id, None)
        self._note(job_id)
        member.delete()
        self.wanted.pop(job_id, None)
        member.wanted = False
        # A read under way may have found it before it was deleted.
        for versions in self.reading.values():
            versions.pop(job_id, None)
        self._queue(self, member)

    def _note(self, job_id: str) -> None:
        """Those who wait for the listing under way are to be told of this job, too."""
        if self.listing is not None:
            self._heard[job_id] = None

    # -- reads ----------------------------------------------------------------------------------

    def wants_listing(self) -> bool:
        """Whether a listing is due."""
        if self.listing is not None or self.postponed:
            return False
        return any(not follower.lagging for follower in self.joiners.values())

    def begin_listing(self, ticket: int) -> ListJobs:
        """A listing for all who wait."""
        waiting = [follower for follower in self.joiners.values() if not follower.lagging]
        self._waiting = {follower.viewer for follower in waiting}
        self._heard = {}
        floors = [follower.floor for follower in waiting if follower.floor is not None]
        self.listing = ListJobs(
            self.scope,
            any(follower.wants_open for follower in waiting),
            min(floors) if floors else None,
            ticket,
        )
        return self.listing

    def end_listing(self, listing: Listing | None) -> None:
        """The listing was answered; None: it could not be."""
        waiting = [self.joiners[viewer] for viewer in self._waiting if viewer in self.joiners]
        heard, self._heard = self._heard, {}
        self.listing, self._waiting = None, set()
        if listing is None:
            self.postponed = True
            return
        for glance in listing.jobs:
            self._list(glance, recent=self._looked_at - int(RECENT_SECONDS * MICROSECONDS))
        for follower in waiting:
            try:
                self._admit(follower, listing, heard)
            except Exception:
                self._expel(follower.viewer)
        begun = [follower for follower in waiting if follower.viewer in self.followers]
        for glance in listing.jobs:
            # In this order for all of them.
            if any(glance.job_id in follower.owed for follower in begun):
                self._prepare(self.members.find_or_add(glance.job_id))
        for follower in begun:
            self._prepare_owed(follower)

    def _list(self, glance: Glance, recent: int) -> None:
        """Know a listed job; whoever follows already may have missed its last change."""
        member = self.members.get(glance.job_id)
        if member is not None:
            if member.glance(glance):
                self.want(member)
            return
        passed = self.members.passed_version(glance.job_id)
        if passed == glance.version:
            return
        member = self.members.find_or_add(glance.job_id)
        if passed > glance.version or (self.followers and glance.changed >= recent):
            self.want(member)
        else:
            member.adopt(glance)

    def _admit(self, follower: Follower, listing: Listing, heard: Iterable[str]) -> None:
        """Tell somebody who waited where it begins, and owe it what is listed."""
        viewer, feed, parent = follower.viewer, self.scope.feed, self.scope.parent_id
        if parent is not None:
            owner = listing.parent_owner
            if owner is None or not viewer.may_see_in(feed, parent, owner):
                self._deny(follower)
                return
        frame = wire.feed_subscribed_frame(
            feed, time_text(listing.at), listing.complete, follower.ref
        )
        if not viewer.deliver_in(feed, frame):
            self._lag(viewer)
            return
        del self.joiners[viewer]
        self.followers[viewer] = follower
        follower.told_since, follower.ref = listing.at, None
        self._owe_all(follower, listing, heard)

    def _owe_all(self, follower: Follower, listing: Listing, heard: Iterable[str]) -> None:
        floor = follower.floor
        if floor is not None:
            for job in listing.deleted:
                follower.owed[job.job_id] = GONE
                self.members.owners.add(job.job_id, job.owner)
        for glance in listing.jobs:
            if follower.wants(glance):
                follower.owed[glance.job_id] = VIEW
                follower.awaited[glance.job_id] = glance.changed
        for job_id in heard:
            follower.owed.setdefault(job_id, VIEW)
        if not follower.awaited:
            follower.viewer.has_caught_up(self.scope.feed)

    def _deny(self, follower: Follower) -> None:
        frame = wire.feed_missing_frame(self.scope.feed, follower.ref)
        if follower.viewer.deliver_in(self.scope.feed, frame):
            self._dismiss(self, follower.viewer)
        else:
            self._lag(follower.viewer)

    def take_wanted(self, ticket: int) -> tuple[str, ...]:
        """Rows to be read now."""
        job_ids = tuple(self.wanted)[:READ_JOBS]
        for job_id in job_ids:
            del self.wanted[job_id]
        self.reading[ticket] = {job_id: self.members.version(job_id) for job_id in job_ids}
        return job_ids

    def end_reading(self, ticket: int, snapshots: Mapping[str, Snapshot] | None) -> None:
        """Rows were read; those that are missing are not in the scope. None: it failed."""
        for job_id, version in self.reading.pop(ticket, {}).items():
            member = self.members.get(job_id)
            if member is None:
                continue
            member.wanted = False
            if snapshots is None:
                self.postponed = True
                self.want(member)
            elif (snapshot := snapshots.get(job_id)) is not None:
                self._hear_row(member, snapshot, version)
            elif member.gone:
                self._queue(self, member)
            elif member.is_known or self._is_owed_as_gone(job_id):
                self._tell_gone(member)
            else:
                self._forget(job_id)

    def _is_owed_as_gone(self, job_id: str) -> bool:
        return any(follower.owed.get(job_id, 0) & GONE for follower in self.followers.values())

    def _hear_row(self, member: Member, snapshot: Snapshot, known: int) -> None:
        if snapshot.version < known:
            # Versions only grow: that job was deleted, and this one made under its id.
            self._tell_gone(member)
        if member.hear_row(snapshot):
            self.members.deleted.pop(member.job_id)
            self._note(member.job_id)
            self.members.touch(member)
            self._queue(self, member)
        else:
            # Something newer was published meanwhile: it is in the database by now.
            self._prepare(member)

    def _forget(self, job_id: str) -> None:
        """It is no job of this feed."""
        if self.scope.tag is not None:
            self.members.strangers.add(job_id, None)
        self.members.pop(job_id, None)
        for follower in list(self.followers.values()):
            follower.owed.pop(job_id, None)
            self._told(follower, job_id)

    def look(self, glance: Glance) -> None:
        """Compare with a row that a round found changed."""
        member = self.members.get(glance.job_id)
        if member is None:
            passed = self.members.passed_version(glance.job_id)
            if passed != glance.version and glance.job_id not in self.members.strangers:
                self.want(self.members.find_or_add(glance.job_id))
        elif member.glance(glance):
            self.want(member)

    def renew(self, at: int) -> None:
        """A round has looked at all: who knows everything may resume there.

        Args:
            at: When the round began, in microseconds since the epoch.
        """
        self._looked_at = at
        if self.wanted or self.reading:
            return
        frame = wire.feed_subscribed_frame(self.scope.feed, time_text(at), True)
        for follower in list(self.followers.values()):
            since = follower.told_since
            if since is None or at - since < RENEW or follower.owed or follower.lagging:
                continue
            try:
                if follower.viewer.deliver_in(self.scope.feed, frame):
                    follower.told_since = at
                else:
                    self._lag(follower.viewer)
            except Exception:
                self._expel(follower.viewer)

    def want(self, member: Member) -> None:
        """Have the row of a member read."""
        if not member.wanted:
            member.wanted = True
            self.wanted[member.job_id] = None

    # -- telling --------------------------------------------------------------------------------

    def flush(self, member: Member, now: float) -> None:
        """Give each follower that is owed something about a job one message."""
        fresh, member.fresh = member.fresh, 0
        sent = again = unread = False
        for follower in list(self.followers.values()):
            owed = follower.owed.get(member.job_id, 0) | fresh
            if not owed:
                continue
            if follower.lagging:
                follower.owe(member.job_id, fresh)
                continue
            frame = member.frame(owed)
            if frame is None:
                follower.owed[member.job_id] = owed
                unread = True
                continue
            sent = self._give(follower, member, frame, owed) or sent
            again = again or (member.job_id in follower.owed and not follower.lagging)
        if sent:
            member.next_at = now + SPACING_SECONDS
        if unread:
            self.want(member)
        if again:
            self._queue(self, member)
        elif not (unread or member.wanted or member.fresh):
            self.members.settle(member)

    def _give(self, follower: Follower, member: Member, frame: Frame, owed: int) -> bool:
        """Deliver one message; whether it was taken."""
        viewer, feed, job_id = follower.viewer, self.scope.feed, member.job_id
        try:
            seen = viewer.may_see_in(feed, job_id, member.owner)
            if seen and not viewer.deliver_in(feed, frame):
                follower.owed[job_id] = owed
                self._lag(viewer)
                return False
            follower.owed.pop(job_id, None)
            if seen and (left := member.left(frame)):
                follower.owed[job_id] = left
            self._told(follower, job_id)
        except Exception:
            self._expel(viewer)
            return False
        return seen

    def _told(self, follower: Follower, job_id: str) -> None:
        """Of what a follower began with, this job has been told."""
        if follower.awaited.pop(job_id, None) is not None and not follower.awaited:
            follower.viewer.has_caught_up(self.scope.feed)

    def _prepare_owed(self, follower: Follower) -> None:
        """Have all that a follower is owed read, or flushed."""
        for job_id, owed in follower.owed.items():
            member = self.members.find_or_add(job_id)
            if owed == GONE and not member.is_known:
                member.gone = True
            self._prepare(member)

    def _prepare(self, member: Member) -> None:
        """Somebody is owed something about it: read it if need be, else have it flushed."""
        if member.gone or member.fresh or member.view is not None:
            self._queue(self, member)
        else:
            self.want(member)
