"""How near this process is to its limit of open files: a connection is one of them.

At the limit nothing can be opened any more, no connection to the database either. So viewers are
refused while there is still room for the server's own, and at the very end any connection is.
"""

from __future__ import annotations

import contextlib
import logging
import os
from typing import Final

try:
    import resource
except ImportError:  # Windows has no such limit.
    resource = None  # type: ignore[assignment]

RESERVE: Final = 256
"""Files that are kept free of viewers, unless the settings say otherwise."""
NO_LIMIT: Final = 1 << 62

logger = logging.getLogger("livejobs.server")


class OpenFiles:
    """The limit of a process, and how near it is.

    A new descriptor has the lowest number that is free, so its number tells how many are open.

    Attributes:
        limit: Most open files.
        for_viewers: From this number of open files on, viewers are refused.
        for_anybody: From this one on, every connection is.
        turned_away: Connections refused unheard, in all.
    """

    def __init__(self) -> None:
        self.limit = NO_LIMIT
        self.for_viewers = NO_LIMIT
        self.for_anybody = NO_LIMIT
        self.turned_away = 0
        self._is_scarce = False

    def keep(self, reserve: int = RESERVE) -> None:
        """Keep so many free of viewers; at most half of all."""
        self.limit = _limit()
        reserve = min(reserve, self.limit // 2)
        self.for_viewers = self.limit - reserve
        self.for_anybody = self.limit - reserve // 2

    def are_scarce(self) -> bool:
        """Whether another viewer is too many; logged when that changes."""
        scarce = lowest_free() >= self.for_viewers
        if scarce != self._is_scarce:
            self._is_scarce = scarce
            if scarce:
                logger.warning(
                    "new viewers are refused: of %d files that this process may have open, %d are "
                    "(raise the limit, or add processes by --workers)",
                    self.limit,
                    self.for_viewers,
                )
            else:
                logger.warning("new viewers are let in again")
        return scarce

    def turn_away(self, descriptor: int) -> bool:
        """Whether a connection that was just made has to go at once; it is counted."""
        if descriptor < self.for_anybody:
            return False
        self.turned_away += 1
        return True


def lowest_free() -> int:
    """The lowest number that no open file has; at the limit, one that no file can have."""
    with contextlib.suppress(OSError):
        descriptor = os.open(os.devnull, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        os.close(descriptor)
        return descriptor
    return NO_LIMIT


def _limit() -> int:
    if resource is None:
        return NO_LIMIT
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return NO_LIMIT if soft == resource.RLIM_INFINITY else soft


open_files: Final = OpenFiles()
"""Those of this process."""
