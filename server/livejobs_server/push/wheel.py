"""One timer for all viewers: a timer for each would cost more memory than the viewer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncIterator, Callable
from typing import Final, Protocol

TURN_SECONDS: Final = 1.0

logger = logging.getLogger("livejobs.wheel")


class Spoke(Protocol):
    """Something that wants to be looked at now and then."""

    def look(self, now: float) -> float | None:
        """Do what is due.

        Args:
            now: Seconds, by the wheel's clock.

        Returns:
            When to be looked at next, by the same clock; None: never again.
        """
        ...


class Wheel:
    """Looks at its spokes when they want it, a second late at most.

    Args:
        clock: Seconds, from anywhere, never going back.

    Attributes:
        now: The clock's time at the last turn: cheap to read, good to a second.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.now = clock()
        # By the turn in which they are due. A spoke that is done stays until then.
        self._due: dict[int, list[Spoke]] = {}

    def add(self, spoke: Spoke, at: float) -> None:
        """Look at a spoke at a time, for the first time."""
        self._due.setdefault(math.ceil(at / TURN_SECONDS), []).append(spoke)

    def spokes(self) -> list[Spoke]:
        """All that are to be looked at some time."""
        return [spoke for due in self._due.values() for spoke in due]

    def turn(self) -> None:
        """Look at all that are due."""
        self.now = now = self._clock()
        # As many turns as have passed: an event loop may have been held up.
        for turn in sorted(turn for turn in self._due if turn * TURN_SECONDS <= now):
            for spoke in self._due.pop(turn):
                try:
                    again = spoke.look(now)
                except Exception:
                    logger.exception("A viewer could not be looked after and is left alone.")
                    continue
                if again is not None:
                    # Never in a turn that has been.
                    self.add(spoke, max(again, now + 1e-3))

    @contextlib.asynccontextmanager
    async def turning(self) -> AsyncIterator[None]:
        """Turn until the end of the block."""
        task = asyncio.create_task(self._turn_on(), name="livejobs-wheel")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _turn_on(self) -> None:
        while True:
            await asyncio.sleep(TURN_SECONDS)
            self.turn()
