"""`make chaos-outage`: Redis is killed for a while under many viewers of many running jobs.

No job fails, viewers go on seeing updates, and all is as before soon after its return.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import sys
import time
from asyncio import StreamReader
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from livejobs.database import Database
from livejobs_server import sign_token

from .driver import Driver
from .evidence import status_of
from .plan import OWNER, SERVERS, VALKEY, WORKERS, Order
from .run import TOKEN_SECONDS
from .stage import Stage, stage
from .viewers import Viewers

BEFORE_SECONDS: Final = 5.0
"""What is seen before the outage, for comparison …"""
AFTER_SECONDS: Final = 10.0
"""… and after it."""
MOST_SECONDS: Final = 3.0
"""Between two updates at a viewer; and until all is as before."""
FULL_SPEED_SECONDS: Final = 1.0
"""Between two updates where all is as before: they come four times a second."""
START_SECONDS: Final = 90.0
AGAIN_SECONDS: Final = 0.1
UPDATES: Final = (b'"type":"progress"', b'"type":"job"')


@dataclass
class Eye:
    """One who watches, and when it was told something.

    Attributes:
        told: Moments of updates, by the monotonic clock.
        lost: How often its connection was lost.
    """

    told: list[float] = field(default_factory=list)
    lost: int = 0

    def longest(self, since: float, until: float) -> float:
        """The longest time without an update."""
        moments = [since, *(it for it in self.told if since < it < until), until]
        return max(later - earlier for earlier, later in itertools.pairwise(moments))


@dataclass(frozen=True)
class Found:
    """What came of it.

    Attributes:
        before: Longest time without an update before the outage, in seconds, of all viewers.
        during: The same from the kill until the return is done with.
        after: The same from `MOST_SECONDS` after the return.
        lost: Connections lost.
        ends: How the jobs ended.
        attempts: The most attempts of a job.
    """

    before: float
    during: float
    after: float
    lost: int
    ends: dict[str, int]
    attempts: int

    def text(self) -> str:
        """In words."""
        return (
            f"longest time without an update: {self.before:.2f} s before, {self.during:.2f} s "
            f"during the outage and the {MOST_SECONDS:g} s after it, {self.after:.2f} s from then "
            f"on\nconnections lost: {self.lost}; jobs: {self.ends}, in {self.attempts} attempts"
        )

    def wrong(self, *, in_time: bool = True) -> list[str]:
        """What is not as it has to be.

        Args:
            in_time: Judge times too.
        """
        found = []
        if set(self.ends) != {"completed"}:
            found.append(f"not all jobs completed: {self.ends}")
        if in_time and self.during > MOST_SECONDS:
            found.append(f"a viewer was told nothing for {self.during:.2f} s")
        if in_time and self.after > FULL_SPEED_SECONDS:
            found.append(f"after the return a viewer was told nothing for {self.after:.2f} s")
        return found


async def outage(
    viewers: int, jobs: int, seconds: float, logs: Path | None = None
) -> tuple[Found, str]:
    """Kill Redis for so long; what came of it, and how the worker took it."""
    lasting = BEFORE_SECONDS + seconds + AFTER_SECONDS
    async with stage(processes=jobs, logs=logs, pool="threads") as on:
        token = sign_token(owner=OWNER, settings=on.settings, ttl_seconds=TOKEN_SECONDS)
        driver = Driver(on, Viewers(on.url, token), token)
        database = Database(on.settings)
        worker = on.parts[WORKERS[0]]
        await worker.start()
        try:
            ids = await _running(on, driver, database, jobs, lasting)
            async with _watching(on, ids, viewers, token) as eyes:
                found = await _break(on, eyes, seconds)
            await _over(database, ids)
            statuses = await asyncio.to_thread(status_of, database, ids)
            attempts = max(it.attempt for it in on.witness.all())
        finally:
            await driver.close()
            database.close()
        ends = {status: statuses.count(status) for status in set(statuses)}
        lost = sum(eye.lost for eye in eyes)
        return Found(*found, lost, ends, attempts), f"the worker gave up {worker.gave_up} times"


async def _running(
    on: Stage, driver: Driver, database: Database, jobs: int, lasting: float
) -> list[str]:
    """Jobs that all run, and go on for long enough after the last one has begun."""
    args = (lasting + START_SECONDS / 3,)
    orders = [
        Order(f"outage-{number}", 0.0, "tick", args, SERVERS[number % 2]) for number in range(jobs)
    ]
    placed = await asyncio.gather(*map(driver.place, orders))
    deadline = time.monotonic() + START_SECONDS
    while len(await asyncio.to_thread(on.witness.all)) < jobs:
        if time.monotonic() > deadline:
            raise TimeoutError(f"not all jobs run within {START_SECONDS:g} s")
        await asyncio.sleep(AGAIN_SECONDS)
    return [it.ids[0] for it in placed]


async def _break(on: Stage, eyes: list[Eye], seconds: float) -> tuple[float, float, float]:
    deadline = time.monotonic() + START_SECONDS
    while not all(eye.told for eye in eyes):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not all viewers were told anything within {START_SECONDS:g} s")
        await asyncio.sleep(AGAIN_SECONDS)
    began = time.monotonic()
    await asyncio.sleep(BEFORE_SECONDS)
    killed = time.monotonic()
    await on.parts[VALKEY].kill()
    await asyncio.sleep(seconds)
    await on.parts[VALKEY].start()
    steady = time.monotonic() + MOST_SECONDS
    await asyncio.sleep(AFTER_SECONDS)
    end = time.monotonic()
    spans = ((began, killed), (killed, steady), (steady, end))
    before, during, after = (max(eye.longest(*span) for eye in eyes) for span in spans)
    return before, during, after


async def _over(database: Database, ids: list[str]) -> None:
    """Wait until the jobs are over, or it has been too long."""
    deadline = time.monotonic() + 2 * START_SECONDS
    while time.monotonic() < deadline:
        if not {"pending", "processing"} & set(await asyncio.to_thread(status_of, database, ids)):
            return
        await asyncio.sleep(AGAIN_SECONDS)


# -- viewers ---------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _watching(on: Stage, ids: list[str], count: int, token: str) -> AsyncIterator[list[Eye]]:
    """Viewers, four in five by WebSocket and the others by event stream."""
    eyes = [Eye() for _ in range(count)]
    tasks = []
    for number, eye in enumerate(eyes):
        port = on.ports[SERVERS[number % len(SERVERS)]]
        look = _by_stream if number % 5 == 0 else _by_socket
        tasks.append(asyncio.create_task(look(eye, port, ids[number % len(ids)], token)))
    try:
        yield eyes
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _by_socket(eye: Eye, port: int, job_id: str, token: str) -> None:
    url = f"ws://127.0.0.1:{port}/v1/jobs/{job_id}/ws"
    headers = {"Authorization": f"Bearer {token}"}
    while True:
        with contextlib.suppress(OSError, WebSocketException):
            async with connect(
                url, additional_headers=headers, compression=None, proxy=None, ping_interval=None
            ) as socket:
                while True:
                    _note(eye, await socket.recv(decode=False))
        eye.lost += 1
        await asyncio.sleep(AGAIN_SECONDS)


async def _by_stream(eye: Eye, port: int, job_id: str, token: str) -> None:
    head = (
        f"GET /v1/jobs/{job_id}/events HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer {token}\r\n\r\n"
    )
    while True:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head.encode())
            try:
                await _read(eye, reader)
            finally:
                writer.close()
        eye.lost += 1
        await asyncio.sleep(AGAIN_SECONDS)


async def _read(eye: Eye, reader: StreamReader) -> None:
    while line := await reader.readline():
        _note(eye, line)


def _note(eye: Eye, message: bytes) -> None:
    if any(update in message for update in UPDATES):
        eye.told.append(time.monotonic())


def main(given: Sequence[str] | None = None) -> int:
    """Run it; 1: it is not as it has to be."""
    parser = argparse.ArgumentParser(prog="make chaos-outage", description=__doc__)
    parser.add_argument("--viewers", type=int, default=500)
    parser.add_argument("--jobs", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=30.0, help="that Redis is away")
    parser.add_argument("--logs", type=Path, help="a folder for the logs of all parts")
    given_arguments = parser.parse_args(given)
    found, worker = asyncio.run(
        outage(
            given_arguments.viewers,
            given_arguments.jobs,
            given_arguments.seconds,
            given_arguments.logs,
        )
    )
    wrong = found.wrong()
    print(found.text(), worker, *wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
