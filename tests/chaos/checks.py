"""What has to hold after all that: each check answers what is wrong, in words; nothing is well."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import pairwise
from typing import Final

from livejobs.entries import Cursor
from livejobs.statements import OVER, JobRow

from .evidence import Evidence, Happened
from .plan import LEASE_SECONDS
from .viewers import Seen

Check = Callable[[Evidence], Iterator[str]]

CLOCKS = timedelta(milliseconds=200)
"""Two databases of one machine, asked one after the other, are so far apart at most."""
COMMITS: Final = timedelta(seconds=10)
"""An end may be committed so long after its time: its process was frozen, or its link slow."""
_ENDS: Final = ("completed", "failed", "cancelled")
_COUNTED_LATER: Final = {"children", "version", "updated_at"}
_OF_EVERY_KIND: Final = {("failed", "WorkerLost")}
_OWN_ENDS: Final[dict[str, set[tuple[str, str | None]]]] = {
    "fail": {("failed", "ValueError")},
    "child": {("completed", None), ("failed", "ValueError")},
}


def everything_is_over(evidence: Evidence) -> Iterator[str]:
    """Every accepted job, and every other, has ended."""
    for accepted in evidence.account.accepted.values():
        if accepted.ids[0] not in evidence.rows:
            yield f"{accepted.order.key} was accepted as {accepted.ids[0]}, and is not there"
    for row in evidence.rows.values():
        if row.status not in OVER:
            yield f"job {_named(row)} is {row.status}, in attempt {row.attempt}, due {row.due_at}"


def ends_are_its_own(evidence: Evidence) -> Iterator[str]:
    """A job ends as its task does, or lost its worker, or was cancelled by somebody."""
    asked = {
        job_id
        for it in evidence.account.accepted.values()
        if it.order.cancel_after is not None
        for job_id in it.ids
    }
    for row in evidence.rows.values():
        if row.status not in OVER:
            continue
        kind = row.task.rpartition(".")[2]
        own = _OWN_ENDS.get(kind, {("completed", None)})
        end = (row.status, None if row.error is None else row.error.get("type"))
        # A cancelled one may still show why the attempt before failed.
        if row.status != "cancelled" and end not in own | _OF_EVERY_KIND:
            yield f"job {_named(row)} ended as {end}: {row.error}"
        if row.status == "cancelled" and not asked & {row.id, row.parent_id}:
            yield f"job {_named(row)} was cancelled, and nobody had asked for it"


def keys_are_unique(evidence: Evidence) -> Iterator[str]:
    """No key has two jobs, whoever asked how often."""
    for accepted in evidence.account.accepted.values():
        if accepted.order.kind != "chain" and len(set(accepted.ids)) > 1:
            yield f"{accepted.order.key} was accepted as {set(accepted.ids)}"
    by_key: dict[str, str] = {}
    for row in evidence.rows.values():
        if row.idempotency_key is not None:
            other = by_key.setdefault(row.idempotency_key, row.id)
            if other != row.id:
                yield f"{row.idempotency_key} has the jobs {other} and {row.id}"
    for job_id, executed in evidence.executions.items():
        if job_id not in evidence.rows:
            yield f"{executed[0].task} was run as {job_id}, which is no job"


def timelines_make_sense(evidence: Evidence) -> Iterator[str]:
    """Attempts begin one after the other; the end comes once, and nothing after it."""
    for job_id, row in evidence.rows.items():
        timeline = evidence.timelines.get(job_id, [])
        started = [it.attempt for it in timeline if it.kind == "started"]
        if started != list(range(1, row.attempt + 1)):
            yield f"job {_named(row)} began the attempts {started}, and has had {row.attempt}"
        if [it.attempt for it in timeline] != sorted(it.attempt for it in timeline):
            yield f"job {_named(row)}: an attempt that was over did something: {_told(timeline)}"
        ends = [number for number, it in enumerate(timeline) if _is_end(it)]
        if row.status in OVER and ends != [len(timeline) - 1]:
            yield f"job {_named(row)} did not end once and last: {_told(timeline)}"
        if row.status in OVER and timeline and _end(timeline[-1]) != row.status:
            yield f"job {_named(row)} is {row.status}, and its timeline says {_told(timeline)}"


def attempts_run_once(evidence: Evidence) -> Iterator[str]:
    """None ran more often than it had attempts, none of these twice, and none more than allowed."""
    for job_id, executions in evidence.executions.items():
        row = evidence.rows.get(job_id)
        if row is None:
            continue
        attempts = [it.attempt for it in executions]
        if len(set(attempts)) != len(attempts) or max(attempts) > row.attempt:
            yield f"job {_named(row)} executed the attempts {attempts} of {row.attempt}"
        if row.max_attempts is not None and row.attempt > row.max_attempts:
            yield f"job {_named(row)} had {row.attempt} attempts of {row.max_attempts}"
        if not row.rerun_when_lost and len(executions) > 1:
            yield f"job {_named(row)} may not be run twice, and was: {attempts}"


def results_are_of_the_last_attempt(evidence: Evidence) -> Iterator[str]:
    """A job completed once, by the attempt that had it, which had come to its end."""
    for row in evidence.rows.values():
        if row.status != "completed":
            continue
        if (row.result or {}).get("attempt") != row.attempt:
            yield f"job {_named(row)} completed in attempt {row.attempt} with {row.result}"
        own = [it for it in evidence.executions.get(row.id, ()) if it.attempt == row.attempt]
        if [it.how for it in own] != ["returned"]:
            yield f"job {_named(row)} completed, and its attempt ended {[it.how for it in own]}"


def attempts_overlap_only_after_a_lease(evidence: Evidence) -> Iterator[str]:
    """While an attempt went on, the next began only if its lease had run out."""
    lease = timedelta(seconds=LEASE_SECONDS)
    for job_id, executions in evidence.executions.items():
        if job_id not in evidence.rows:
            continue
        timeline = evidence.timelines.get(job_id, [])
        for one, other in pairwise(sorted(executions, key=lambda it: it.attempt)):
            if one.ended is None or other.began >= one.ended - CLOCKS:
                continue
            began = [it.at for it in timeline if (it.kind, it.attempt) == ("started", one.attempt)]
            lost = [it.at for it in timeline if (it.kind, it.attempt) == ("lost", one.attempt)]
            named = _named(evidence.rows[job_id])
            if not (began and lost and lost[0] <= other.began + CLOCKS):
                yield f"job {named}: attempt {one.attempt} went on, and was not lost: {timeline}"
            elif lost[0] - began[0] < lease - CLOCKS:
                yield f"job {named}: attempt {one.attempt} was lost before its lease could run out"


def families_are_whole(evidence: Evidence) -> Iterator[str]:
    """Each child was spawned once, and counted once; who waits for them waits for all."""
    children: defaultdict[str, list[JobRow]] = defaultdict(list)
    for row in evidence.rows.values():
        if row.parent_id is not None:
            children[row.parent_id].append(row)
    for parent_id, own in children.items():
        parent = evidence.rows[parent_id]
        ordinals = sorted(row.ordinal for row in own)
        if ordinals != list(range(len(own))):
            yield f"job {_named(parent)} has the children {ordinals}"
        ends = Counter(row.status for row in own)
        counted = {end: getattr(parent, f"children_{end}") for end in _ENDS}
        if parent.children_total != len(own) or any(ends[it] != counted[it] for it in _ENDS):
            yield f"job {_named(parent)} counts {counted}, and its children are {dict(ends)}"
    for accepted in evidence.account.accepted.values():
        family = evidence.rows.get(accepted.ids[0])
        if accepted.order.kind != "family" or family is None or family.status != "completed":
            continue
        wanted, waits = accepted.order.args
        if len(children[family.id]) != wanted:
            yield f"job {_named(family)} has {len(children[family.id])} children of {wanted}"
        if waits and (family.result["children"], family.result["over"]) != (wanted, wanted):
            yield f"job {_named(family)} went on with {family.result} of {wanted} children"


def viewers_end_with_the_truth(evidence: Evidence) -> Iterator[str]:
    """Every viewer was told the end, the view of the database, and each entry once and in order.

    The view is that of the end: see `_is_of_its_end` about children that come to theirs later.
    """
    for seen in evidence.seen:
        who = f"{seen.name}, of job {seen.job_id},"
        if seen.error is not None:
            yield f"{who} failed with {seen.error}"
        elif not seen.ended:
            status = None if seen.view is None else seen.view["status"]
            yield f"{who} was never told the end; it shows {status}"
        elif seen.job_id in evidence.rows:
            wrong_fields = _differences(seen, evidence)
            if wrong_fields:
                yield f"{who} shows {wrong_fields}"
            yield from (f"{who} {wrong}" for wrong in _entries(seen, evidence))


def _entries(seen: Seen, evidence: Evidence) -> Iterator[str]:
    row, kept = evidence.rows[seen.job_id], evidence.kept.get(seen.job_id, {})
    cursors = [cursor for cursor, _ in seen.entries]
    if cursors and (cursors[0].attempt != row.attempt and row.last_n):
        yield f"has the entries of attempt {cursors[0].attempt} instead of {row.attempt}"
        return
    if cursors != [Cursor(row.attempt, n) for n in range(1, len(cursors) + 1)] and row.last_n:
        yield f"was told the entries {[str(cursor) for cursor in cursors]}"
    retained = sorted(cursor for cursor in kept if cursor.attempt == row.attempt)
    if len(cursors) < len(retained):
        yield f"has {len(cursors)} entries, and {len(retained)} are retained"
    for cursor, text in seen.entries:
        body = kept.get(cursor)
        if body is not None and json.dumps(text)[1:-1] not in body and text:
            known = json.loads("{" + body)
            lines = "".join(line["text"] for line in known.get("lines", ()))
            if text not in (known.get("text"), lines):
                yield f"was told {text!r} as {cursor}, and the database has {body}"


def _differences(seen: Seen, evidence: Evidence) -> str:
    truth, shown = evidence.view(seen.job_id), seen.view or {}
    fields = [name for name in truth if shown.get(name) != truth[name]]
    if fields and _COUNTED_LATER.issuperset(fields) and _is_of_its_end(seen, evidence):
        return ""
    return ", ".join(f"{name} {shown.get(name)!r} for {truth[name]!r}" for name in fields)


def _is_of_its_end(seen: Seen, evidence: Evidence) -> bool:
    """Whether the children that a viewer shows are those that were over when their parent ended.

    A parent that did not wait for them, or was cancelled, is over before them. They are counted all
    the same; those who watched it alone have been told the end by then.
    """
    parent, shown = evidence.rows[seen.job_id], (seen.view or {}).get("children") or {}
    if parent.completed_at is None:
        return False
    since = parent.completed_at - COMMITS
    own = [row for row in evidence.rows.values() if row.parent_id == parent.id]
    ends = Counter(row.status for row in own)
    before = Counter(row.status for row in own if row.completed_at and row.completed_at < since)
    return before != ends and all(before[it] <= shown.get(it, 0) <= ends[it] for it in _ENDS)


def _named(row: JobRow) -> str:
    return f"{row.id} ({row.task.rpartition('.')[2]})"


def _is_end(it: Happened) -> bool:
    return _end(it) in _ENDS


def _end(it: Happened) -> str:
    return str(it.detail.get("status")) if it.kind == "lost" else it.kind


def _told(timeline: list[Happened]) -> str:
    return ", ".join(f"{it.kind} ({it.attempt})" for it in timeline)


CHECKS: Final[tuple[Check, ...]] = (
    everything_is_over,
    ends_are_its_own,
    keys_are_unique,
    timelines_make_sense,
    attempts_run_once,
    results_are_of_the_last_attempt,
    attempts_overlap_only_after_a_lease,
    families_are_whole,
    viewers_end_with_the_truth,
)
