"""The load client, led from Python: very many viewers on WebSocket or event streams."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .machine import Cores, file_limit
from .native import program
from .processes import on_cores

SOURCES = 7
"""Client addresses, from 127.0.0.2 on: one address has no more than 28,000 ports."""
AT_ONCE = 500
"""Handshakes under way at a time, fewer than a server's backlog holds."""
SPARE_FILES = 100
STEP_SECONDS = 0.02
SILENT_STEPS = 50
"""No more is taken to come after so many steps without a message."""


@dataclass(frozen=True)
class Target:
    """What a viewer asks for: port of 127.0.0.1, and path."""

    port: int
    path: str


@dataclass(frozen=True)
class Report:
    """What the viewers have counted since the last reset; times in µs.

    Attributes:
        open, ready, shaking, stuck: Viewers that are connected; that have the job's state; that
            wait for the answer to their request; that never read.
        closed, refused, failed: Connections that the server closed, did not accept, that broke.
        arrived: Connections ever begun.
        messages: Stamped messages, of all viewers.
        bytes: Bytes received.
        others: Messages without a stamp.
        missed, repeated: By the numbers in the messages.
        least, most: Messages of the viewers that got least and most.
        p50_us, p99_us, max_us: From the stamp to the receipt.
        ready_p50_us, ready_p99_us: From connecting to having the job's state.
        all_ready_us: From the reset to the last of those.
        seconds: Since the reset.
        cpu_seconds: What the client itself used since it started.
    """

    open: int
    ready: int
    shaking: int
    stuck: int
    closed: int
    refused: int
    failed: int
    arrived: int
    messages: int
    bytes: int
    others: int
    missed: int
    repeated: int
    least: int
    most: int
    p50_us: int
    p99_us: int
    max_us: int
    ready_p50_us: int
    ready_p99_us: int
    all_ready_us: int
    seconds: float
    cpu_seconds: float


class NotConnected(Exception):
    """The server did not take all viewers in time."""


class Viewers:
    """A running load client; see `native/client.c` for what it can be told."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def tell(self, command: str) -> None:
        """Send a command."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()

    def report(self) -> Report:
        """What has been counted since the last reset."""
        assert self.process.stdout is not None
        self.tell("report")
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the load client has ended: {self.process.wait()}")
        return Report(**json.loads(line))

    def reset(self) -> None:
        """Count anew."""
        self.tell("reset")

    def open(self, count: int, seconds: float = 60.0) -> Report:
        """Have so many viewers in all, each with the state of its job.

        Raises:
            NotConnected: Not in this time, or the server refused one.
        """
        self.tell(f"open {count}")
        report = self.wait(
            lambda it: it.ready >= count or it.refused > 0, f"{count} viewers ready", seconds
        )
        if report.refused:
            raise NotConnected(f"the server refused viewers: {report}")
        return report

    def wait(self, enough: Callable[[Report], bool], what: str, seconds: float = 60.0) -> Report:
        """Wait until a report says `enough`.

        Raises:
            NotConnected: None did in this time.
        """
        deadline = time.monotonic() + seconds
        while not enough(report := self.report()):
            if time.monotonic() > deadline:
                raise NotConnected(f"not within {seconds:g} s: {what}; {report}")
            time.sleep(STEP_SECONDS)
        return report

    def settle(self, expected: int) -> Report:
        """Wait until so many stamped messages have come, or no more come."""
        report, silent = self.report(), 0
        while report.messages < expected and silent < SILENT_STEPS:
            time.sleep(STEP_SECONDS)
            before, report = report, self.report()
            silent = silent + 1 if report.messages == before.messages else 0
        return report


@contextlib.contextmanager
def viewers(
    transport: str,
    targets: Sequence[Target],
    cores: Cores,
    *,
    token: str | None = None,
    at_once: int = AT_ONCE,
    ready_when_open: bool = False,
) -> Iterator[Viewers]:
    """Run a load client, without viewers at first.

    Args:
        transport: ws or sse.
        targets: What the viewers ask for, in turn.
        cores: It runs on those of the load.
        token: Credentials that each presents.
        ready_when_open: The server sends nothing of its own to a new viewer.
    """
    header = f"Authorization: Bearer {token}\r\n" if token else ""
    with tempfile.TemporaryDirectory(prefix="livejobs-viewers-") as folder:
        file = Path(folder) / "targets"
        file.write_text("".join(f"127.0.0.1 {it.port} {it.path}\n" for it in targets), "utf-8")
        command = [
            *(str(program("client")), transport, str(file), header, str(SOURCES), str(at_once)),
            *(str(int(ready_when_open)), str(file_limit() - SPARE_FILES)),
        ]
        with on_cores(cores.load):
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        try:
            yield Viewers(process)
        finally:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                with contextlib.suppress(BrokenPipeError):
                    if stream is not None:
                        stream.close()
