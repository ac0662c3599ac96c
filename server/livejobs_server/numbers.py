"""What a server process counts; with several on a port, what each of them does.

Nothing is computed but when somebody asks: what is counted are plain numbers of the parts.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

from .members import Member, this_member
from .push.open_files import NO_LIMIT, lowest_free, open_files
from .samples import Sample
from .services import Services

SIBLING_SECONDS: Final = 0.5
"""How long another process may take to tell its numbers."""
MAX_BYTES: Final = 1024 * 1024
"""What another process tells, at most."""

_log = logging.getLogger("livejobs.server")


def samples_of(services: Services) -> Iterator[Sample]:
    """The numbers of this process."""
    counts, relay = services.counts, services.relay
    for transport in ("websocket", "sse"):
        yield Sample("viewers", (transport,), getattr(counts, f"{transport}_viewers"))
        yield Sample("deliveries", (transport,), getattr(counts, f"{transport}_deliveries"))
    yield Sample("viewers", ("poll",), counts.poll_viewers)
    yield Sample("deliveries", ("poll",), counts.poll_deliveries)
    for name in ("buffered_bytes", "coalesced", "stalled", "crowded_out", "fanouts"):
        yield Sample(name, (), getattr(counts, name))
    yield Sample("lagging_viewers", (), counts.lagging)
    yield Sample("fanout_seconds", (), counts.fanout_seconds)
    yield Sample("watched_jobs", (), services.hub.topics)
    for reason, number in services.gate.refused.items():
        yield Sample("refused", (reason,), number)
    yield Sample("refused", ("unheard",), open_files.turned_away)
    yield Sample("relay_messages", (), relay.messages)
    yield Sample("relay_lag_seconds", (), relay.lag)
    yield Sample("reads", (), relay.reads)
    yield Sample("read_failures", (), relay.read_failures)
    yield Sample("redis_connected", (), relay.connected)
    yield Sample("redis_connects", (), relay.connects)
    yield Sample("degraded", (), relay.outage.lasts)
    yield Sample("leaving", (), services.departure.begun)
    yield from _samples_of_process()


def _samples_of_process() -> Iterator[Sample]:
    yield Sample("open_files", (), _count_open_files())
    if open_files.limit < NO_LIMIT:
        yield Sample("open_files_limit", (), open_files.limit)
    with contextlib.suppress(OSError, ValueError, IndexError):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        yield Sample("resident_bytes", (), pages * os.sysconf("SC_PAGE_SIZE"))
    times = os.times()
    yield Sample("cpu_seconds", (), times.user + times.system)
    yield Sample("process_up", (), 1)


def _count_open_files() -> int:
    try:
        return len(os.listdir("/proc/self/fd")) - 1
    except OSError:
        return lowest_free()


# -- several processes ---------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def told_to_siblings(services: Services) -> AsyncIterator[None]:
    """Tell the other processes on this port the numbers of this one, whenever they ask."""
    member = this_member()
    if member is None:
        yield
        return

    async def tell(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            writer.write(json.dumps(list(samples_of(services))).encode())
            await writer.drain()
        writer.close()

    path = member.path()
    path.unlink(missing_ok=True)  # That of one that was killed.
    server = await asyncio.start_unix_server(tell, path)
    try:
        yield
    finally:
        server.close()


async def samples_by_process(services: Services) -> dict[str, list[Sample]]:
    """The numbers of all processes on this port, by the process's number."""
    own, member = list(samples_of(services)), this_member()
    if member is None:
        return {"1": own}
    numbers = range(1, member.of + 1)
    asked = [_ask(member, number) for number in numbers if number != member.number]
    others = iter(await asyncio.gather(*asked))
    return {str(number): own if number == member.number else next(others) for number in numbers}


async def _ask(member: Member, number: int) -> list[Sample]:
    try:
        async with asyncio.timeout(SIBLING_SECONDS):
            reader, writer = await asyncio.open_unix_connection(member.path(number))
            try:
                told = json.loads(await reader.read(MAX_BYTES))
            finally:
                writer.close()
        return [Sample(family, tuple(labels), value) for family, labels, value in told]
    except (OSError, ValueError, TimeoutError) as error:
        _log.info("server process %d does not tell its numbers: %r", number, error)
        return [Sample("process_up", (), 0)]
