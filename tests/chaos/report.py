"""What a run says of itself in the end."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

from .driver import Struck
from .evidence import Evidence, Happened

MOST_LINES: Final = 12
"""So many findings of a check are shown."""
_BEGINS_WAITING: Final = ("created", "lost", "retried", "released", "requeued", "unknown")


@dataclass
class Outcome:
    """All that came of a run.

    Attributes:
        title: What was run.
        found: What is wrong, by check.
        seconds: How long each part of the run took.
        notes: Further figures.
    """

    title: str
    found: dict[str, list[str]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Whether all checks hold."""
        return not any(self.found.values())


@dataclass(frozen=True)
class Wait:
    """A time in which a job waited for an execution that it could have had.

    Attributes:
        seconds: How long.
        since: Since when.
        of: The job and its task.
        kind: What it waited after: created, lost, retried …
    """

    seconds: float
    since: datetime
    of: str
    kind: str


def waits(evidence: Evidence) -> Iterator[Wait]:
    """Every such time, of all jobs."""
    for job_id, timeline in evidence.timelines.items():
        row = evidence.rows.get(job_id)
        waiting: Happened | None = None
        for it in timeline:
            if waiting is not None and it.kind != "cancel_requested":
                due = waiting.at + timedelta(seconds=float(waiting.detail.get("delay") or 0))
                named = f"{job_id} ({row.task.rpartition('.')[2] if row is not None else '?'})"
                yield Wait((it.at - due).total_seconds(), due, named, waiting.kind)
            waiting = it if it.kind in _BEGINS_WAITING else None


def text(outcome: Outcome, evidence: Evidence, struck: list[Struck]) -> str:
    """The report."""
    return "\n".join(_lines(outcome, evidence, struck))


def _lines(outcome: Outcome, evidence: Evidence, struck: list[Struck]) -> Iterator[str]:
    yield f"\n{outcome.title}"
    yield f"\nFaults: {len(struck)}"
    by_kind: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for it in struck:
        by_kind[it.fault.kind][it.fault.target.partition(":")[0].rstrip("-123")] += 1
    for kind, targets in sorted(by_kind.items()):
        told = ", ".join(f"{target} {count}" for target, count in sorted(targets.items()))
        yield f"  {kind:<10}{sum(targets.values()):>5}   {told}"
    yield f"\nJobs: {len(evidence.rows)}, executions: {_executions(evidence)}"
    by_end: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in evidence.rows.values():
        end = row.status if not row.error else f"{row.status} {row.error.get('type')}"
        by_end[end][row.task.rpartition(".")[2]] += 1
    for end, kinds in sorted(by_end.items()):
        told = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
        yield f"  {end:<28}{sum(kinds.values()):>5}   {told}"
    happened = Counter(it.kind for told in evidence.timelines.values() for it in told)
    yield "  on the way: " + ", ".join(f"{kind} {n}" for kind, n in happened.most_common())
    chains = [it for it in evidence.account.accepted.values() if it.order.kind == "chain"]
    broken = sum(_is_broken_off(it.ids, evidence) for it in chains)
    yield f"  chains: {len(chains)}, {broken} of them without the step after one that completed"
    yield from _of_viewers(evidence)
    yield "\nSlowest recoveries, as a job saw them:"
    for wait in sorted(waits(evidence), key=lambda it: -it.seconds)[:5]:
        yield f"  {wait.seconds:6.1f} s from {wait.kind} to its next step: {wait.of}"
    yield "\nTimes: " + ", ".join(f"{name} {s:.0f} s" for name, s in outcome.seconds.items())
    yield from outcome.notes
    yield from _findings(outcome)


def _of_viewers(evidence: Evidence) -> Iterator[str]:
    yield f"\nViewers: {len(evidence.seen)}"
    kinds = Counter((it.watching.client, it.watching.transport) for it in evidence.seen)
    again = Counter[tuple[str, str]]()
    for it in evidence.seen:
        again[it.watching.client, it.watching.transport] += max(0, it.connections - 1)
    for kind, count in sorted(kinds.items()):
        yield f"  {' '.join(kind):<24}{count:>5}   came back {again[kind]} times"


def _is_broken_off(steps: list[str], evidence: Evidence) -> bool:
    """Whether a step completed, and the next was never sent: that is Celery's, after the end.

    A worker that dies between the two has its message delivered again, unless the broker has lost
    that too.
    """
    rows = [evidence.rows.get(step) for step in steps]
    return any(
        one is not None and one.status == "completed" and other is None
        for one, other in pairwise(rows)
    )


def _executions(evidence: Evidence) -> int:
    return sum(map(len, evidence.executions.values()))


def _findings(outcome: Outcome) -> Iterator[str]:
    yield "\nChecks:"
    for name, found in outcome.found.items():
        yield f"  {'holds' if not found else 'FAILS':<6} {name.replace('_', ' ')}"
        yield from (f"         {line}" for line in found[:MOST_LINES])
        if len(found) > MOST_LINES:
            yield f"         … and {len(found) - MOST_LINES} more"
    yield ""
