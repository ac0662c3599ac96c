"""`make bench`: measure livejobs, beside the limit and what else there is."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from .contenders import LIVEJOBS, contenders
from .crowds import curve, jobs, latency, reconnect
from .machine import described, share_cores
from .native import NoCompiler, program
from .neighbour import neighbour
from .plan import FULL, SHORT, Bench, Plan, Section
from .processes import NotStarted
from .publisher import publisher
from .results import Results
from .sections import fanout
from .stage import stage
from .viewers import NotConnected
from .worker_side import Failed, enqueue, report

SECTIONS: dict[str, Section] = {
    "fanout": fanout,
    "curve": curve,
    "jobs": jobs,
    "reconnect": reconnect,
    "latency": latency,
    "neighbour": neighbour,
    "report": report,
    "enqueue": enqueue,
}
OF_VIEWERS = frozenset({"fanout", "curve", "jobs", "reconnect", "latency", "neighbour"})
"""Sections that need the load client."""
_BEGAN = time.monotonic()


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("sections", nargs="*", help=f"of {', '.join(SECTIONS)}; default: all")
    parser.add_argument("--short", action="store_true", help="small sizes, for CI; checks no times")
    parser.add_argument("--viewers", type=int, help="viewers of one job")
    parser.add_argument("--seconds", type=float, help="for each measurement")
    parser.add_argument("--no-search", action="store_true", help="no search for highest rates")
    parser.add_argument("--alone", action="store_true", help="only livejobs, beside nothing else")
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="folder for results")
    parser.add_argument("--plot", type=Path, help="also write the plot to this file")
    found = parser.parse_args(given)
    if unknown := set(found.sections) - SECTIONS.keys():
        parser.error(f"no such section: {', '.join(sorted(unknown))}")
    return found


def _plan(arguments: argparse.Namespace) -> Plan:
    plan = SHORT if arguments.short else FULL
    load = plan.load
    if arguments.viewers:
        load = dataclasses.replace(load, viewers=arguments.viewers)
    if arguments.seconds:
        load = dataclasses.replace(load, seconds=arguments.seconds)
    if arguments.no_search:
        load = dataclasses.replace(load, search=False)
    return dataclasses.replace(plan, load=load, compared=plan.compared and not arguments.alone)


def run(names: Sequence[str], plan: Plan) -> Results:
    """Run sections."""
    results, cores = Results(described()), share_cores()
    if not cores.are_apart:
        results.notes.append("there is one core only: server and load share it")
    try:
        program("client")
        measured = list(names)
    except NoCompiler as error:
        measured = [name for name in names if name not in OF_VIEWERS]
        results.notes.append(f"{', '.join(sorted(set(names) - set(measured)))}: {error}")
    able = []
    for contender in contenders():
        if not plan.compared and contender.name != LIVEJOBS:
            continue
        if contender.missing:
            results.notes.append(f"{contender.name} {contender.transport}: {contender.missing}")
        else:
            able.append(contender)
    with stage(cores) as on_stage, publisher(on_stage) as publishing:
        bench = Bench(plan, on_stage, publishing, able, results, _say)
        for name in measured:
            try:
                SECTIONS[name](bench)
            except (NotConnected, NotStarted, Failed) as error:
                results.faults.append(f"{name}: {error}")
    if not plan.judged:
        results.checks.clear()
    return results


def _say(line: str) -> None:
    print(f"{time.monotonic() - _BEGAN:6.1f} s  {line}", file=sys.stderr, flush=True)


def main(given: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; 1: something must never happen and did."""
    arguments = _arguments(given)
    results = run(arguments.sections or list(SECTIONS), _plan(arguments))
    results.write(arguments.out)
    if arguments.plot and results.plot:
        arguments.plot.write_text(results.plot, "utf-8")
    print(results.text())
    return 1 if results.faults else 0


if __name__ == "__main__":
    sys.exit(main())
