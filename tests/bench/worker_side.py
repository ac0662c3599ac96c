"""The sections about workers and applications: what reporting and enqueuing cost them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from ..support.servers import free_port
from .plan import Bench
from .processes import on_cores
from .results import Check, Table
from .stage import Stage, stage

MOST_US = 0.10
"""Of a call of `progress()`."""
MOST_SHARE = 1.0
"""Per cent that a million calls may add to a task of ten seconds."""
TASK_CALLS = 1_000_000
TASK_SECONDS = 10.0
MOST_DELAYS = 1.5
"""Times a bare `delay()` that enqueuing may cost."""
LEAST_AT_ONCE = 5000.0
"""Jobs a second, a thousand at once."""
CHILD_SECONDS = 600.0


class Failed(Exception):
    """A measuring process failed; says what it wrote."""


def _measured(on: Stage, module: str, *arguments: object) -> dict[str, Any]:
    """What a measuring process found; it runs on the server's core, Redis on another."""
    command = [sys.executable, "-m", f"tests.bench.{module}", *map(str, arguments)]
    with on_cores(on.cores.server):
        process = subprocess.Popen(
            command,
            env={**os.environ, **on.env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    try:
        output, errors = process.communicate(timeout=CHILD_SECONDS)
    finally:
        process.kill()
    if process.returncode:
        raise Failed(f"{' '.join(command)}: {errors[-3000:]}")
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def report(bench: Bench) -> None:
    """`progress()` in a loop, with Redis up and down, beside what else a loop could do."""
    bench.say("reporting")
    [job_id] = bench.stage.running_jobs(1)
    found = _measured(bench.stage, "reporting", job_id, bench.plan.calls, free_port())
    rows = (
        ("storing an attribute (the limit)", found["storing"]),
        ("tqdm, for each item", found["tqdm"]),
        ("progress(), Redis up", found["progress"]),
        ("progress(), Redis down", found["progress_redis_down"]),
        ("the publish script, one round trip", found["script"]),
        ("Celery's update_state on Redis", found["update_state"]),
    )
    share = f"{100 * found['carrying']:.2f}"
    note = f"With the loop around it. Carrying the reports takes {share} % of a core besides."
    bench.results.tables.append(Table("Reporting", ("one call", "µs"), rows, note))
    for name, key in (
        ("progress()", "progress"),
        ("progress(), Redis down", "progress_redis_down"),
    ):
        bench.results.checks.append(Check(name, found[key], MOST_US, "µs"))
    # Measured as the difference of two tasks of ten seconds it is less than what these differ by.
    calls = (found["progress"] - found["loop"]) * 1e-6 * TASK_CALLS / TASK_SECONDS
    name = "a million calls in a task of 10 s add"
    share = 100 * (calls + found["carrying"])
    bench.results.checks.append(Check(name, share, MOST_SHARE, "%"))


def enqueue(bench: Bench) -> None:
    """A job one by one and a thousand at once, beside a bare `delay()`, on both databases."""
    rows = []
    for database in ("sqlite", "postgresql"):
        bench.say(f"enqueuing on {database}")
        with stage(bench.stage.cores, database) as on:
            found = _measured(on, "enqueueing", bench.plan.enqueued)
        bare, floor = found["celery"], found["floor"]
        rows.append(
            (
                *(database, bare, found["delay"], found["delay"] / bare),
                *(found["enqueue"], found["enqueue"] / bare, floor, (bare + floor) / bare),
                *(found["at_once"], found["refused"], found["many"]),
            )
        )
        add = bench.results.checks.append
        add(Check(f"delay() on {database}", found["delay"] / bare, MOST_DELAYS, "bare delays"))
        name = f"await enqueue() on {database}"
        add(Check(name, found["enqueue"] / bare, MOST_DELAYS, "bare delays"))
        name = f"{bench.plan.enqueued:,} at once on {database}"
        add(Check(name, found["at_once"], LEAST_AT_ONCE, "a second", at_least=True))
        name = f"enqueue_many() of {bench.plan.enqueued:,} on {database}"
        add(Check(name, found["many"], LEAST_AT_ONCE, "a second", at_least=True))
    columns = (
        *("database", "bare delay() µs", "livejobs' delay() µs", "of bare", "enqueue() µs"),
        *("of bare", "one row alone µs", "bare and row, of bare", "at once, a second", "refused"),
        "enqueue_many(), a second",
    )
    note = (
        "One row alone is an INSERT into a table of two columns with its COMMIT, by the bare "
        "driver: what comes on top of a bare delay() at the least."
    )
    bench.results.tables.append(Table("Enqueuing", columns, rows, note))
