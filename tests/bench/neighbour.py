"""The section about one viewer's job beside another job with a crowd of viewers."""

from __future__ import annotations

from .contenders import SSE, WS, job_path, livejobs_server
from .machine import file_limit
from .plan import Bench
from .publisher import RAW
from .results import Check, Table
from .viewers import SPARE_FILES, Report, Target, Viewers, viewers

CROWD_RATE = 2.0
"""Messages a second for the job with the crowd: with 10,000 viewers, half of a core's work."""
SHARE = 20
"""Messages for the neighbour's job for each of the crowd's."""
MOST_DELAY_MS = 10.0
"""By which the crowd may raise the neighbour's p99."""
SERVER_FILES = 200
SPREAD = 3
"""Times the usual length, for a p99 that means something."""


def neighbour(bench: Bench) -> None:
    """How late a job's one viewer hears of it, without and with a crowd at another job."""
    rows = []
    count = min(bench.plan.crowd, file_limit() - max(SPARE_FILES, SERVER_FILES))
    for transport in (WS, SSE):
        bench.say(f"one viewer beside {count} of another job: {transport}")
        crowded, own = bench.stage.running_jobs(2)
        token, cores = bench.stage.token(), bench.stage.cores
        with livejobs_server(bench.stage) as (_pid, port):
            of_crowd, of_one = (
                [Target(port, job_path(transport, job_id))] for job_id in (crowded, own)
            )
            with (
                viewers(transport, of_one, cores, token=token) as one,
                viewers(transport, of_crowd, cores, token=token) as crowd,
            ):
                one.open(1)
                alone = _heard(bench, one, [crowded, own])
                crowd.open(count, seconds=120)
                beside = _heard(bench, one, [crowded, own])
        for number, report in ((0, alone), (count, beside)):
            p50, p99 = report.p50_us / 1000, report.p99_us / 1000
            rows.append((transport.upper(), number, p50, p99, report.max_us / 1000))
            if report.missed:
                bench.results.faults.append(f"{transport.upper()}: {report.missed} lost")
        name = f"{transport.upper()}: p99 beside {count:,} viewers of another job, more than alone"
        more = (beside.p99_us - alone.p99_us) / 1000
        bench.results.checks.append(Check(name, more, MOST_DELAY_MS, "ms"))
    columns = ("way", "viewers of the other job", "p50 ms", "p99 ms", "longest ms")
    note = (
        f"One viewer of a job with {CROWD_RATE * SHARE:g} messages a second, while another job has "
        f"{CROWD_RATE:g} a second for all of its viewers."
    )
    bench.results.tables.append(Table("Beside a crowd", columns, rows, note))


def _heard(bench: Bench, one: Viewers, ids: list[str]) -> Report:
    """Publish for both jobs; what the one viewer counted."""
    crowded, own = ids
    one.reset()
    rate, seconds = CROWD_RATE * (SHARE + 1), SPREAD * bench.plan.load.seconds
    done = bench.publisher.publish(RAW, [crowded, *[own] * SHARE], rate, seconds)
    return one.settle(done.count * SHARE // (SHARE + 1))
