"""The sections about many jobs, many viewers at once, and the way from a worker to a viewer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from .contenders import LIMIT, SSE, WS, job_path, livejobs_server, watched
from .fanout import HELD_P99_MS, Cost, cost_at
from .machine import cpu_seconds, file_limit
from .plan import Bench
from .plot import Curve, plot
from .publisher import PROGRESS, RAW
from .results import Cell, Check, Table
from .viewers import SPARE_FILES, NotConnected, Report, Target, Viewers, viewers

LEAST_UPDATES = 60_000.0
"""Updates a second that a core relays to sockets with one viewer each."""
MOST_RECONNECT_SECONDS = 5.0
RECONNECT_SECONDS = 120.0
"""No longer is waited for them."""
MOST_P50_MS = 3.0
MOST_P99_MS = 10.0
WORKER_RATE = 1000.0
"""Updates a second over as many viewers."""
SERVER_FILES = 200
"""Files that a server needs beside its viewers."""
CURVE_DELIVERIES = 20_000.0
"""A second, at which the cost against viewers is measured, where a publisher reaches them."""
FIRST_RATES = (100.0, 5000.0)
"""Updates a second to begin with, over few jobs and over many."""
FIRST_RATES_DIFFER = 1000
MOST_RATE = 200_000.0
CURVE_MOST_RATE = 1000.0
CURVE_LEAST_RATE = 2.0


def _most_viewers(wanted: int) -> int:
    return min(wanted, file_limit() - max(SPARE_FILES, SERVER_FILES))


@contextmanager
def _each_with_a_job(
    bench: Bench, transport: str, jobs: list[str], at_once: int = 500
) -> Iterator[tuple[int, Viewers]]:
    """livejobs, and a load client whose viewers watch the jobs in turn; yields the process id."""
    with livejobs_server(bench.stage) as (pid, port):
        targets = [Target(port, job_path(transport, job_id)) for job_id in jobs]
        token = bench.stage.token()
        with viewers(transport, targets, bench.stage.cores, token=token, at_once=at_once) as crowd:
            yield pid, crowd


def curve(bench: Bench) -> None:
    """CPU of a delivery against the number of viewers, and the plot of it."""
    curves: list[Curve] = []
    rows: list[tuple[Cell, ...]] = []
    for contender in bench.contenders:
        points: list[tuple[int, float]] = []
        bench.say(f"cost against viewers: {contender.name} {contender.transport}")
        [job_id] = bench.stage.running_jobs(1)
        with watched(bench.stage, contender, job_id) as (running, crowd):
            for wanted in bench.plan.curve:
                count = _most_viewers(wanted)
                crowd.open(count)
                rate = CURVE_DELIVERIES / count
                rate = min(max(rate, CURVE_LEAST_RATE), CURVE_MOST_RATE)
                seconds = bench.plan.load.seconds
                costs = [
                    cost_at(running, crowd, bench.publisher, job_id, rate, seconds)
                    for _ in range(bench.plan.load.repeats)
                ]
                points.append((count, min(costs, key=Cost.rank).cpu_us))
        name = contender.name if contender.name == LIMIT else contender.name.partition(",")[0]
        curves.append(Curve(f"{name}, {contender.transport.upper()}", points))
        rows.append((contender.name, contender.transport.upper(), *(cost for _, cost in points)))
    columns = ("server", "way", *(f"{_most_viewers(count):,}" for count in bench.plan.curve))
    note = "µs of CPU for each delivery."
    bench.results.tables.append(Table("Cost against viewers", columns, rows, note))
    bench.results.plot = plot(curves)


def jobs(bench: Bench) -> None:
    """Many jobs with one viewer each: updates a second, from Redis to sockets."""
    rows = []
    count = _most_viewers(bench.plan.jobs)
    for transport in (WS, SSE):
        bench.say(f"{count} jobs with one viewer each: {transport}")
        ids = bench.stage.running_jobs(count)
        with _each_with_a_job(bench, transport, ids) as (pid, crowd):
            crowd.open(count, seconds=120)
            held = _highest(bench, pid, crowd, ids)
        if held is None:
            bench.results.notes.append(f"no rate was held with {count} jobs over {transport}")
            continue
        rate, spent, report = held
        a_core = report.messages / spent
        rows.append(
            (
                *(transport.upper(), rate, 1e6 * spent / report.messages, a_core),
                *(report.p50_us / 1000, report.p99_us / 1000),
            )
        )
        name = f"{transport.upper()}: updates of many jobs"
        bench.results.checks.append(
            Check(name, a_core, LEAST_UPDATES, "a second a core", at_least=True)
        )
    columns = ("way", "highest updates/s", "µs CPU/update", "updates/s a core", "p50 ms", "p99 ms")
    note = "Updates a second a core: what was delivered for each second of the server's CPU time."
    title = f"{count:,} jobs with one viewer each"
    bench.results.tables.append(Table(title, columns, rows, note))


def _highest(
    bench: Bench, pid: int, crowd: Viewers, ids: list[str]
) -> tuple[float, float, Report] | None:
    """The highest rate at which all updates arrive in time: rate, CPU seconds, what was counted.

    As the machine has other work, a rate counts as held where one of two attempts holds it.
    """
    best = None
    rate = FIRST_RATES[len(ids) >= FIRST_RATES_DIFFER]
    while rate < MOST_RATE:
        held = None
        for _ in range(2):
            crowd.reset()
            before = cpu_seconds(pid)
            done = bench.publisher.publish(RAW, ids, rate, bench.plan.load.seconds)
            report = crowd.settle(done.count)
            spent = cpu_seconds(pid) - before
            in_time = report.p99_us <= 1000 * HELD_P99_MS and done.rate > 0.9 * rate
            if report.messages == done.count and in_time:
                held = (done.rate, spent, report)
                break
        if held is None:
            break
        best, rate = held, 1.5 * rate
        if not bench.plan.load.search:
            break
    return best


def reconnect(bench: Bench) -> None:
    """All viewers lose their connections and come back at once."""
    rows = []
    count = _most_viewers(bench.plan.crowd)
    for transport in (WS, SSE):
        for number in (1, min(100, count)):
            bench.say(f"{count} viewers of {number} jobs reconnect: {transport}")
            ids = bench.stage.running_jobs(number)
            with _each_with_a_job(bench, transport, ids, at_once=count) as (pid, crowd):
                crowd.open(count, seconds=120)
                crowd.tell("drop")
                crowd.reset()
                before = cpu_seconds(pid)
                seconds, report = _back(crowd, count)
                spent = cpu_seconds(pid) - before
            if report.ready < count:
                lost = count - report.ready
                bench.results.faults.append(f"{transport.upper()}: {lost} did not come back")
            rows.append(
                (
                    *(
                        transport.upper(),
                        count,
                        number,
                        report.closed + report.failed,
                        seconds,
                        spent,
                    ),
                    *(1e6 * spent / count, report.ready_p50_us / 1000, report.ready_p99_us / 1000),
                )
            )
            name = f"{transport.upper()}: {count:,} viewers of {number} jobs live again"
            bench.results.checks.append(Check(name, seconds, MOST_RECONNECT_SECONDS, "s"))
    columns = (
        *("way", "viewers", "jobs", "tried again", "all live after s", "CPU s", "µs CPU/viewer"),
        *("p50 ms", "p99 ms"),
    )
    note = "Tried again: connections that broke before the job's state came, each made once more."
    bench.results.tables.append(Table("Reconnection at once", columns, rows, note))


def _back(crowd: Viewers, count: int) -> tuple[float, Report]:
    """Have the viewers come back: how long it took until all were live, and what was counted."""
    try:
        report = crowd.open(count, RECONNECT_SECONDS)
    except NotConnected:
        return RECONNECT_SECONDS, crowd.report()
    return report.all_ready_us / 1e6, report


def latency(bench: Bench) -> None:
    """From publishing to receiving, at 1,000 updates a second over as many viewers."""
    rows = []
    count = min(_most_viewers(bench.plan.jobs), round(WORKER_RATE))
    for transport in (WS, SSE):
        bench.say(f"{WORKER_RATE:g} updates a second over {count} viewers: {transport}")
        ids = bench.stage.running_jobs(count)
        with _each_with_a_job(bench, transport, ids) as (_pid, crowd):
            crowd.open(count)
            time.sleep(0.5)
            reports = []
            for _ in range(bench.plan.load.repeats):
                crowd.reset()
                rate = min(WORKER_RATE, float(count))
                done = bench.publisher.publish(PROGRESS, ids, rate, bench.plan.load.seconds)
                reports.append(crowd.settle(done.count))
        best = min(reports, key=lambda it: it.p99_us)
        p50, p99 = best.p50_us / 1000, best.p99_us / 1000
        rows.append((transport.upper(), count, done.rate, p50, p99, best.max_us / 1000))
        add, way = bench.results.checks.append, transport.upper()
        add(Check(f"{way}: p50 from worker to viewer", p50, MOST_P50_MS, "ms"))
        add(Check(f"{way}: p99 from worker to viewer", p99, MOST_P99_MS, "ms"))
    columns = ("way", "viewers", "updates/s", "p50 ms", "p99 ms", "longest ms")
    note = "From the moment a worker sends what it has coalesced, through the script it uses."
    bench.results.tables.append(Table("From worker to viewer", columns, rows, note))
