"""Moments of the database's clock, as feeds count and tell them; pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def microseconds_of(moment: datetime) -> int:
    """A moment as microseconds since the epoch."""
    return (moment - _EPOCH) // _MICROSECOND


def moment_of(microseconds: int) -> datetime:
    """The moment so many microseconds after the epoch.

    Raises:
        OverflowError: It is out of all bounds.
    """
    return _EPOCH + microseconds * _MICROSECOND


def time_text(microseconds: int) -> str:
    """A moment as `since` tells it."""
    return f"{moment_of(microseconds):%Y-%m-%dT%H:%M:%S.%f}Z"


def read_time(text: str) -> int:
    """A `since` that a client handed back.

    Raises:
        ValueError: It is none.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None or not text.isascii():
        raise ValueError("a time without its zone")
    return microseconds_of(moment)
