"""The feeds: who follows which, and what each viewer is told next.

A state machine without I/O, like `hub`, beside which it stands: a shell feeds it what happens,
executes what `take_actions` returns, and calls `tick` when `next_due` has come. It is told the
time. Everything runs on one thread; no call blocks.

The way of a subscription::

    subscribe ──▶ joining ──(SUBSCRIBE acknowledged, ListJobs answered)──▶ following
                     ▲                                                        │ ▲
                     └──── it lagged too long ◀── lagging ◀── refused ────────┘ │ resume
                                                     └──────────────────────────┘

Whoever follows is owed jobs: those it begins with, and each that changes. What goes out about a job
is its newest view, or progress newer than that; the row is read where nobody keeps either. The
first message about a job goes out at once, the next ones a quarter of a second apart.
"""

from __future__ import annotations

import heapq
import itertools
import logging
from collections import deque
from collections.abc import Mapping

from livejobs.entries import deleted_owner, feed_channels, parse_told

from . import wire
from .exchange import Snapshot
from .feed import Feed
from .feed_exchange import (
    Changes,
    Deleted,
    FeedAction,
    FeedViewer,
    Leave,
    Listen,
    Listing,
    ListJobs,
    ReadJobs,
)
from .follower import Follower
from .member import Member
from .scope import Scope

logger = logging.getLogger("livejobs.feeds")


class _Channel:
    """A channel that feeds listen on."""

    __slots__ = ("acked", "feeds", "unacked")

    def __init__(self) -> None:
        self.feeds: dict[Feed, None] = {}
        self.acked = False
        # Acknowledgements not yet in: only the last one says that it is subscribed.
        self.unacked = 0


