"""What a worker publishes, at a given rate: a process of its own, led by lines of JSON.

Each message carries the time it was published, in ns of the monotonic clock, and a number that
grows by one in each job, so that the load client knows how long it took and whether one is missing.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from livejobs.entries import FORMAT, Entry, ProgressReport, channel
from livejobs.live import Live, Publication
from livejobs.settings import get_settings

from .processes import on_cores
from .stage import Stage

PROGRESS: Final = "progress"
"""Through the script that workers use; the newest is enough for a viewer that lags."""
ENTRIES: Final = "entries"
"""The same with pieces of output, none of which may be missing."""
RAW: Final = "raw"
"""Progress as the script publishes it, without the script: for rates that it does not reach."""
_MOST_UNANSWERED: Final = 20_000
_TICK_SECONDS: Final = 0.002


@dataclass(frozen=True)
class Order:
    """What to publish.

    Attributes:
        kind: PROGRESS, ENTRIES or RAW.
        jobs: Jobs, in turn.
        rate: Messages a second, of all jobs together.
        count: Messages in all.
        padding: Bytes by which each is longer than it has to be.
    """

    kind: str
    jobs: Sequence[str]
    rate: float
    count: int
    padding: int = 0


@dataclass(frozen=True)
class Done:
    """What was published.

    Attributes:
        count: Messages.
        seconds: How long it took.
    """

    count: int
    seconds: float

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.count / max(self.seconds, 1e-9)


class Publisher:
    """A running publisher."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def start(self, order: Order) -> None:
        """Begin."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(order)) + "\n")
        self._process.stdin.flush()

    def wait(self) -> Done:
        """Until all has been published."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the publisher has ended: {self._process.wait()}")
        return Done(**json.loads(line))

    def publish(self, kind: str, jobs: Sequence[str], rate: float, seconds: float) -> Done:
        """Publish at a rate for a time."""
        self.start(Order(kind, jobs, rate, max(1, round(rate * seconds))))
        return self.wait()


@contextlib.contextmanager
def publisher(stage: Stage) -> Iterator[Publisher]:
    """Run one on the cores of the load."""
    with on_cores(stage.cores.load):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.publisher"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **stage.env},
            text=True,
        )
    try:
        yield Publisher(process)
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            with contextlib.suppress(BrokenPipeError):
                if stream is not None:
                    stream.close()


# -- in the process -------------------------------------------------------------------------------


class _Writer:
    """Publishes; knows the number of each job's last message."""

    def __init__(self) -> None:
        self._live = Live(get_settings())
        self._numbers: dict[str, int] = {}
        self._last_n: dict[str, int] = {}

    def obey(self, order: Order) -> Done:
        began = time.monotonic()
        if order.kind == RAW:
            self._publish_raw(order)
        else:
            self._publish_by_script(order, began)
        return Done(order.count, time.monotonic() - began)

    def _publish_by_script(self, order: Order, began: float) -> None:
        for done in range(order.count):
            early = began + done / order.rate - time.monotonic()
            if early > 0:
                time.sleep(early)
            job_id = order.jobs[done % len(order.jobs)]
            self._live.publish(self._publication(order.kind, job_id, "x" * order.padding))

    def _publication(self, kind: str, job_id: str, padding: str) -> Publication:
        number = self._next(job_id)
        stamp = f'"t":{time.monotonic_ns()},"i":{number}'
        n = self._last_n.get(job_id, 0)
        if kind == PROGRESS:
            text = f'{{"current":{number},"total":1000,"data":{{{stamp},"x":"{padding}"}}}}'
            return Publication(job_id, 1, n, progress=ProgressReport(number, text))
        self._last_n[job_id] = n + 1
        entry = Entry(n + 1, "output", f'"text":"a piece{padding}",{stamp}}}')
        return Publication(job_id, 1, n + 1, [entry])

    def _next(self, job_id: str) -> int:
        number = self._numbers[job_id] = self._numbers.get(job_id, 0) + 1
        return number

    def _publish_raw(self, order: Order) -> None:
        address = get_settings().redis_url.rpartition("@")[2].removeprefix("redis://")
        host, _, port = address.partition("/")[0].partition(":")
        with socket.create_connection((host, int(port))) as connection:
            began, done, answered = time.monotonic(), 0, 0
            while done < order.count:
                due = min(order.count, int((time.monotonic() - began) * order.rate) + 1)
                now = time.monotonic_ns()
                jobs, size = order.jobs, len(order.jobs)
                commands = [self._command(jobs[k % size], now) for k in range(done, due)]
                connection.sendall(b"".join(commands))
                done = due
                answered += _read_answers(connection, done - answered - _MOST_UNANSWERED)
                time.sleep(_TICK_SECONDS)
            while answered < done:
                answered += _read_answers(connection, 1)

    def _command(self, job_id: str, now: int) -> bytes:
        number = self._next(job_id)
        message = (
            f'{FORMAT} 1 0 0 {number} progress\n{{"type":"progress","id":"1-0","job_id":"{job_id}",'
            f'"attempt":1,"seq":{number},"progress":{{"current":{number},"total":1000,'
            f'"data":{{"t":{now},"i":{number}}}}}}}'
        )
        name = channel(job_id)
        return (
            f"*3\r\n$7\r\nPUBLISH\r\n${len(name)}\r\n{name}\r\n${len(message)}\r\n{message}\r\n"
        ).encode()


def _read_answers(connection: socket.socket, least: int) -> int:
    """Read answers, at least so many; each is a line."""
    found = 0
    connection.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while data := connection.recv(1 << 16):
            found += data.count(b"\n")
    connection.setblocking(True)
    while found < least:
        found += connection.recv(1 << 16).count(b"\n")
    return found


def _main() -> None:
    writer = _Writer()
    for line in sys.stdin:
        fields: dict[str, Any] = json.loads(line)
        print(json.dumps(asdict(writer.obey(Order(**fields)))), flush=True)


if __name__ == "__main__":
    _main()
