"""The live viewers of one job, and what is queued for them; pure.

A message for very many is not told to all of them at once. It is queued then, and has a number;
each of the live ones knows the last number that it has been told. They are gone through from the
last to the first, again and again while anybody is behind. So whoever is taken out may be replaced
by the last one, who has had its turn, and whoever joins stands behind all others.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Generic, TypeVar

from .position import Position
from .wire import Frame

QUEUED_FRAMES: Final = 1000
"""Messages of one job that wait until all its viewers have been told them …"""
QUEUED_BYTES: Final = 1024 * 1024
"""… and their size, at most."""


class Listener(Position):
    """Somebody who is or was live; the position counts while it is not.

    Attributes:
        place: Its place among the live ones; negative: it is none of them.
        told: Number of the last queued message that it has been told, while it is live.
        waiting: It has not been told all there is.
    """

    __slots__ = ("place", "told", "waiting")

    def __init__(self, attempt: int = 0, n: int = 0, version: int = 0, seq: int = 0) -> None:
        super().__init__(attempt, n, version, seq)
        self.place = -1
        self.told = 0
        self.waiting = True


L = TypeVar("L", bound=Listener)


class Live(Generic[L]):
    """The live ones.

    Attributes:
        all: They themselves, in no order that matters.
        at: Where they are, once they have been told what is queued.
        queue: Messages that not all of them have been told.
        number: Of the last message that was ever queued.
        turn: Those before this place have not had their turn.
    """

    __slots__ = ("_base", "_bytes", "_goal", "all", "at", "number", "queue", "turn")

    def __init__(self) -> None:
        self.all: list[L] = []
        self.at = Position()
        self.queue: list[Frame] = []
        self.number = 0
        self.turn = 0
        # Where those stand who have been told nothing that is queued; what this pass is to reach.
        self._base = self.at
        self._goal = 0
        self._bytes = 0

    def enter(self, subs: Iterable[L]) -> None:
        """Add some, who stand at `at`."""
        for sub in subs:
            sub.place, sub.told = len(self.all), self.number
            self.all.append(sub)

    def leave(self, sub: L) -> None:
        """Take one out; it stands where it has been told to."""
        sub.stand(self.position(sub))
        last = self.all.pop()
        if last is not sub:
            self.all[sub.place] = last
            last.place = sub.place
        sub.place = -1
        if not self.all:
            self._empty_queue()

    def leave_all(self) -> list[L]:
        """Take all out, each where it has been told to; who is behind waits to be told more."""
        everybody, self.all = self.all, []
        places = {0: self.at}
        for sub in everybody:
            behind = self.number - sub.told
            if behind not in places:
                places[behind] = self.position(sub)
            sub.stand(places[behind])
            sub.place = -1
            sub.waiting = behind > 0
        self._empty_queue()
        return everybody

    def position(self, sub: L) -> Position:
        """Where one of them stands."""
        missed = self.missed(sub)
        if not missed:
            return self.at
        position = Position()
        position.stand(self._base)
        for frame in self.queue[: -len(missed)]:
            position.took(frame)
        return position

    # -- what is queued ---------------------------------------------------------------------------

    def add(self, frame: Frame) -> bool:
        """Queue a message, and move `at` past it; False: too much is queued, it was not."""
        if not self.queue:
            self._base = Position()
            self._base.stand(self.at)
            self.turn, self._goal = len(self.all), self.number + 1
        if len(self.queue) >= QUEUED_FRAMES or self._bytes > QUEUED_BYTES:
            return False
        self.queue.append(frame)
        self._bytes += frame.size
        self.number += 1
        self.at.took(frame)
        return True

    def missed(self, sub: L) -> list[Frame]:
        """What one of them has not been told yet."""
        behind = self.number - sub.told
        return self.queue[-behind:] if behind else []

    def end_pass(self) -> None:
        """All have had their turn: let go what all have been told, and begin again if need be."""
        told = len(self.queue) - (self.number - self._goal)
        for frame in self.queue[:told]:
            self._base.took(frame)
            self._bytes -= frame.size
        del self.queue[:told]
        self.turn, self._goal = len(self.all), self.number

    def _empty_queue(self) -> None:
        self.queue, self._bytes = [], 0
