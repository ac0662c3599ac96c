"""How far somebody has been told about a job, and what a message is to them; pure."""

from __future__ import annotations

from enum import Enum, auto

from . import wire
from .exchange import Snapshot
from .wire import Frame


class Verdict(Enum):
    """What a message is to somebody at a position."""

    OLD = auto()
    NEXT = auto()
    GAP = auto()


class Position:
    """How far somebody has been told about a job.

    Attributes:
        attempt: The attempt `n` and `seq` count in.
        n: Last entry.
        version: The view's version.
        seq: Newest progress.
    """

    __slots__ = ("attempt", "n", "seq", "version")

    def __init__(self, attempt: int = 0, n: int = 0, version: int = 0, seq: int = 0) -> None:
        self.attempt = attempt
        self.n = n
        self.version = version
        self.seq = seq

    @staticmethod
    def of(snapshot: Snapshot) -> Position:
        """Where somebody stands who has been told all of `snapshot`."""
        return Position(snapshot.attempt, snapshot.last, snapshot.version, snapshot.seq)

    def stand(self, other: Position) -> None:
        """Move to where `other` is."""
        self.attempt = other.attempt
        self.n = other.n
        self.version = other.version
        self.seq = other.seq

    def judge(self, frame: Frame) -> Verdict:
        """Whether a published message comes next, is old, or shows that one was missed."""
        if frame.attempt != self.attempt:
            if frame.attempt < self.attempt:
                return Verdict.OLD
            # The view that opens an attempt says all there is; anything later has a past.
            opens = frame.kind in wire.VIEWS and frame.n == 0 and frame.version > self.version
            return Verdict.NEXT if opens else Verdict.GAP
        if frame.kind in wire.ENTRIES:
            if frame.n <= self.n:
                return Verdict.OLD
            return Verdict.NEXT if frame.n == self.n + 1 else Verdict.GAP
        if frame.n > self.n:
            return Verdict.GAP
        if frame.kind == wire.PROGRESS:
            return Verdict.NEXT if frame.seq > self.seq else Verdict.OLD
        return Verdict.NEXT if frame.version > self.version else Verdict.OLD

    def took(self, frame: Frame) -> None:
        """Move past a frame that has been taken."""
        if frame.kind in wire.ENTRIES:
            self.n = frame.n
        elif frame.kind == wire.PROGRESS:
            self.seq = frame.seq
        elif frame.kind in wire.VIEWS:
            if frame.attempt != self.attempt:
                self.attempt, self.n = frame.attempt, frame.n
            self.version, self.seq = frame.version, frame.seq

    def lacks_view(self, snapshot: Snapshot) -> bool:
        """Whether the snapshot's view is newer."""
        return (snapshot.version, snapshot.seq) > (self.version, self.seq)

    def lacks(self, snapshot: Snapshot) -> bool:
        """Whether the snapshot knows anything newer."""
        entries = (snapshot.attempt, snapshot.last) > (self.attempt, self.n)
        return entries or self.lacks_view(snapshot)

    def is_past(self, snapshot: Snapshot) -> bool:
        """Whether more entries are known here than in the snapshot."""
        return (self.attempt, self.n) > (snapshot.attempt, snapshot.last)

    def beyond(self, snapshot: Snapshot) -> bool:
        """Whether anything is newer here than in the snapshot."""
        # A newer view with older progress would move the bar back.
        progress = self.attempt == snapshot.attempt and self.seq > snapshot.seq
        return self.is_past(snapshot) or progress or self.version > snapshot.version
