"""The order of tests that run in several processes: what takes long comes first.

Each process begins with a share of its own, and takes from the ends of the others' shares when
it has done with it. So a test that takes minutes, begun last, would leave the others waiting.
"""

from __future__ import annotations

import os
from itertools import groupby

import pytest


@pytest.hookimpl(trylast=True)  # after they were shuffled
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put modules marked ``long`` at the beginning of the processes' shares, each in one piece."""
    count = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    others = [item for item in items if item.get_closest_marker("long") is None]
    marked = sorted(set(items) - set(others), key=lambda item: (str(item.path), items.index(item)))
    begun: list[list[pytest.Item]] = [[] for _ in range(count)]
    for _, module in groupby(marked, key=lambda item: item.path):
        min(begun, key=len).extend(module)
    left = len(items)
    ordered: list[pytest.Item] = []
    for number, share in enumerate(begun):
        size = max(left // (count - number), len(share))
        filling = others[: size - len(share)]
        del others[: len(filling)]
        ordered += share + filling
        left = len(items) - len(ordered)
    items[:] = ordered + others
