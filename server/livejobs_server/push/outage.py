"""Whether live updates come from the database for now, and whom to tell when that changes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

ALL_CLEAR_SECONDS: Final = 60.0
"""So long after an outage, those who only ask now and then are told that it is over."""


class Outage:
    """The state of a server's own connection to Redis, as viewers are told of it.

    Attributes:
        lasts: Live updates come from the database for now.
    """

    def __init__(self) -> None:
        self.lasts = False
        self._ended_at: float | None = None
        self._listeners: dict[Callable[[], None], None] = {}

    @property
    def ended_lately(self) -> bool:
        """Whether there was an outage a short time ago."""
        ended = self._ended_at
        return ended is not None and time.monotonic() - ended < ALL_CLEAR_SECONDS

    def listen(self, changed: Callable[[], None]) -> None:
        """Call `changed` whenever an outage begins or ends."""
        self._listeners[changed] = None

    def forget(self, changed: Callable[[], None]) -> None:
        """Do not call `changed` any more."""
        self._listeners.pop(changed, None)

    def begin(self) -> None:
        """Redis is away."""
        self._change(True)

    def end(self) -> None:
        """Redis is back."""
        if self.lasts:
            self._ended_at = time.monotonic()
        self._change(False)

    def _change(self, lasts: bool) -> None:
        if self.lasts == lasts:
            return
        self.lasts = lasts
        for changed in list(self._listeners):
            changed()
