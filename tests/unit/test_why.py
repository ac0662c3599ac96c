"""The one sentence that says why a job is not moving."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from livejobs_server.why import Facts, explain, span

NOW = datetime(2030, 1, 1, tzinfo=UTC)
ERROR = {"type": "ConnectionError", "message": "no route.", "traceback": "…"}
PENDING: dict[str, Any] = {"status": "pending", "dispatches": 1, "due_at": 48.0}
RUNNING: dict[str, Any] = {
    **{"status": "processing", "worker": "box:4711:abc", "lease_until": 20.0},
    **{"started_at": -200.0, "reported_at": -840.0},
}


def facts(keeper: float | None = -1.0, met_unknown: int = 0, **columns: Any) -> Facts:
    """Facts of a job; times are seconds from now."""
    row: dict[str, Any] = dict.fromkeys(
        ("due_at", "run_at", "lease_until", "cancel_requested_at", "reported_at", "started_at")
    )
    row |= {"completed_at": None, "error": None, "attempt": 0, "dispatches": 0, "worker": None}
    row |= {"held": False, "at_once": None}
    row |= {"queue": "gpu", "task": "render"} | columns
    for name, value in row.items():
        if isinstance(value, float):
            row[name] = NOW + timedelta(seconds=value)
    keeper_at = None if keeper is None else NOW + timedelta(seconds=keeper)
    found: Any = SimpleNamespace(**row)
    return Facts(row=found, now=NOW, keeper_at=keeper_at, met_unknown=met_unknown)


@pytest.mark.parametrize(
    ("known", "said"),
    [
        (facts(status="pending", due_at=4.0), "It is about to be sent."),
        (
            facts(status="pending", held=True, at_once=4),
            "It waits for one of 4 places of its parent.",
        ),
        (
            facts(status="pending", held=True, at_once=1),
            "It waits for the one place of its parent.",
        ),
        (
            facts(status="pending", due_at=40.0, run_at=40.0, attempt=2, error=ERROR),
            "It is due in 40 s, after attempt 2 failed with ConnectionError: no route.",
        ),
        (facts(status="pending", due_at=7200.0, run_at=7200.0), "It is due in 2 h."),
        (
            facts(-40.0, status="pending", due_at=-30.0),
            "There has been no keeper for 40 s, so nobody sends it: start a server, a worker or a "
            "keeper.",
        ),
        (
            facts(None, status="pending", due_at=-30.0, run_at=-30.0),
            "There is no keeper, so nobody sends it: start a server, a worker or a keeper.",
        ),
        (
            facts(status="pending", due_at=-12.0),
            "It has been due for 12 s, but the broker does not take it.",
        ),
        (
            facts(status="pending"),
            "Its task has replaced itself by others, and it waits for the last of them.",
        ),
        (
            facts(**RUNNING),
            "It has been running on box, process 4711 for 3 min, and last reported 14 min ago.",
        ),
        (
            facts(**RUNNING | {"lease_until": -7.0}),
            "Its worker, box, process 4711, has lost its lease 7 s ago; it is taken back soon.",
        ),
        (
            facts(-90.0, **RUNNING | {"lease_until": -70.0}),
            "Its worker, box, process 4711, is lost, and there has been no keeper for 90 s to take "
            "it back.",
        ),
        (
            facts(**RUNNING | {"cancel_requested_at": -12.0}),
            "Its cancel was asked for 12 s ago, the task on box, process 4711 goes on, and in 18 s "
            "its process is ended.",
        ),
        (
            facts(
                status="processing",
                **{"children_total": 12, "children_completed": 7},
                **{"children_failed": 1, "children_cancelled": 1},
            ),
            "It waits for 3 of 12 children.",
        ),
        (
            facts(status="failed", completed_at=-180.0, error=ERROR),
            "It is over: failed 3 min ago with ConnectionError: no route.",
        ),
        (facts(status="completed", completed_at=-1.0), "It is over: completed 1 s ago."),
    ],
)
def test_reason_without_asking_the_workers(known: Facts, said: str) -> None:
    assert explain(known) == said
    assert not known.is_sent


@pytest.mark.parametrize(
    ("met", "workers", "said"),
    [
        (0, None, "It was sent to queue gpu, but the broker does not answer now."),
        (0, {}, "It waits in queue gpu, and no worker answers: is one running?"),
        (0, {"a": ["cpu"]}, "No worker takes from queue gpu; 1 take from others."),
        (
            0,
            {"a": ["cpu", "gpu"]},
            "It waits in queue gpu: the 1 worker that takes from it is busy; it is sent once more "
            "in 48 s.",
        ),
        (
            3,
            {"a": ["gpu"], "b": ["gpu"]},
            "3 of 5 times a worker got it that does not know render; it is sent again in 48 s.",
        ),
    ],
)
def test_reason_of_a_job_that_was_sent(
    met: int, workers: dict[str, list[str]] | None, said: str
) -> None:
    known = facts(met_unknown=met, **PENDING)
    assert known.is_sent
    assert explain(known, workers) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-3.0, "0 s"),
        (0.4, "0 s"),
        (119.0, "119 s"),
        (120.0, "2 min"),
        (7200.0, "2 h"),
        (1e6, "12 d"),
    ],
)
def test_span_is_said_as_people_do(seconds: float, said: str) -> None:
    assert span(seconds) == said
