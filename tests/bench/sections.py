"""The sections about viewers: one job with many of them, compared with what else there is."""

from __future__ import annotations

from .contenders import LIMIT, LIVEJOBS, NCHAN, SSE, WS
from .fanout import Fanout, measure
from .plan import Bench
from .results import Check, Table

MOST_OF_LIMIT = 1.4
"""Times the CPU of the C loop that a delivery may cost."""
MOST_MEMORY = {WS: 3.0, SSE: 2.5}
"""kB for each idle viewer."""
NODE = "Node ws, send() per client"


def fanout(bench: Bench) -> None:
    """CPU of a delivery, latency, highest rate, memory: servers on the same core in turn."""
    rows = []
    for contender in bench.contenders:
        bench.say(
            f"one job, {bench.plan.load.viewers} viewers: {contender.name} {contender.transport}"
        )
        row = measure(bench.stage, contender, bench.publisher, bench.plan.load)
        rows.append(row)
        if contender.name == LIVEJOBS and row.entries_wrong:
            way = contender.transport.upper()
            bench.results.faults.append(f"{way}: {row.entries_wrong} entries lost or repeated")
    _add_table(bench, rows)
    for transport in (WS, SSE):
        _check(bench, rows, transport)


def _add_table(bench: Bench, rows: list[Fanout]) -> None:
    limits = {row.transport: row.cost.cpu_us for row in rows if row.name == LIMIT}
    shown = []
    for row in rows:
        highest = row.highest
        limit = limits.get(row.transport)
        shown.append(
            (
                *(row.name, row.transport.upper(), row.cost.cpu_us),
                None if limit is None else row.cost.cpu_us / limit,
                *(row.cost.rate, row.cost.server_load * 100, row.cost.p50, row.cost.p99),
                highest.rate if highest else None,
                row.memory_bytes / 1000,
            )
        )
    columns = (
        *("server", "way", "µs CPU/delivery", "of limit", "at msg/s", "% core", "p50 ms", "p99 ms"),
        *("highest msg/s", "kB/viewer"),
    )
    title = f"One job, {bench.plan.load.viewers:,} viewers"
    note = "The highest rate is one whose p99 is under 100 ms with nothing lost."
    bench.results.tables.append(Table(title, columns, shown, note))


def _check(bench: Bench, rows: list[Fanout], transport: str) -> None:
    found = {row.name: row for row in rows if row.transport == transport}
    ours, limit = found.get(LIVEJOBS), found.get(LIMIT)
    if ours is None:
        return
    way, cpu, add = transport.upper(), ours.cost.cpu_us, bench.results.checks.append
    if limit is not None:
        add(
            Check(
                f"{way}: CPU of a delivery", cpu / limit.cost.cpu_us, MOST_OF_LIMIT, "of the limit"
            )
        )
    for name in (NCHAN, NODE):
        if name in found:
            add(
                Check(
                    f"{way}: CPU of a delivery, beside {name}", cpu, found[name].cost.cpu_us, "µs"
                )
            )
    memory = ours.memory_bytes / 1000
    add(Check(f"{way}: memory of an idle viewer", memory, MOST_MEMORY[transport], "kB"))
