"""One viewer, whatever its transport: what it watches, what it may see, and why it ends."""

from __future__ import annotations

import contextlib
import time
from enum import Enum, auto
from typing import Any, Final

from ..services import Services
from ..snapshots import can_exist
from ..viewer import Viewer
from .closes import Close
from .scope import ForbiddenFeed, Scope, scope_of
from .subscriptions import (
    MAX_SUBSCRIPTIONS,
    TOO_MANY_SUBSCRIPTIONS,
    Refusal,
    Wanted,
    WantedFeed,
    forbidden_feed,
    read_scope,
)
from .watches import count, find, watches_of
from .wire import MISSING, PROGRESS, VIEWS, Frame, missing_frame

_TOO_MANY: Final = Refusal(
    TOO_MANY_SUBSCRIPTIONS,
    f"One connection watches at most {MAX_SUBSCRIPTIONS} jobs and feeds: open another one.",
)
_STATES: Final = VIEWS | {PROGRESS}


class Ending(Enum):
    """Why a connection ends, as far as every transport knows such ends."""

    OVER = auto()
    """Everything it watched has ended."""
    EXPIRED = auto()
    """Its credentials are no longer good."""
    LEAVING = auto()
    """The server goes away."""
    STALLED = auto()
    """Its peer takes nothing."""
    GONE = auto()
    """Its peer left."""


class _Following:
    """The feeds of one viewer, and those whose beginning has not been told yet."""

    __slots__ = ("scopes", "unsettled")

    def __init__(self) -> None:
        self.scopes: dict[str, Scope] = {}
        self.unsettled: set[str] = set()


