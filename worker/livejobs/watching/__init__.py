"""Watch jobs from Python: `async for message in watch(job_id)`, `await wait(job_id)`."""

from __future__ import annotations

from .picture import Picture
from .policy import Bookmark, Reconnection, Transport
from .transports import Timing, Unauthenticated, WatchRefused
from .viewer import ConnectionEvent, wait, watch

__all__ = [
    "Bookmark",
    "ConnectionEvent",
    "Picture",
    "Reconnection",
    "Timing",
    "Transport",
    "Unauthenticated",
    "WatchRefused",
    "wait",
    "watch",
]
