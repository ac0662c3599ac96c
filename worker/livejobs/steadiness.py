"""Whether a keeper has seen the database long enough without a break to judge leases; pure.

When a database comes back after a while, or a machine wakes up, the leases of workers that are well
have run out too, because nobody could renew them. A keeper that has not seen the database all along
cannot tell these from the lost ones.
"""

from __future__ import annotations

import time


def now() -> float:
    """Seconds that also pass while the machine sleeps; only differences mean something."""
    if hasattr(time, "clock_gettime"):
        # On Linux the monotonic clock stands still in sleep, elsewhere it does not.
        return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
    return time.monotonic()


class Steadiness:
    """Counts how long the database has answered without a break.

    Args:
        lease: How long a worker's lease is, in seconds.
    """

    def __init__(self, lease: float) -> None:
        self._lease = lease
        # Workers renew when a third of the lease is over, so none loses it by a break this short.
        self._longest_break = lease / 2
        self._since: float | None = None
        self._last = 0.0

    def good(self, moment: float) -> None:
        """The database has answered just now."""
        if self._since is None or moment - self._last > self._longest_break:
            self._since = moment
        self._last = moment

    def broken(self) -> None:
        """The database has not answered."""
        self._since = None

    @property
    def may_judge(self) -> bool:
        """Whether a whole lease has passed between the first good moment and the last."""
        return self._since is not None and self._last - self._since >= self._lease
