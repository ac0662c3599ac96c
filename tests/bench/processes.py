"""Processes on cores of their own, ended with all that they started."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..support.servers import child

START_SECONDS = 40.0


class NotStarted(Exception):
    """A server did not start; says what it wrote."""


@contextlib.contextmanager
def on_cores(cores: frozenset[int]) -> Iterator[None]:
    """Processes and threads started in the block run on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def server_process(
    command: Sequence[str], port: int, cores: frozenset[int], env: Mapping[str, str]
) -> Iterator[int]:
    """Run a server; yields its process id once it listens.

    Raises:
        NotStarted: It ended, or does not listen in time.
    """
    with tempfile.TemporaryDirectory(prefix="livejobs-bench-server-") as folder:
        log = Path(folder) / "log"
        with contextlib.ExitStack() as stack:
            with on_cores(cores):
                process = stack.enter_context(child(list(command), log, dict(env)))
            deadline = time.monotonic() + START_SECONDS
            while not listens(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise NotStarted(f"{' '.join(command)}: {log.read_text('utf-8')[-2000:]}")
                time.sleep(0.05)
            try:
                yield process.pid
            finally:
                # Nobody needs its goodbye, which may take its time with very many viewers.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


def listens(port: int) -> bool:
    """Whether something listens on a port of 127.0.0.1."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
