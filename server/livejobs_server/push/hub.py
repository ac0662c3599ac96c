"""The hub: who watches which job, and what each of them is told next.

It is a state machine without I/O. A shell feeds it what happens (`connected`, `subscribed`,
`published`, `snapshot` …), executes what `take_actions` returns, and connections implement
`Viewer`. Everything runs on one thread; no call blocks.

The way of a subscription::

    subscribe ──▶ joining ──(SUBSCRIBE acknowledged, Read answered, all of it told)──▶ live
                   ▲  ▲                                                                 │
                   │  └──────────── a message was missed, or the connection ────────────┤
                   │                                                                    │
                 resume ◀── parked ◀── the viewer refused a frame ──────────────────────┘

Live subscriptions of a job share one position, the topic's; the others have their own. A job that
is over is told to its end, and the subscription is then gone.

What is published is told at once where few watch. Where many do, it is queued, and the shell calls
`proceed` again and again: each time some are told all that they lack.
"""

from __future__ import annotations

import logging
from typing import Final

from livejobs.entries import START, Cursor, parse_published

from . import watches, wire
from .counts import Counts
from .exchange import (
    Action,
    EntriesWanted,
    Entry,
    Read,
    Snapshot,
    Subscribe,
    Unsubscribe,
    Viewer,
)
from .fanout import Fanout
from .feed_exchange import Changes
from .page import Page
from .position import Position, Verdict
from .topic import Subscription, Topic
from .wire import Frame

__all__ = [
    "Action", "EntriesWanted", "Entry", "Hub", "Read", "Snapshot", "Subscribe", "Unsubscribe",
    "Viewer",
]  # fmt: skip

CROWD: Final = 100
"""Viewers that come within a few seconds."""

logger = logging.getLogger("livejobs.hub")


