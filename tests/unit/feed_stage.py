"""What the tests of the feeds have in common: followers that write down, and feeds at work."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from livejobs.entries import deletion_messages, owner_channel
from livejobs_server.push.exchange import Snapshot
from livejobs_server.push.feed_exchange import (
    Changes,
    Deleted,
    FeedAction,
    Glance,
    Leave,
    Listen,
    Listing,
    ListJobs,
    ReadJobs,
)
from livejobs_server.push.feeds import Feeds
from livejobs_server.push.scope import Scope
from livejobs_server.push.wire import Frame

MINE = Scope("mine", "me")
TAGGED = Scope("tag:k=v", "me", ("k", "v"))
SECOND = 1_000_000
"""In the microseconds that reads count in."""


class Follower:
    """A viewer that keeps what it is told.

    Attributes:
        owner: Whose jobs it may see; None: anybody's.
        frames: Everything taken.
        room: Frames it still takes; None: any number.
        hidden: Jobs it may not see.
        caught_up: Feeds that have told all they begin with.
        broken: Fails at the next frame.
    """

    def __init__(self, owner: str | None = "me") -> None:
        self.owner = owner
        self.frames: list[Frame] = []
        self.room: int | None = None
        self.hidden: set[str] = set()
        self.caught_up: list[str] = []
        self.broken = False

    def deliver_in(self, feed: str, frame: Frame) -> bool:
        if self.broken:
            raise ConnectionResetError("gone")
        if self.room == 0:
            return False
        if self.room is not None:
            self.room -= 1
        self.frames.append(frame)
        return True

    def may_see_in(self, feed: str, job_id: str, owner: str) -> bool:
        return self.owner in (None, owner) and job_id not in self.hidden

    def has_caught_up(self, feed: str) -> None:
        self.caught_up.append(feed)

    def told(self) -> list[str]:
        """What came since the last call, in short."""
        told = [short(frame) for frame in self.frames]
        self.frames.clear()
        return told


def short(frame: Frame) -> str:
    """A frame in a few words."""
    if frame.kind == "subscribed":
        message = json.loads(frame.payload)
        lost = "" if message["recovered"] else ", not all"
        return f"subscribed {message['since'][11:19]}{lost}"
    if frame.kind in {"job", "final"}:
        return f"{frame.kind} {frame.job_id} v{frame.version} s{frame.seq}"
    if frame.kind == "progress":
        return f"progress {frame.job_id} s{frame.seq}"
    return f"{frame.kind} {frame.job_id}".strip()


def view_json(job_id: str, tags: dict[str, str] | None = None) -> bytes:
    """A view, as far as feeds look into it."""
    return json.dumps({"job_id": job_id, "owner": "me", "tags": tags or {}}).encode()


def published(
    kind: str,
    job_id: str,
    *,
    attempt: int = 1,
    n: int = 0,
    version: int = 0,
    seq: int = 0,
    tags: dict[str, str] | None = None,
) -> bytes:
    """What is published for feeds."""
    head = f"1 {attempt} {n} {version} {seq} {kind}\n{json.dumps(job_id)}\n".encode()
    return head + b'{"type":"job","job":%b}' % view_json(job_id, tags)


def glance(job_id: str, version: int = 1, **known: Any) -> Glance:
    """A row."""
    fields: dict[str, Any] = {
        "owner": "me", "parent_id": None, "final": False, "attempt": 1, "seq": 0, "last": 0,
        "shape": 0, "changed": version * SECOND,
    }  # fmt: skip
    return Glance(job_id=job_id, version=version, **(fields | known))


class Stage:
    """Feeds, short words for what happens to them, and a clock that stands until it is moved."""

    def __init__(self, online: bool = True) -> None:
        self.feeds = Feeds()
        self.now = 100.0
        if online:
            self.feeds.connected()

    def subscribe(self, follower: Follower, scope: Scope = MINE, **options: Any) -> None:
        self.feeds.subscribe(follower, scope, **options)

    def tick(self, seconds: float = 0.0) -> None:
        """Let time pass, and what is due be told."""
        self.now += seconds
        self.feeds.tick(self.now)

    def hear(self, kind: str, job_id: str = "a", **numbers: Any) -> None:
        """A message arrives, and what is due is told."""
        self.feeds.published(owner_channel("me"), published(kind, job_id, **numbers))
        self.tick()

    def hear_deleted(self, job_id: str) -> None:
        messages = dict(deletion_messages(job_id, "me", None))
        self.feeds.published(owner_channel("me"), messages[owner_channel("me")])
        self.tick()

    def ack(self, scope: Scope = MINE) -> None:
        self.feeds.subscribed(scope.channel)

    def actions(self) -> list[FeedAction]:
        return self.feeds.take_actions()

    def channels(self) -> list[str]:
        """Channel actions, as +channel and -channel."""
        signs = {Listen: "+", Leave: "-"}
        return [
            f"{signs[type(action)]}{action.channel}"
            for action in self.actions()
            if isinstance(action, Listen | Leave)
        ]

    def listing(self) -> ListJobs:
        """The one listing that is wanted now."""
        (found,) = [action for action in self.actions() if isinstance(action, ListJobs)]
        return found

    def reads(self) -> list[ReadJobs]:
        """The reads of rows that are wanted now."""
        return [action for action in self.actions() if isinstance(action, ReadJobs)]

    def list(self, read: ListJobs, *jobs: Glance, at: float = 0, **more: Any) -> None:
        """Answer a listing."""
        self.feeds.listed(read, Listing(int(at * SECOND), jobs, **more))
        self.tick()

    def answer(self, *rows: Snapshot) -> tuple[str, ...]:
        """Answer the one read of rows that is wanted; the jobs that were asked for."""
        (read,) = self.reads()
        found = {row.job_id: row for row in rows}
        self.feeds.read(read, found)
        self.tick()
        return read.job_ids

    def look(self, *jobs: Glance, deleted: Sequence[str] = ()) -> None:
        """A round."""
        gone = [Deleted(job_id, "me", None) for job_id in deleted]
        self.feeds.look(Changes(0, jobs, gone))
        self.tick()

    def follow(self, *followers: Follower, scope: Scope = MINE) -> None:
        """Bring followers to where they follow a feed without jobs, and forget what they heard."""
        for follower in followers:
            self.subscribe(follower, scope)
        self.ack(scope)
        self.list(self.listing())
        for follower in followers:
            follower.told()
            follower.caught_up.clear()


def row(job_id: str = "a", version: int = 1, seq: int = 0, **known: Any) -> Snapshot:
    """What a read finds."""
    fields: dict[str, Any] = {"owner": "me", "attempt": 1, "view": view_json(job_id)}
    return Snapshot(job_id=job_id, version=version, seq=seq, **(fields | known))
