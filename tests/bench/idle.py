"""`make bench-idle`: very many viewers who wait, on several server processes of one machine.

A message is published to each once in the time; it has to arrive, and nobody may be lost. Each
process, of the server and of the load client, stays within its limit of open files.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from .contenders import SSE, WS, job_path, livejobs_server
from .machine import KB, Cores, described, file_limit, memory_bytes
from .publisher import ENTRIES, publisher
from .results import Cell, Check, Results, Table
from .sections import MOST_MEMORY
from .stage import Stage, stage
from .viewers import SPARE_FILES, Report, Target, Viewers, viewers

JOBS = 1000
OPEN_SECONDS = 1200.0
PUBLISHED_AFTER = 0.5
"""Share of the time after which the message is published."""
RATE = 20.0
"""Jobs a second to which it is published."""
FILL = 0.75
"""Share of its open files that a server process is meant to need: they do not share evenly."""


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-idle", description=__doc__)
    parser.add_argument("--viewers", type=int, default=100_000, help="viewers in all")
    parser.add_argument("--minutes", type=float, default=5.0, help="how long they wait")
    parser.add_argument(
        "--workers", type=int, help="server processes; default: as many as it needs"
    )
    parser.add_argument("--transport", choices=(WS, SSE), default=WS)
    parser.add_argument(
        "--ports", action="store_true", help="server processes on ports of their own"
    )
    parser.add_argument("--out", type=Path, default=Path("build/bench-idle"))
    return parser.parse_args(given)


class Crowd:
    """The viewers of several load clients, as one."""

    def __init__(self, clients: Sequence[Viewers]) -> None:
        self._clients = clients

    def open(self, count: int) -> None:
        """Have so many in all, evenly spread."""
        for place, client in enumerate(self._clients):
            client.tell(f"open {self._share(count, place)}")
        for place, client in enumerate(self._clients):
            client.open(self._share(count, place), OPEN_SECONDS)

    def reset(self) -> None:
        """Count anew."""
        for client in self._clients:
            client.reset()

    def reports(self) -> list[Report]:
        """What each has counted."""
        return [client.report() for client in self._clients]

    def _share(self, count: int, place: int) -> int:
        each, rest = divmod(count, len(self._clients))
        return each + (place < rest)


def hold(
    on: Stage, count: int, workers: int, minutes: float, transport: str, ports: bool
) -> Results:
    """Hold the viewers; what must never happen is among the faults."""
    results = Results(described())
    ids = on.running_jobs(min(JOBS, count))
    with contextlib.ExitStack() as stack:
        if ports:
            servers = [stack.enter_context(livejobs_server(on)) for _ in range(workers)]
        else:
            servers = [stack.enter_context(livejobs_server(on, workers))]
        targets = [
            Target(port, job_path(transport, job_id)) for job_id in ids for _, port in servers
        ]
        clients = math.ceil(count / (file_limit() - SPARE_FILES))
        crowd = Crowd(
            [
                stack.enter_context(viewers(transport, targets, on.cores, token=on.token()))
                for _ in range(clients)
            ]
        )
        publishing = stack.enter_context(publisher(on))
        crowd.open(min(count, clients * 100))
        first = sum(memory_bytes(pid) for pid, _ in servers)
        began = time.monotonic()
        crowd.open(count)
        opened = time.monotonic() - began
        grown = sum(memory_bytes(pid) for pid, _ in servers) - first
        crowd.reset()
        time.sleep(60 * minutes * PUBLISHED_AFTER)
        publishing.publish(ENTRIES, ids, RATE, len(ids) / RATE)
        time.sleep(60 * minutes * (1 - PUBLISHED_AFTER))
        reports = crowd.reports()
        later = sum(memory_bytes(pid) for pid, _ in servers) - first
    _judge(results, reports, count)
    each = max(1, count - min(count, clients * 100))
    rows: list[Sequence[Cell]] = [
        ("viewers", count),
        ("server processes", workers),
        ("seconds until all were there", opened),
        ("minutes held", minutes),
        ("kB a viewer, when all were there", grown / each / 1000),
        ("kB a viewer, at the end", later / each / 1000),
        ("MB in all", later / KB / KB),
        ("p99 ms of the message", max(report.p99_us for report in reports) / 1000),
    ]
    results.tables.append(Table(f"Idle viewers over {transport.upper()}", ("", ""), rows))
    name = f"{transport.upper()}: memory of an idle viewer"
    results.checks.append(Check(name, grown / each / 1000, MOST_MEMORY[transport], "kB"))
    return results


def _judge(results: Results, reports: Sequence[Report], count: int) -> None:
    found = {
        "viewers that were there at the end": sum(report.ready for report in reports),
        "viewers that the message reached": sum(report.messages for report in reports),
    }
    for name, number in found.items():
        if number != count:
            results.faults.append(f"{name}: {number:,} of {count:,}")
    closed = sum(report.closed + report.failed + report.refused for report in reports)
    if closed:
        results.faults.append(f"{closed:,} connections were closed or refused")


def main(given: Sequence[str] | None = None) -> int:
    """Run it; 1: a viewer was lost, or the message for it."""
    arguments = _arguments(given)
    count = arguments.viewers
    workers = arguments.workers or math.ceil(count / (FILL * file_limit()))
    everywhere = frozenset(os.sched_getaffinity(0))
    with stage(Cores(everywhere, everywhere)) as on:
        results = hold(on, count, workers, arguments.minutes, arguments.transport, arguments.ports)
    results.write(arguments.out)
    print(results.text())
    return 1 if results.faults else 0


if __name__ == "__main__":
    sys.exit(main())