class Hub:
    """All viewers of one server process.

    Args:
        counts: Where it counts what it does.
        crowd: So many who come between two calls of `let_go` are a crowd, for which a job is read
            once.
    """

    def __init__(self, counts: Counts | None = None, crowd: int = CROWD) -> None:
        self._crowd = crowd
        self._counts = counts or Counts()
        self._topics: dict[str, Topic] = {}
        self._viewers = 0
        self._subscriptions = 0
        self._lagging: set[Viewer] = set()
        # Who came lately, and what was read for them, of topics that keep what is published since.
        self._arrivals = 0
        self._pages: dict[Topic, Page] = {}
        self._fanout = Fanout(self._counts, self._lag, self.remove, self._drop)
        self._online = False
        self._channel_actions: list[Action] = []
        # Acknowledgements not yet in: only the last one of a channel says that it is subscribed.
        self._unacked: dict[str, int] = {}
        # Topics that may need a read, and those that wait for `retry_reads`.
        self._dirty: dict[str, None] = {}
        self._postponed: set[str] = set()
        self._ticket = 0
        self._rejected = 0

    # -- figures --------------------------------------------------------------------------------

    @property
    def viewers(self) -> int:
        """Viewers with at least one subscription."""
        return self._viewers

    @property
    def topics(self) -> int:
        """Jobs watched."""
        return len(self._topics)

    @property
    def subscriptions(self) -> int:
        """Subscriptions in all."""
        return self._subscriptions

    @property
    def lagging(self) -> int:
        """Viewers that refused a frame and have not been resumed."""
        return len(self._lagging)

    @property
    def rejected(self) -> int:
        """Messages on channels that could not be understood, since the start."""
        return self._rejected

    @property
    def is_subscribed(self) -> bool:
        """Whether Redis has acknowledged every SUBSCRIBE."""
        return not self._unacked

    @property
    def postponed(self) -> int:
        """Jobs whose read waits for `retry_reads`: it failed, or its answer was behind."""
        return len(self._postponed)

    # -- viewers --------------------------------------------------------------------------------

    def subscribe(
        self,
        viewer: Viewer,
        job_id: str,
        after: Cursor | None = None,
        entries: EntriesWanted = "all",
        have_version: int = 0,
        have_seq: int = 0,
        ref: int | None = None,
    ) -> None:
        """Let `viewer` watch a job; it replaces a subscription it has to the same job.

        The viewer gets `subscribed`, `job`, the entries after its cursor, everything that comes
        later, and `end`; or `missing`.

        Args:
            after: The last entry it has; None: it is new.
            entries: Which entries it wants: "all" after its cursor, "none", or, if it is new, the
                last so many. With a cursor such a number means "all", or there would be a gap.
            have_version: Version of the view it has; with it, `job` is only sent if newer.
            have_seq: Seq of the progress it has.
            ref: A number for the answer.
        """
        topic = self._topics.get(job_id) or self._open(job_id)
        before = watches.find(viewer, job_id)
        if before is not None:
            topic.detach(before)
        else:
            self._viewers += viewer.watches is None
            self._subscriptions += 1
        cursor = after or START
        if after is not None and entries != "none":
            entries = "all"
        at = Position(cursor.attempt, cursor.n, have_version, have_seq)
        sub = Subscription(viewer, topic, at, entries, ref)
        watches.put(sub)
        self._arrivals += 1
        if viewer in self._lagging:
            topic.parked[sub] = None
        else:
            self._join(sub)

    def unsubscribe(self, viewer: Viewer, job_id: str) -> None:
        """End a subscription; nothing happens if there is none."""
        sub = watches.find(viewer, job_id)
        if sub is not None:
            self._drop(sub)

    def remove(self, viewer: Viewer) -> None:
        """Forget a viewer: its connection is gone."""
        for sub in watches.watches_of(viewer):
            self._drop(sub)
        self._lagging.discard(viewer)

    def move(self, viewer: Viewer, to: Viewer) -> None:
        """Let another viewer, which watches nothing yet, go on in the place of one."""
        for sub in watches.watches_of(viewer):
            sub.viewer = to
        to.watches, viewer.watches = viewer.watches, None
        if viewer in self._lagging:
            self._lagging.discard(viewer)
            self._lagging.add(to)

    def resume(self, viewer: Viewer) -> None:
        """A lagging viewer has drained: it goes on where it was, as if it had just come back."""
        if viewer not in self._lagging:
            return
        self._lagging.discard(viewer)
        for sub in watches.watches_of(viewer):
            sub.topic.detach(sub)
            self._join(sub)

    def is_ahead(self, viewer: Viewer, frame: Frame) -> bool:
        """Whether a message tells more of a job than the viewer's own watch on it has brought."""
        sub = watches.find(viewer, frame.job_id)
        if sub is None:
            return False
        at = sub.topic.live.position(sub) if sub.place >= 0 else sub
        return not sub.greeted or (frame.attempt, frame.n) > (at.attempt, at.n)

    # -- the pub/sub connection -------------------------------------------------------------------

    def connected(self) -> None:
        """There is a new connection, subscribed to nothing yet."""
        self.disconnected()
        self._online = True
        for job_id in self._topics:
            self._ask(job_id)

    def disconnected(self) -> None:
        """The connection is gone; until there is one, viewers are told what reads bring."""
        self._online = False
        self._channel_actions.clear()
        self._unacked.clear()
        for topic in self._topics.values():
            topic.acked = False
            topic.spoil()
            self._leave_live(topic, waiting=False)

    def subscribed(self, job_id: str) -> None:
        """Redis acknowledged one SUBSCRIBE to the job's channel."""
        outstanding = self._unacked.pop(job_id, 0) - 1
        if outstanding > 0:
            self._unacked[job_id] = outstanding
            return
        topic = self._topics.get(job_id)
        if topic is not None and outstanding == 0:
            topic.acked = True
            self._dirty[job_id] = None

    def published(self, job_id: str, data: bytes) -> None:
        """A message arrived on the job's channel; one that is not understood is counted."""
        topic = self._topics.get(job_id)
        if topic is None or not topic.acked:
            return
        try:
            frame = wire.published_frame(job_id, parse_published(data))
        except ValueError:
            self._rejected += 1
            return
        if frame.kind == wire.GONE:
            self._refresh(topic)
            return
        topic.hear(frame)
        self._counts.coalesced += len(topic.parked)
        if topic.live.all:
            self._advance(topic, frame)

    def proceed(self) -> bool:
        """Go on with telling what is queued; whether there is more, for another call.

        Between two calls the caller does whatever else there is to do.
        """
        return self._fanout.proceed()

    # -- reads ------------------------------------------------------------------------------------

    def take_actions(self, max_reads: int | None = None) -> list[Action]:
        """What is to be done now, in order.

        A `Read` begins when it is handed out, so take no more than can be started at once.

        Args:
            max_reads: At most so many reads, the rest stays for later; None: no limit.
        """
        actions, self._channel_actions = self._channel_actions, []
        room = len(self._dirty) if max_reads is None else max_reads
        while self._dirty and room > 0:
            job_id = next(iter(self._dirty))
            del self._dirty[job_id]
            topic = self._topics.get(job_id)
            if topic is not None and topic.keeps and not topic.refresh:
                self._admit(topic)
            if topic is not None and topic.wants_read(self._online):
                self._ticket += 1
                actions.append(topic.begin_read(self._ticket))
                room -= 1
        return actions

    def snapshot(self, read: Read, snapshot: Snapshot) -> None:
        """The answer to a read. One that nobody waits for any more is ignored."""
        topic = self._reading(read)
        if topic is None:
            return
        arrived = topic.end_read()
        self._dirty[topic.job_id] = None
        if not snapshot.found:
            self._tell_missing(topic)
            return
        topic.learn(snapshot)
        stale = topic.stale(snapshot)
        if not stale and topic.live.at.lacks(snapshot):
            self._leave_live(topic)
        page = Page(read, snapshot, topic.over(snapshot))
        caught_up = self._serve(topic, page)
        # Who knows more than was found would, live, be told some of it again.
        ahead = not snapshot.sure and any(sub.is_past(snapshot) for sub in caught_up)
        if (stale or ahead) and topic.acked:
            self._postpone(topic)
        elif arrived is not None:
            went = self._go_live(topic, caught_up, Position.of(snapshot), arrived)
            if went and snapshot.sure and topic.live.all and self._arrivals >= self._crowd:
                self._pages[topic] = page
                topic.keep(arrived)

    def read_failed(self, read: Read) -> None:
        """The read could not be answered; whoever waits goes on waiting, see `retry_reads`."""
        topic = self._reading(read)
        if topic is not None:
            topic.end_read()
            self._postpone(topic)

    def retry_reads(self) -> None:
        """Read again where that is due, after a pause that the caller chose."""
        for job_id in self._postponed:
            self._topics[job_id].postponed = False
            self._dirty[job_id] = None
        self._postponed.clear()

    def look(self, changes: Changes) -> None:
        """Read every watched job that is behind the database, and tell its viewers."""
        for glance in changes.jobs:
            topic = self._topics.get(glance.job_id)
            if topic is not None and topic.is_behind(glance):
                self._refresh(topic)
        for deleted in changes.deleted:
            topic = self._topics.get(deleted.job_id)
            if topic is not None:
                self._refresh(topic)

    def let_go(self) -> None:
        """Read anew for those who come from now on; to be called every few seconds."""
        for topic in self._pages:
            if topic.keeps:
                topic.let_go()
        self._pages.clear()
        self._arrivals = 0

    def _admit(self, topic: Topic) -> None:
        """Tell newcomers what was read for others a moment ago, and what was published since."""
        page = self._pages[topic]
        at = Position.of(page.snapshot)
        self._go_live(topic, self._serve(topic, page), at, topic.published_since)

    def _refresh(self, topic: Topic) -> None:
        topic.refresh = True
        self._dirty[topic.job_id] = None

    # -- topics -----------------------------------------------------------------------------------

    def _open(self, job_id: str) -> Topic:
        topic = self._topics[job_id] = Topic(job_id)
        if self._online:
            self._ask(job_id)
        return topic

    def _ask(self, job_id: str) -> None:
        self._unacked[job_id] = self._unacked.get(job_id, 0) + 1
        self._channel_actions.append(Subscribe(job_id))

    def _drop(self, sub: Subscription) -> None:
        topic = sub.topic
        topic.detach(sub)
        watches.drop(sub)
        self._subscriptions -= 1
        self._viewers -= sub.viewer.watches is None
        if topic.empty:
            del self._topics[topic.job_id]
            self._fanout.forget(topic)
            self._pages.pop(topic, None)
            self._dirty.pop(topic.job_id, None)
            self._postponed.discard(topic.job_id)
            if self._online:
                self._channel_actions.append(Unsubscribe(topic.job_id))

    def _join(self, sub: Subscription, waiting: bool = True) -> None:
        topic = sub.topic
        topic.joiners[sub] = None
        sub.waiting = waiting
        sub.since = self._ticket
        self._dirty[topic.job_id] = None

    def _leave_live(self, topic: Topic, waiting: bool = True) -> None:
        """The live subscriptions of a topic may have missed something: they wait for a read."""
        if topic.keeps:
            topic.let_go()
        for sub in topic.live.leave_all():
            self._join(sub, waiting or sub.waiting)

    def _reading(self, read: Read) -> Topic | None:
        topic = self._topics.get(read.job_id)
        return topic if topic is not None and topic.read is read else None

    def _postpone(self, topic: Topic) -> None:
        if not topic.empty:
            topic.postponed = True
            self._postponed.add(topic.job_id)

    # -- telling what was read --------------------------------------------------------------------

    def _tell_missing(self, topic: Topic) -> None:
        for sub in [*topic.joiners, *topic.live.all]:
            try:
                self._deny(sub)
            except Exception:
                self._expel(sub.viewer)

    def _deny(self, sub: Subscription) -> None:
        if sub.viewer.deliver(wire.missing_frame(sub.topic.job_id, sub.ref)):
            self._drop(sub)
        else:
            self._lag(sub.viewer)

    def _serve(self, topic: Topic, page: Page) -> list[Subscription]:
        """Tell each joiner what the page holds for it; returns those who know all of it."""
        caught_up = []
        for sub in list(topic.joiners):
            try:
                if self._tell(sub, page):
                    caught_up.append(sub)
            except Exception:
                self._expel(sub.viewer)
        return caught_up

    def _tell(self, sub: Subscription, page: Page) -> bool:
        viewer, snapshot = sub.viewer, page.snapshot
        if not viewer.may_see(snapshot.job_id, snapshot.owner):
            self._deny(sub)
            return False
        start = page.place(sub)
        if start is None:
            return False
        sub.begin(snapshot.attempt, start)
        for frame in page.messages(sub, start):
            if not viewer.deliver(frame):
                self._lag(viewer)
                return False
            sub.took(frame)
            if frame.kind == wire.END:
                self._drop(sub)
                return False
        if not page.done(sub):
            return False
        sub.waiting = False
        return True

    def _go_live(
        self, topic: Topic, group: list[Subscription], at: Position, arrived: list[Frame]
    ) -> bool:
        """Tell those who know a snapshot what arrived since, and let them join the live ones.

        Returns:
            False: They cannot, a message is missing.
        """
        for frame in arrived:
            verdict = at.judge(frame)
            if verdict is Verdict.GAP:
                for sub in group:
                    sub.stand(at)
                return False
            if verdict is Verdict.NEXT:
                group = self._fanout.tell_joiners(group, at, frame)
        # Those who are live were told the same, so they stand there too.
        if not topic.live.all:
            topic.live.at = at
        for sub in group:
            del topic.joiners[sub]
        topic.live.enter(group)
        if not topic.joiners:
            topic.joiners.clear()  # An emptied dict keeps its memory.
        return True

    # -- telling what is published ----------------------------------------------------------------

    def _advance(self, topic: Topic, frame: Frame) -> None:
        """Tell the live ones a published message, now or soon."""
        verdict = topic.live.at.judge(frame)
        # Where too much is queued for them, they are told what a read brings.
        told = verdict is Verdict.NEXT and self._fanout.tell(topic, frame)
        if not told and verdict is not Verdict.OLD:
            self._leave_live(topic)

    def _lag(self, viewer: Viewer) -> None:
        """A viewer is full: park all its subscriptions where they are."""
        self._lagging.add(viewer)
        for sub in watches.watches_of(viewer):
            sub.topic.detach(sub)
            sub.topic.parked[sub] = None

    def _expel(self, viewer: Viewer) -> None:
        logger.exception("A viewer failed and was removed.")
        self.remove(viewer)