class Watcher:
    """A viewer of the hub and of the feeds, until `close`. Subclasses bring to it what it is told.

    There may be very many, so it keeps no more than it has to: what it watches, and how far it has
    been told, the hub knows.

    Attributes:
        viewer: Who it is; None: not authenticated yet, and sees nothing.
        ending: Why it ends; None: it goes on.
        watches: The hub's own.
        job_id: The only job it may watch, where it ends with that; None: any number of jobs.
    """

    __slots__ = (
        "_following", "_outcome", "_server", "_told_outage", "ending", "job_id", "viewer",
        "watches",
    )  # fmt: skip

    def __init__(
        self, services: Services, viewer: Viewer | None, job_id: str | None = None
    ) -> None:
        self.viewer = viewer
        self.job_id = job_id
        self.ending: Ending | None = None
        self.watches: Any = None
        self._server = services
        self._following: _Following | None = None
        self._told_outage = False
        # How a WebSocket is to be closed, as far as that is known.
        self._outcome: Close | None = None

    # -- for subclasses -------------------------------------------------------------------------

    def deliver(self, frame: Frame) -> bool:
        """Take a frame for the peer; False: full. One that has ended takes and drops."""
        raise TypeError(type(self))

    async def put(self, frame: Frame) -> None:
        """Take a frame, waiting for room; only one caller may wait at a time."""
        raise TypeError(type(self))

    def wake(self) -> None:
        """Have it looked at whether there is anything to say that is no frame, or nothing more."""
        raise TypeError(type(self))

    def has_drained(self) -> bool:
        """Whether a frame was refused and there is room again; true once for each refusal."""
        raise TypeError(type(self))

    def _end(self) -> None:
        """Take nothing more, and end as `ending` says."""
        raise TypeError(type(self))

    @property
    def is_empty(self) -> bool:
        """Whether all that was taken is on its way."""
        raise TypeError(type(self))

    # -- the hub's side -------------------------------------------------------------------------

    def may_see(self, job_id: str, owner: str) -> bool:
        """Whether its viewer may watch a job."""
        return self.viewer is not None and self.viewer.may_see(job_id, owner)

    def deliver_in(self, feed: str, frame: Frame) -> bool:
        """Take a frame of a feed for the peer; False: full."""
        # Its own watch on the job brings it too, and in order; the cursor of this one would make
        # a client that comes back miss the entries before it.
        if frame.kind in _STATES and self._server.hub.is_ahead(self, frame):
            return True
        if not self.deliver(frame):
            return False
        if frame.kind == MISSING:
            self._forget_feed(feed)
        return True

    def may_see_in(self, feed: str, job_id: str, owner: str) -> bool:
        """Whether its viewer may be shown a job in a feed."""
        return self.viewer is not None and self.viewer.may_see_in(feed, job_id, owner)

    def has_caught_up(self, feed: str) -> None:
        """It has been told all that a feed began with."""
        if self._following is not None:
            self._following.unsettled.discard(feed)
        self.wake()

    # -- the transport's side -------------------------------------------------------------------

    @property
    def watching(self) -> int:
        """Jobs watched and not over, and feeds."""
        return count(self) + len(self.followed)

    @property
    def followed(self) -> list[str]:
        """Feeds followed."""
        return [] if self._following is None else list(self._following.scopes)

    @property
    def answered(self) -> bool:
        """Whether every subscription has had its answer, a feed's all that it begins with."""
        if self._following is not None and self._following.unsettled:
            return False
        return all(sub.greeted for sub in watches_of(self))

    @property
    def has_told_all(self) -> bool:
        """Whether everything watched is over, and all of it is on its way."""
        return self.watches is None and not self.followed and self.is_empty

    def subscribe(self, wanted: Wanted | WantedFeed) -> Frame | None:
        """Watch a job or follow a feed; see `watch`.

        Raises:
            Refusal: There is no such feed, or it is not the viewer's.
        """
        return self.watch(wanted) if isinstance(wanted, Wanted) else self.follow(wanted)

    def watch(self, wanted: Wanted) -> Frame | None:
        """Subscribe to a job; a subscription it has to the same job is replaced.

        Returns:
            The answer to send where it cannot be watched; None: the hub answers.
        """
        if not can_exist(wanted.job_id):
            return missing_frame(wanted.job_id, wanted.ref)
        if self.watching >= MAX_SUBSCRIPTIONS and find(self, wanted.job_id) is None:
            return _TOO_MANY.frame(wanted.job_id, ref=wanted.ref)
        self._server.hub.subscribe(
            self,
            wanted.job_id,
            wanted.after,
            wanted.entries,
            wanted.version,
            wanted.seq,
            wanted.ref,
        )
        self._server.relay.kick()
        return None

    def unwatch(self, job_id: str) -> None:
        """End a subscription; nothing happens if there is none."""
        self._server.hub.unsubscribe(self, job_id)
        self._server.relay.kick()

    def follow(self, wanted: WantedFeed) -> Frame | None:
        """Subscribe to a feed; a subscription it has to the same feed is replaced.

        Returns:
            The answer to send where it cannot be followed; None: the feeds answer.

        Raises:
            Refusal: There is no such feed, or it is not the viewer's.
        """
        assert self.viewer is not None
        scope = read_scope(wanted.feed, self.viewer)
        following = self._following or _Following()
        if self.watching >= MAX_SUBSCRIPTIONS and wanted.feed not in following.scopes:
            raise _TOO_MANY
        self._following = following
        following.scopes[wanted.feed] = scope
        following.unsettled.add(wanted.feed)
        self._server.feeds.subscribe(
            self, scope, wanted.since, wants_open=wanted.wants_open, ref=wanted.ref
        )
        self._server.relay.kick()
        return None

    def unfollow(self, feed: str) -> None:
        """End a subscription to a feed; nothing happens if there is none."""
        self._forget_feed(feed)
        self._server.feeds.unsubscribe(self, feed)
        self._server.relay.kick()

    def unread_since(self, feed: str) -> int | None:
        """The oldest change that a feed begins with and that has not been told; None: all has."""
        return self._server.feeds.unread_since(self, feed)

    def recognise(self, viewer: Viewer) -> None:
        """It is known whose connection this is.

        Raises:
            Refused: Of that owner there are enough.
        """
        self._server.gate.recognise(self, viewer.owner)

    def become(self, viewer: Viewer) -> list[Frame]:
        """Take new credentials; returns what tells of that which these may not see, now left."""
        self.viewer = viewer
        hidden = [
            sub.topic.job_id
            for sub in watches_of(self)
            # One that has not been answered yet is looked at then.
            if sub.greeted and not viewer.may_see(sub.topic.job_id, sub.topic.owner or "")
        ]
        for job_id in hidden:
            self.unwatch(job_id)
        return [*map(missing_frame, hidden), *self._leave_forbidden(viewer)]

    def _leave_forbidden(self, viewer: Viewer) -> list[Frame]:
        """Leave the feeds that mean something else to a viewer, or nothing."""
        if self._following is None:
            return []
        frames = []
        for feed, scope in list(self._following.scopes.items()):
            with contextlib.suppress(ForbiddenFeed):
                if scope_of(feed, viewer) == scope:
                    continue
            self.unfollow(feed)
            frames.append(forbidden_feed().frame(feed=feed))
        return frames

    def outage_news(self) -> bool | None:
        """Whether updates come from the database for now, if the peer has not been told; None."""
        lasts = self._server.relay.outage.lasts
        if self._told_outage == lasts or self.viewer is None:
            return None
        self._told_outage = lasts
        return lasts

    def resume_if_drained(self) -> None:
        """Let the hub go on where a frame was refused, if there is room again."""
        if self.has_drained():
            self._server.hub.resume(self)
            self._server.feeds.resume(self)
            self._server.relay.kick()

    def seconds_left(self) -> float:
        """How long the credentials are still good."""
        if self.viewer is None or self.viewer.expires_at is None:
            return float("inf")
        return self.viewer.expires_at - time.time()

    def end(self, ending: Ending) -> None:
        """End it, for the first reason given."""
        if self.ending is None:
            self.ending = ending
            self._end()

    # -- the server goes away -------------------------------------------------------------------

    def warn(self) -> None:
        """Tell the peer when to move to another server; it is served until `leave`."""
        if self.viewer is not None:
            # A full one is told at its end.
            self.deliver(self._server.departure.drain())

    def leave(self) -> None:
        """End it, for that reason."""
        self.end(Ending.LEAVING)

    # -- its end --------------------------------------------------------------------------------

    def close(self) -> None:
        """Forget everything about it."""
        self.end(Ending.GONE)
        self._server.departure.forget(self)
        self._server.gate.leave(self)
        self._server.hub.remove(self)
        if self._following is not None:
            self._server.feeds.remove(self)
        self._server.relay.kick()

    def go_on_from(self, other: Watcher) -> None:
        """Take the place of another one, which is then nobody."""
        self.viewer = other.viewer
        self._told_outage = other._told_outage
        self._following, other._following = other._following, None
        self._server.gate.move(other, self)
        self._server.hub.move(other, self)
        if self._following is not None:
            self._server.feeds.move(other, self)

    def _forget_feed(self, feed: str) -> None:
        if self._following is not None:
            self._following.scopes.pop(feed, None)
            self._following.unsettled.discard(feed)
