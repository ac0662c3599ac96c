"""Waiting for a condition, with a reason when it does not come true."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

STEP_SECONDS = 0.02


def wait_until(predicate: Callable[[], T], *, description: str, seconds: float = 15.0) -> T:
    """The first true value of `predicate`; fails with `description` where none comes in time."""
    deadline = time.monotonic() + seconds
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {description}")
        time.sleep(STEP_SECONDS)


async def wait_until_async(
    predicate: Callable[[], T], *, description: str, seconds: float = 15.0
) -> T:
    """`wait_until` for async tests."""
    deadline = time.monotonic() + seconds
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {description}")
        await asyncio.sleep(STEP_SECONDS)
