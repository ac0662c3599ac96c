"""How WebSockets are closed: the codes of the protocol, and words for people."""

from __future__ import annotations

from typing import Final, NamedTuple


class Close(NamedTuple):
    """How a connection is closed; the reason has at most 123 bytes."""

    code: int
    reason: str


DONE: Final = Close(1000, "the job is over")
UNWATCHED: Final = Close(1000, "unsubscribed")
BROKEN: Final = Close(1011, "something went wrong here")
RESTART: Final = Close(1012, "the server restarts")
LATER: Final = Close(1013, "the credentials cannot be checked now")
INVALID: Final = Close(4400, "the request cannot be served")
NO_CREDENTIALS: Final = Close(4401, "no credentials, or they are not valid any more")
UNKNOWN: Final = Close(4404, "no such job, or not yours")
STALLED: Final = Close(4408, "not drained for too long")
BUSY: Final = Close(4429, "too many requests")


class Closing(Exception):
    """The connection is to be closed.

    Attributes:
        close: How.
    """

    def __init__(self, close: Close) -> None:
        self.close = close
        super().__init__(close.reason)
