"""How much a peer may ask for: a bucket of requests that fills again with time."""

from __future__ import annotations

import time
from collections.abc import Callable


class Allowance:
    """A token bucket.

    Args:
        at_once: Requests that may come at once.
        per_second: How fast the allowance grows again, up to `at_once`.
        clock: Seconds, from anywhere.
    """

    __slots__ = ("_at", "_at_once", "_clock", "_left", "_per_second")

    def __init__(
        self, at_once: float, per_second: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._at_once = at_once
        self._per_second = per_second
        self._clock = clock
        self._left = at_once
        self._at = clock()

    @property
    def is_full(self) -> bool:
        """Whether all that was taken has grown again."""
        self._grow()
        return self._left >= self._at_once

    def take(self) -> bool:
        """Take one request; False: there is none left for now."""
        self._grow()
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def _grow(self) -> None:
        now = self._clock()
        self._left = min(self._at_once, self._left + (now - self._at) * self._per_second)
        self._at = now
