"""How a command that runs children ends: by a signal, by a failure, or by itself."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable

from livejobs.errors import LivejobsError

from ..supervisor import ChildFailed, Supervisor
from .console import complain

EXIT_FAILED = 1
EXIT_KILLED = 130

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Signals that ask to stop: the first stops everything in order, the next kills it.

    Attributes:
        count: How many have come.
    """

    def __init__(self, work: asyncio.Task[None]) -> None:
        self.count = 0
        self._work = work
        self._supervisor: Supervisor | None = None

    def guard(self, supervisor: Supervisor) -> None:
        """Take note of the supervisor whose children are to be killed."""
        self._supervisor = supervisor

    def __call__(self) -> None:
        """A signal came."""
        self.count += 1
        supervisor = self._supervisor
        if supervisor is not None and supervisor.stopping:
            supervisor.kill()
        elif self.count == 1:
            self._work.cancel()


async def until_interrupted(work: Callable[[Interrupts], Awaitable[None]]) -> int:
    """Run `work` until it ends, or a signal ends it; returns the exit code."""
    loop = asyncio.get_running_loop()
    started = asyncio.Event()
    interrupts: Interrupts

    async def run() -> None:
        await started.wait()
        await work(interrupts)

    task = asyncio.create_task(run())
    interrupts = Interrupts(task)
    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, interrupts)
    started.set()
    try:
        await task
    except asyncio.CancelledError:
        return EXIT_KILLED if interrupts.count > 1 else 0
    except LivejobsError as error:
        report(error)
        return EXIT_FAILED
    return 0


def report(error: LivejobsError) -> None:
    """Say why it ends."""
    if not isinstance(error, ChildFailed):
        complain(str(error))
        return
    if error.last_lines:
        sys.stdout.flush()
        sys.stderr.write(f"\nThe last lines of {error.name}:\n")
        sys.stderr.writelines(f"  {line}\n" for line in error.last_lines)
    complain(f"{error} Everything else has been stopped.")