class Feeds:
    """All feeds of one server process."""

    def __init__(self) -> None:
        self._feeds: dict[Scope, Feed] = {}
        self._channels: dict[str, _Channel] = {}
        self._viewers: dict[FeedViewer, dict[str, Feed]] = {}
        self._lagging: set[FeedViewer] = set()
        self._online = False
        self._channel_actions: list[FeedAction] = []
        # Acknowledgements of channels that were left meanwhile.
        self._stray: dict[str, int] = {}
        self._dirty: dict[Feed, None] = {}
        # What is to be told: as soon as may be in the order it came, or not before a time.
        self._ready: deque[tuple[Feed, Member]] = deque()
        self._due: list[tuple[float, int, Feed, Member]] = []
        self._serial = itertools.count()
        self._ticket = 0
        self._rejected = 0

    # -- figures --------------------------------------------------------------------------------

    @property
    def feeds(self) -> int:
        """Feeds followed, with their different owners."""
        return len(self._feeds)

    @property
    def viewers(self) -> int:
        """Viewers that follow a feed."""
        return len(self._viewers)

    @property
    def members(self) -> int:
        """Jobs known of, in all feeds."""
        return sum(len(feed.members) for feed in self._feeds.values())

    @property
    def lagging(self) -> int:
        """Viewers that refused a message and have not been resumed."""
        return len(self._lagging)

    @property
    def rejected(self) -> int:
        """Messages that could not be understood, since the start."""
        return self._rejected

    @property
    def is_subscribed(self) -> bool:
        """Whether Redis has acknowledged every SUBSCRIBE."""
        return all(channel.acked for channel in self._channels.values())

    @property
    def postponed(self) -> int:
        """Feeds whose reads wait for `retry_reads`."""
        return sum(feed.postponed for feed in self._feeds.values())

    # -- viewers --------------------------------------------------------------------------------

    def subscribe(
        self,
        viewer: FeedViewer,
        scope: Scope,
        since: int | None = None,
        *,
        wants_open: bool = True,
        ref: int | None = None,
    ) -> None:
        """Let `viewer` follow a feed; it replaces a subscription it has to the same feed.

        The viewer gets `subscribed`, the jobs it begins with, the oldest change first, and what
        happens later; or a problem.

        Args:
            since: It knows what changed until then, in microseconds since the epoch.
            wants_open: It begins with the jobs that are not over, whenever they changed.
            ref: A number for the answer.
        """
        self.unsubscribe(viewer, scope.feed)
        feed = self._feeds.get(scope) or self._open(scope)
        self._viewers.setdefault(viewer, {})[scope.feed] = feed
        follower = Follower(viewer, since, wants_open, ref)
        follower.lagging = viewer in self._lagging
        feed.join(follower)
        self._dirty[feed] = None

    def unsubscribe(self, viewer: FeedViewer, name: str) -> None:
        """End a subscription; nothing happens if there is none."""
        feeds = self._viewers.get(viewer, {})
        feed = feeds.pop(name, None)
        if not feeds:
            self._viewers.pop(viewer, None)
        if feed is not None:
            feed.drop(viewer)
            if feed.is_empty:
                self._close(feed)

    def remove(self, viewer: FeedViewer) -> None:
        """Forget a viewer: its connection is gone."""
        for name in list(self._viewers.get(viewer, {})):
            self.unsubscribe(viewer, name)
        self._lagging.discard(viewer)

    def move(self, viewer: FeedViewer, to: FeedViewer) -> None:
        """Let another viewer, which follows nothing yet, go on in the place of one."""
        feeds = self._viewers.pop(viewer, {})
        if feeds:
            self._viewers[to] = feeds
        for feed in feeds.values():
            feed.move(viewer, to)
        if viewer in self._lagging:
            self._lagging.discard(viewer)
            self._lagging.add(to)

    def resume(self, viewer: FeedViewer) -> None:
        """A lagging viewer has drained: it is told the newest of all it is owed."""
        if viewer not in self._lagging:
            return
        self._lagging.discard(viewer)
        for feed in list(self._viewers.get(viewer, {}).values()):
            feed.resume(viewer)
            self._dirty[feed] = None

    def unread_since(self, viewer: FeedViewer, name: str) -> int | None:
        """The oldest change among those jobs that a viewer begins with and has not been told of.

        In microseconds since the epoch; None: it has been told of all.
        """
        feed = self._viewers.get(viewer, {}).get(name)
        follower = None if feed is None else feed.find(viewer)
        return min(follower.awaited.values(), default=None) if follower else None

    # -- the pub/sub connection -----------------------------------------------------------------

    def connected(self) -> None:
        """There is a new connection, subscribed to nothing yet."""
        self.disconnected()
        self._online = True
        for name, channel in self._channels.items():
            self._listen(name, channel)

    def disconnected(self) -> None:
        """The connection is gone; until there is one, rounds bring what is new."""
        self._online = False
        self._channel_actions.clear()
        self._stray.clear()
        for channel in self._channels.values():
            channel.acked, channel.unacked = False, 0
        self._dirty |= dict.fromkeys(self._feeds.values())

    def subscribed(self, name: str) -> None:
        """Redis acknowledged one SUBSCRIBE to a channel."""
        channel = self._channels.get(name)
        if self._stray.get(name, 0):
            self._stray[name] -= 1
            if not self._stray[name]:
                del self._stray[name]
        elif channel is not None and channel.unacked:
            channel.unacked -= 1
            channel.acked = not channel.unacked
            self._dirty |= channel.feeds

    def published(self, name: str, data: bytes) -> None:
        """A message arrived on a channel; one that is not understood is counted."""
        channel = self._channels.get(name)
        if channel is None or not channel.acked:
            return
        try:
            job_id, published = parse_told(data)
            frame = wire.published_frame(job_id, published)
            for feed in channel.feeds:
                if frame.kind == wire.GONE:
                    feed.hear_deleted(Deleted(job_id, deleted_owner(frame.payload), None))
                elif frame.kind not in wire.ENTRIES:
                    feed.hear(frame)
        except ValueError:
            self._rejected += 1
        self._dirty |= channel.feeds

    # -- reads ----------------------------------------------------------------------------------

    def take_actions(self, max_reads: int | None = None) -> list[FeedAction]:
        """What is to be done now, in order.

        Args:
            max_reads: At most so many reads, the rest stays for later; None: no limit.
        """
        actions, self._channel_actions = self._channel_actions, []
        room = 2 * len(self._dirty) if max_reads is None else max_reads
        for feed in list(self._dirty):
            if room <= 0:
                break
            del self._dirty[feed]
            if feed.scope not in self._feeds:
                continue
            channel = self._channels[feed.scope.channel]
            if feed.wants_listing() and (channel.acked or not self._online):
                actions.append(feed.begin_listing(self._next_ticket()))
                room -= 1
            # One page at a time, so that they are told in order.
            if feed.wanted and not feed.reading and not feed.postponed:
                ticket = self._next_ticket()
                actions.append(ReadJobs(feed.scope, feed.take_wanted(ticket), ticket))
                room -= 1
        return actions

    def listed(self, read: ListJobs, listing: Listing | None) -> None:
        """The answer to a `ListJobs`; None: it failed, see `retry_reads`."""
        feed = self._feeds.get(read.scope)
        if feed is not None and feed.listing is read:
            feed.end_listing(listing)
            self._dirty[feed] = None

    def read(self, read: ReadJobs, snapshots: Mapping[str, Snapshot] | None) -> None:
        """The answer to a `ReadJobs`, by job; None: it failed, see `retry_reads`."""
        feed = self._feeds.get(read.scope)
        if feed is not None and read.ticket in feed.reading:
            feed.end_reading(read.ticket, snapshots)
            self._dirty[feed] = None

    def retry_reads(self) -> None:
        """Read again where that is due, after a pause that the caller chose."""
        for feed in self._feeds.values():
            if feed.postponed:
                feed.postponed = False
                self._dirty[feed] = None

    def look(self, changes: Changes) -> None:
        """Bring up to date whatever is behind the rows that a round found changed."""
        for glance in changes.jobs:
            for feed in self._concerned(glance.owner, glance.parent_id):
                feed.look(glance)
                self._dirty[feed] = None
        for deleted in changes.deleted:
            for feed in self._concerned(deleted.owner, deleted.parent_id):
                feed.hear_deleted(deleted)

    def renew(self, at: int) -> None:
        """A round is over, in which everything was looked at.

        Args:
            at: When it began, in microseconds since the epoch.
        """
        for feed in list(self._feeds.values()):
            feed.renew(at)

    def _concerned(self, owner: str, parent_id: str | None) -> list[Feed]:
        channels = (self._channels.get(name) for name in feed_channels(owner, parent_id))
        return [feed for channel in channels if channel is not None for feed in channel.feeds]

    # -- telling --------------------------------------------------------------------------------

    @property
    def next_due(self) -> float | None:
        """When `tick` has something to do; a time that is past: now. None: nothing waits."""
        if self._ready:
            return 0.0
        return self._due[0][0] if self._due else None

    def tick(self, now: float) -> None:
        """Tell what is due.

        Args:
            now: Seconds, from any clock that never goes back.
        """
        while self._due and self._due[0][0] <= now:
            _, _, feed, member = heapq.heappop(self._due)
            self._flush(feed, member, now)
        while self._ready:
            feed, member = self._ready.popleft()
            if member.next_at <= now:
                self._flush(feed, member, now)
            else:
                heapq.heappush(self._due, (member.next_at, next(self._serial), feed, member))

    def _flush(self, feed: Feed, member: Member, now: float) -> None:
        member.queued = False
        # Feed and member may have gone since.
        if self._feeds.get(feed.scope) is feed and feed.members.get(member.job_id) is member:
            feed.flush(member, now)
            if feed.wanted:
                self._dirty[feed] = None

    def _queue(self, feed: Feed, member: Member) -> None:
        if not member.queued:
            member.queued = True
            self._ready.append((feed, member))

    # -- feeds ----------------------------------------------------------------------------------

    def _open(self, scope: Scope) -> Feed:
        feed = self._feeds[scope] = Feed(scope, self._queue, self._lag, self._expel, self._dismiss)
        channel = self._channels.get(scope.channel)
        if channel is None:
            channel = self._channels[scope.channel] = _Channel()
            if self._online:
                self._listen(scope.channel, channel)
        channel.feeds[feed] = None
        return feed

    def _listen(self, name: str, channel: _Channel) -> None:
        channel.unacked += 1
        self._channel_actions.append(Listen(name))

    def _close(self, feed: Feed) -> None:
        if self._feeds.get(feed.scope) is not feed:
            return
        del self._feeds[feed.scope]
        self._dirty.pop(feed, None)
        name = feed.scope.channel
        channel = self._channels[name]
        del channel.feeds[feed]
        if channel.feeds:
            return
        del self._channels[name]
        if channel.unacked:
            self._stray[name] = self._stray.get(name, 0) + channel.unacked
        if self._online:
            self._channel_actions.append(Leave(name))

    def _lag(self, viewer: FeedViewer) -> None:
        """A viewer is full: it is only owed what comes, until it has drained."""
        self._lagging.add(viewer)
        for feed in self._viewers[viewer].values():
            follower = feed.find(viewer)
            if follower is not None:
                follower.lagging = True

    def _expel(self, viewer: FeedViewer) -> None:
        logger.exception("A viewer failed and was removed.")
        self.remove(viewer)

    def _dismiss(self, feed: Feed, viewer: FeedViewer) -> None:
        self.unsubscribe(viewer, feed.scope.feed)

    def _next_ticket(self) -> int:
        self._ticket += 1
        return self._ticket
