"""Rounds of a test that takes its course by chance, each from a seed that a failure names.

`LIVEJOBS_TESTS_ROUNDS` says how many rounds such a test has: a few are usual, and `make chaos` has
many. `LIVEJOBS_TESTS_SEED` repeats the one round that has this seed.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from typing import Final

ROUNDS: Final = int(os.environ.get("LIVEJOBS_TESTS_ROUNDS", "0"))
SEED: Final = os.environ.get("LIVEJOBS_TESTS_SEED")


def how_many(usual: int) -> int:
    """How many rounds there are to be."""
    return 1 if SEED is not None else ROUNDS or usual


def seeds(usual: int) -> Iterator[int]:
    """A seed for each round."""
    if SEED is not None:
        yield int(SEED)
        return
    for _ in range(how_many(usual)):
        yield random.SystemRandom().getrandbits(32)


@contextlib.contextmanager
def told(seed: int) -> Iterator[random.Random]:
    """A round's chance; whatever goes wrong within names the seed."""
    try:
        yield random.Random(seed)
    except BaseException as error:
        error.add_note(f"LIVEJOBS_TESTS_SEED={seed} takes this course again.")
        raise
