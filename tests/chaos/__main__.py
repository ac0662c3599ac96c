"""`make chaos`: a run, long or short, on real processes; or what a broken build makes of it."""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from .breaks import BREAKS
from .plan import JOBS_A_SECOND, plan
from .run import Options, run

SHORT_SECONDS: Final = 40.0
SLACK_SECONDS: Final = 300.0
"""Scenes, starts and ends take no longer, all together."""
_BEGAN = time.monotonic()


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, help="how long faults go on; default: 40 s")
    parser.add_argument("--seed", type=int, help="makes the plan; default: another one each time")
    parser.add_argument("--break", dest="broken", choices=sorted(BREAKS), help="take this out")
    parser.add_argument("--rate", type=float, default=JOBS_A_SECOND, help="jobs a second")
    parser.add_argument("--processes", type=int, default=2, help="of each of three workers")
    parser.add_argument("--settle", type=float, help="seconds in which all has to be over")
    parser.add_argument("--logs", type=Path, help="a folder for the logs of all parts")
    parser.add_argument("--plan", action="store_true", help="print the faults, and do nothing")
    return parser.parse_args(given)


def _say(line: str) -> None:
    print(f"{time.monotonic() - _BEGAN:6.1f} s  {line}", file=sys.stderr, flush=True)


async def _run(arguments: argparse.Namespace) -> int:
    seconds = SHORT_SECONDS if arguments.minutes is None else arguments.minutes * 60
    seed = random.SystemRandom().randrange(10**6) if arguments.seed is None else arguments.seed
    made = plan(seed, seconds, arguments.rate)
    print(f"seed {seed}: {len(made.faults)} faults, {len(made.orders)} jobs", flush=True)
    if arguments.plan:
        for fault in made.faults:
            print(f"{fault.at:8.1f} s  {fault.kind:<10} {fault.target:<20} {fault.seconds:.1f} s")
        return 0
    settle = arguments.settle or max(180.0, seconds / 2)
    options = Options(
        broken=arguments.broken,
        processes=arguments.processes,
        settle_seconds=settle,
        logs=arguments.logs,
    )
    this = asyncio.current_task()
    assert this is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    async with asyncio.timeout(seconds + 2 * settle + SLACK_SECONDS):
        outcome, report = await run(made, options, _say)
    print(report)
    return 0 if outcome.is_good else 1


def main(given: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; 1: something that must hold does not."""
    logging.getLogger("livejobs").setLevel(logging.ERROR)
    logging.getLogger("chaos").setLevel(logging.ERROR)
    try:
        return asyncio.run(_run(_arguments(given)))
    except KeyboardInterrupt:
        return 130
    except asyncio.CancelledError:  # by SIGTERM
        return 143


if __name__ == "__main__":
    sys.exit(main())
