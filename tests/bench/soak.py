"""`make bench-soak`: viewers come and go, some get stuck, some vanish, and nothing may be left.

Of the viewers that come, one in ten never reads; of those that go, one in ten goes without saying
so. Beside them stays a small healthy crowd, by which it is seen whether they cost it anything.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..support.waiting import wait_until
from .contenders import SSE, WS, job_path, livejobs_server
from .machine import KB, described, memory_bytes, open_files, share_cores
from .publisher import PROGRESS, Order, Publisher, publisher
from .results import Cell, Check, Results, Table
from .stage import Stage, stage
from .viewers import Target, Viewers, viewers

HEALTHY = 100
RATE = 10.0
"""Messages a second."""
PADDING = 8000
"""Bytes; what the kernel keeps for a viewer that does not read has to fill up in a minute."""
SPARE_FILES = 5
MOST_GROWN = 1.1
"""Times the memory of the second minute that may be used at the end."""
MOST_P99_MS = 100.0
GONE_SECONDS = 120.0
"""Within this time after the last one has gone nothing is left of them, stuck ones too."""
STEP = 60.0


@dataclass(frozen=True)
class Minute:
    """What was seen in one step."""

    number: int
    memory: int
    files: int
    p99_ms: float
    arrived: int
    stuck: int
    closed: int


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-soak", description=__doc__)
    parser.add_argument("--minutes", type=int, default=15)
    parser.add_argument("--viewers", type=int, default=2000, help="that are there at a time")
    parser.add_argument("--churn", type=float, default=200.0, help="that come and go a second")
    parser.add_argument("--step", type=float, default=STEP, help="seconds of a minute, for trying")
    parser.add_argument("--transport", choices=(WS, SSE), default=WS)
    parser.add_argument("--out", type=Path, default=Path("build/bench-soak"))
    return parser.parse_args(given)


def soak(on: Stage, publishing: Publisher, arguments: argparse.Namespace) -> Results:
    """Run it."""
    results = Results(described())
    [job_id] = on.running_jobs(1)
    with contextlib.ExitStack() as stack:
        pid, port = stack.enter_context(livejobs_server(on))
        target = [Target(port, job_path(arguments.transport, job_id))]

        def crowd() -> contextlib.AbstractContextManager[Viewers]:
            return viewers(arguments.transport, target, on.cores, token=on.token())

        healthy, others = stack.enter_context(crowd()), stack.enter_context(crowd())
        files = open_files(pid)
        healthy.open(HEALTHY)
        healthy.reset()
        _publish(publishing, job_id, arguments.step / 4)
        calm = healthy.report().p99_us / 1000
        others.open(arguments.viewers)
        others.tell(f"churn {arguments.churn}")
        minutes = []
        for number in range(1, arguments.minutes + 1):
            healthy.reset()
            _publish(publishing, job_id, arguments.step)
            minutes.append(_seen(number, pid, healthy, others))
        lost = HEALTHY - healthy.report().ready
        others.tell("churn 0")
        others.tell("drop")
        healthy.tell("drop")
        with contextlib.suppress(AssertionError):
            wait_until(
                lambda: open_files(pid) <= files + SPARE_FILES,
                description="nothing is left",
                seconds=GONE_SECONDS,
            )
        left = open_files(pid) - files
        at_end = memory_bytes(pid)
    _judge(results, minutes, calm, at_end, left, lost)
    return results


def _publish(publishing: Publisher, job_id: str, seconds: float) -> None:
    publishing.start(Order(PROGRESS, [job_id], RATE, round(RATE * seconds), PADDING))
    publishing.wait()
    time.sleep(0.5)


def _seen(number: int, pid: int, healthy: Viewers, others: Viewers) -> Minute:
    well, rest = healthy.report(), others.report()
    return Minute(
        number=number,
        memory=memory_bytes(pid),
        files=open_files(pid),
        p99_ms=well.p99_us / 1000,
        arrived=rest.arrived,
        stuck=rest.stuck,
        closed=rest.closed,
    )


def _judge(
    results: Results, minutes: Sequence[Minute], calm: float, at_end: int, left: int, lost: int
) -> None:
    rows: list[Sequence[Cell]] = [
        (it.number, it.memory / KB / KB, it.files, it.p99_ms, it.arrived, it.stuck, it.closed)
        for it in minutes
    ]
    columns = ("minute", "MB", "files", "healthy p99 ms", "arrived", "stuck", "closed by server")
    note = f"Before any came, the healthy viewers' p99 was {calm:.1f} ms."
    results.tables.append(Table("Viewers that come and go", columns, rows, note))
    second = minutes[min(1, len(minutes) - 1)].memory
    add = results.checks.append
    add(Check("memory at the end", at_end / second, MOST_GROWN, "of the second minute's"))
    add(Check("p99 of healthy viewers", max(it.p99_ms for it in minutes), MOST_P99_MS, "ms"))
    if left > SPARE_FILES:
        results.faults.append(f"{left} connections were left when all viewers had gone")
    if lost:
        results.faults.append(f"{lost} healthy viewers were closed")


def main(given: Sequence[str] | None = None) -> int:
    """Run it; 1: something was left over, or a healthy viewer lost."""
    arguments = _arguments(given)
    with stage(share_cores()) as on, publisher(on) as publishing:
        results = soak(on, publishing, arguments)
    results.write(arguments.out)
    print(results.text())
    return 1 if results.faults else 0


if __name__ == "__main__":
    sys.exit(main())
