"""What the tests of the hub have in common: viewers that write down, and a hub at work."""

from __future__ import annotations

import json
from typing import Any

from livejobs.entries import Cursor
from livejobs_server.push.feed_exchange import Changes, Glance
from livejobs_server.push.hub import (
    Action,
    EntriesWanted,
    Entry,
    Hub,
    Read,
    Snapshot,
    Subscribe,
    Unsubscribe,
)
from livejobs_server.push.wire import Frame

JOB = "j1"


class Recorder:
    """A viewer that keeps what it is told.

    Attributes:
        frames: Everything taken.
        room: Frames it still takes; None: any number.
        owner: Whose jobs it may see.
        broken: Fails at the next frame.
        watches: The hub's.
    """

    def __init__(self, owner: str = "me") -> None:
        self.watches: Any = None
        self.frames: list[Frame] = []
        self.room: int | None = None
        self.owner = owner
        self.broken = False

    def deliver(self, frame: Frame) -> bool:
        if self.broken:
            raise ConnectionResetError("gone")
        if self.room == 0:
            return False
        if self.room is not None:
            self.room -= 1
        self.frames.append(frame)
        return True

    def may_see(self, job_id: str, owner: str) -> bool:
        return owner == self.owner

    def told(self) -> list[str]:
        """What came since the last call, in short."""
        told = [short(frame) for frame in self.frames]
        self.frames.clear()
        return told


def short(frame: Frame) -> str:
    """A frame in a few words: kind, cursor, version and seq."""
    if frame.kind == "subscribed":
        return "subscribed" if json.loads(frame.payload)["recovered"] else "subscribed, lost"
    if frame.kind in {"job", "final"}:
        return f"{frame.kind} {frame.cursor} v{frame.version} s{frame.seq}"
    if frame.kind == "progress":
        return f"progress {frame.cursor} s{frame.seq}"
    return f"{frame.kind} {frame.cursor}" if frame.cursor else frame.kind


def entry(n: int, attempt: int = 1) -> Entry:
    """A stored log entry."""
    payload = {"type": "log", "id": f"{attempt}-{n}", "job_id": JOB, "lines": []}
    return Entry(n, json.dumps(payload).encode(), "log")


def entries(*numbers: int, attempt: int = 1) -> list[Entry]:
    """Stored log entries."""
    return [entry(n, attempt) for n in numbers]


def published(kind: str, attempt: int = 1, n: int = 0, version: int = 0, seq: int = 0) -> bytes:
    """What a worker publishes on the job's channel."""
    head = f"1 {attempt} {n} {version} {seq} {kind}\n"
    return head.encode() + json.dumps({"type": kind, "id": f"{attempt}-{n}"}).encode()


class Stage:
    """A hub, and short words for what happens to it."""

    def __init__(self, online: bool = True) -> None:
        self.hub = Hub()
        if online:
            self.hub.connected()

    def subscribe(
        self,
        viewer: Recorder,
        after: str | None = None,
        wanted: EntriesWanted = "all",
        *,
        have: tuple[int, int] = (0, 0),
        job_id: str = JOB,
    ) -> None:
        cursor = None if after is None else Cursor.parse(after)
        self.hub.subscribe(viewer, job_id, cursor, wanted, *have)

    def hear(self, kind: str, **numbers: int) -> None:
        self.hub.published(JOB, published(kind, **numbers))

    def actions(self) -> list[Action]:
        return self.hub.take_actions()

    def ack(self, job_id: str = JOB) -> None:
        self.hub.subscribed(job_id)

    def read(self) -> Read:
        """The one read that is wanted now."""
        (read,) = self.reads()
        return read

    def reads(self) -> list[Read]:
        return [action for action in self.actions() if isinstance(action, Read)]

    def channels(self) -> list[str]:
        """Channel actions, as +job and -job."""
        signs = {Subscribe: "+", Unsubscribe: "-"}
        return [
            f"{signs[type(action)]}{action.job_id}"
            for action in self.actions()
            if not isinstance(action, Read)
        ]

    def look(
        self, version: int = 1, seq: int = 0, last: int = 0, attempt: int = 1, shape: int = 0
    ) -> None:
        """A round finds the job's row changed."""
        self.hub.look(
            Changes(
                at=0,
                jobs=[
                    Glance(
                        job_id=JOB,
                        owner="me",
                        parent_id=None,
                        final=False,
                        attempt=attempt,
                        version=version,
                        seq=seq,
                        last=last,
                        shape=shape,
                        changed=0,
                    )
                ],
            )
        )

    def answer(
        self,
        read: Read,
        version: int = 1,
        seq: int = 0,
        *,
        attempt: int = 1,
        numbers: tuple[int, ...] = (),
        last: int | None = None,
        shape: int = 0,
        **more: bool,
    ) -> None:
        """Answer a read with the entries of these numbers."""
        if last is None:
            last = numbers[-1] if numbers else 0
        self.hub.snapshot(
            read,
            Snapshot(
                job_id=read.job_id,
                owner="me",
                attempt=attempt,
                version=version,
                seq=seq,
                view=b'{"version":%d}' % version,
                entries=entries(*numbers, attempt=attempt),
                last=last,
                shape=shape,
                **more,
            ),
        )

    def live(self, *viewers: Recorder, version: int = 1, seq: int = 0, last: int = 0) -> None:
        """Bring viewers to where they are live, and forget what they were told."""
        for viewer in viewers:
            self.subscribe(viewer, f"1-{last}")
        actions = self.actions()
        if any(isinstance(action, Subscribe) for action in actions):
            self.ack()
            actions = self.actions()
        (read,) = (action for action in actions if isinstance(action, Read))
        self.answer(read, version, seq, last=last)
        for viewer in viewers:
            viewer.told()
