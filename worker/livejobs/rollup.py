"""What a job shows of its children while it waits for them: how far they are, and their sums.

A child hands numbers in by tallies of their own kind, in the transaction that completes it; they
are added up where its end is counted.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, Final

from sqlalchemy import insert
from sqlalchemy.sql.base import Executable

from .statements import OVER, TOTAL, Batch, JobRow, Rows, tallies
from .views import Status

_SUM: Final = "sum:"
MOST: Final = 2**31 - 1
"""Largest number that a child may hand in."""


def hand_in(
    parent_id: str, numbers: Mapping[str, int]
) -> Generator[Executable | Batch, Rows, None]:
    """Say to a parent what is to be added to its sums."""
    said = {f"{_SUM}{name}": number for name, number in numbers.items()}
    values = [{"parent_id": parent_id, "kind": kind, "n": n} for kind, n in said.items()]
    if values:
        yield insert(tallies), values


def sums_with(sums: Mapping[str, int] | None, new: Mapping[str, int]) -> dict[str, int]:
    """A parent's sums with new tallies added, those of other kinds left out."""
    added = dict(sums or {})
    for kind, number in new.items():
        if kind.startswith(_SUM):
            name = kind.removeprefix(_SUM)
            added[name] = added.get(name, 0) + number
    return added


def progress(parent: JobRow, counts: Mapping[str, int], sums: Mapping[str, int]) -> dict[str, Any]:
    """The progress of a waiting parent: its children's.

    Args:
        parent: Its row as it was before this was counted, and `now`.
        counts: Its children, by `TOTAL` and `OVER`.
        sums: What they have handed in.

    Returns:
        A `Progress` as plain data. Its `data` has `failed`, each sum under its name, and what comes
        of it in a second under that name with ``_per_second``.
    """
    total, over = counts[TOTAL], sum(counts[status] for status in OVER)
    seconds = max((parent.now - parent.started_at).total_seconds(), 0.001)
    rate = max(over - parent.children_before, 0) / seconds
    # Where there were children before, the sums have theirs, too: a share of them is new.
    speeds = {name: round(number / over * rate, 1) for name, number in sums.items() if over}
    failed = counts[Status.FAILED]
    message = [f"{over} of {total} done", *([f"{failed} failed"] if failed else [])]
    message += [
        f"{number} {name.replace('_', ' ')} ({speeds[name]:g}/s)" for name, number in sums.items()
    ]
    return {
        "current": over,
        "total": total,
        "fraction": round(over / total, 4) if total else None,
        "stage": (parent.progress or {}).get("stage"),
        "message": ", ".join(message),
        "rate": float(f"{rate:.3g}") or None,
        "eta_seconds": round((total - over) / rate, 1) if rate else None,
        "data": {
            "failed": failed,
            **sums,
            **{f"{name}_per_second": speed for name, speed in speeds.items()},
        },
    }
