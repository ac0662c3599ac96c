"""All viewers of whom only their transports are left: those that are slow, and what all are told.

The limits of the transports' flow control are as low as can be: whoever has anything waiting is
known to be slow. So what all viewers together have waiting is the sum over these, and
viewers that keep up cost nothing here.
"""

from __future__ import annotations

import logging
from typing import Final, Protocol, TypeGuard

from livejobs.settings import Settings

from .counts import Counts
from .outage import Outage
from .wheel import Spoke, Wheel

STALLED_SECONDS: Final = 60.0
"""A peer that takes nothing for so long is given up."""
REPORT_SECONDS: Final = 60.0
"""No more often it is logged that all buffers together are too large."""

logger = logging.getLogger("livejobs.viewers")


class Member(Spoke, Protocol):
    """One viewer."""

    @property
    def waiting_bytes(self) -> int:
        """What waits for it in this process, in bytes."""
        ...

    @property
    def lags(self) -> bool:
        """Whether it is told nothing more until all that waits has been taken."""
        ...

    def wake(self) -> None:
        """Look soon whether there is anything to say that is no frame."""
        ...

    def give_up(self, at_once: bool) -> None:
        """Its peer takes too little; `at_once`: what waits for it is to be freed now."""
        ...


class _Debt:
    """What is known of a slow viewer: how much waits, and since when none of it was taken."""

    __slots__ = ("size", "taken_at")

    def __init__(self, size: int, now: float) -> None:
        self.size = size
        self.taken_at = now


class Fleet:
    """The viewers.

    Args:
        settings: How much may wait.
        wheel: Has a look at them.
        counts: Where it counts.
        outage: Tells when Redis goes away.
    """

    def __init__(
        self,
        settings: Settings,
        wheel: Wheel,
        counts: Counts,
        outage: Outage,
    ) -> None:
        self.wheel = wheel
        self._counts = counts
        self._outage = outage
        self._most_for_one = settings.viewer_buffer_bytes
        self._most = settings.buffer_bytes
        self._size = 0
        self._slow: dict[Member, _Debt] = {}
        self._is_on_wheel = False
        self._reported_at = -REPORT_SECONDS

    # -- coming and going -----------------------------------------------------------------------

    def add(self, member: Member, look_at: float) -> None:
        """A viewer came; the wheel looks at it."""
        if not self._size:
            self._outage.listen(self._wake_all)
        self._size += 1
        self.wheel.add(member, look_at)

    def discard(self, member: Member) -> None:
        """A viewer has gone."""
        self.recovered(member)
        self._size -= 1
        if not self._size:
            self._outage.forget(self._wake_all)

    def _wake_all(self) -> None:
        for spoke in self.wheel.spokes():
            if _is_member(spoke):
                spoke.wake()

    # -- those that are slow --------------------------------------------------------------------

    def fell_behind(self, member: Member) -> None:
        """Something waits for a viewer now."""
        self._slow[member] = _Debt(0, self.wheel.now)
        if not self._is_on_wheel:
            self._is_on_wheel = True
            self.wheel.add(self, self.wheel.now)
        self.note(member)
        if self._counts.buffered_bytes > self._most:
            self._make_room()

    def recovered(self, member: Member) -> None:
        """Nothing waits for it any more, or it has gone."""
        debt = self._slow.pop(member, None)
        if debt is not None:
            self._counts.buffered_bytes -= debt.size

    def note(self, member: Member) -> None:
        """More or less waits for a slow viewer than before."""
        debt = self._slow.get(member)
        if debt is not None:
            size = member.waiting_bytes
            self._counts.buffered_bytes += size - debt.size
            debt.size = size

    def has_room(self, member: Member) -> bool:
        """Whether more may wait for a slow viewer."""
        if member.waiting_bytes >= self._most_for_one:
            return False
        if self._counts.buffered_bytes < self._most:
            return True
        self._note_all()
        return self._counts.buffered_bytes < self._most

    def look(self, now: float) -> float | None:
        """Give up those whose peers take nothing; see `Spoke`."""
        for member, debt in list(self._slow.items()):
            before = debt.size
            self.note(member)
            # Who lags has to take all of it: nothing is added meanwhile.
            if debt.size < before and not member.lags:
                debt.taken_at = now
            elif now - debt.taken_at >= STALLED_SECONDS:
                self._counts.stalled += 1
                self.recovered(member)
                member.give_up(at_once=False)
        self._is_on_wheel = bool(self._slow)
        return now if self._slow else None  # That is, at the next turn.

    def _note_all(self) -> None:
        for member in self._slow:
            self.note(member)

    def _make_room(self) -> None:
        """Close those for whom most waits, until all together have no more than they may."""
        self._note_all()
        by_size = sorted(self._slow, key=lambda it: self._slow[it].size)
        closed = 0
        while self._counts.buffered_bytes > self._most and by_size:
            member = by_size.pop()
            self.recovered(member)
            member.give_up(at_once=True)
            closed += 1
        self._counts.crowded_out += closed
        if closed and self.wheel.now - self._reported_at >= REPORT_SECONDS:
            self._reported_at = self.wheel.now
            logger.warning(
                "more than %d bytes wait for all viewers together: those for whom most waits are "
                "closed; see LIVEJOBS_BUFFER_BYTES",
                self._most,
            )


def _is_member(spoke: Spoke) -> TypeGuard[Member]:
    """Whether a spoke of the wheel is a viewer."""
    return not isinstance(spoke, Fleet)
