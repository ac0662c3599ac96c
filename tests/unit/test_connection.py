"""One viewer between the hub and its transport: it always gets further, and ends for one reason."""

from __future__ import annotations

import asyncio
import json
import time
from types import SimpleNamespace
from typing import cast

import pytest

from livejobs.settings import Settings
from livejobs_server.push.connection import Connection, Ending
from livejobs_server.push.departure import Departure
from livejobs_server.push.exchange import Entry, Read, Snapshot, Subscribe
from livejobs_server.push.feeds import Feeds
from livejobs_server.push.gate import Gate
from livejobs_server.push.hub import Hub
from livejobs_server.push.outage import Outage
from livejobs_server.push.sse import first_frames
from livejobs_server.push.subscriptions import Wanted, WantedFeed
from livejobs_server.push.wire import missing_frame
from livejobs_server.services import Services
from livejobs_server.viewer import Viewer

from ..support.waiting import wait_until_async

ALICE = Viewer("alice")
JOBS = [f"job-{number}" for number in range(30)]


class Desk:
    """A hub whose reads are answered at once: each job has two entries.

    Args:
        final: The jobs are over.
    """

    def __init__(
        self, ping_interval: float = 15.0, limit: int = 16 * 1024, *, final: bool = True
    ) -> None:
        self._final = final
        settings = Settings(ping_interval=ping_interval, viewer_buffer_bytes=limit)
        self.hub = Hub()
        self.hub.connected()
        self._kicked = False
        self.outage = Outage()
        relay = SimpleNamespace(kick=self._kick, outage=self.outage)
        self.departure = Departure()
        services = SimpleNamespace(
            settings=settings,
            hub=self.hub,
            feeds=Feeds(),
            relay=relay,
            gate=Gate(settings),
            departure=self.departure,
        )
        self.services = cast(Services, services)

    def _kick(self) -> None:
        # Like the relay: not now, but when the caller is done.
        if not self._kicked:
            self._kicked = True
            asyncio.get_running_loop().call_soon(self._work)

    def _work(self) -> None:
        self._kicked = False
        self.hub.proceed()
        while actions := self.hub.take_actions():
            for action in actions:
                if isinstance(action, Subscribe):
                    self.hub.subscribed(action.job_id)
                elif isinstance(action, Read):
                    self.hub.snapshot(action, snapshot_of(action, self._final))


def snapshot_of(read: Read, final: bool) -> Snapshot:
    entries = [Entry(n, entry(read.job_id, n), "log") for n in (1, 2)]
    after = read.after.n if read.after is not None and read.after.attempt == 1 else 0
    return Snapshot(
        job_id=read.job_id,
        owner="alice",
        final=final,
        attempt=1,
        version=3,
        view=b'{"filler":"%b"}' % (b"x" * 2000),
        entries=entries[after:],
        last=2,
    )


def entry(job_id: str, n: int) -> bytes:
    message = {"type": "log", "id": f"1-{n}", "job_id": job_id, "filler": "x" * 5000}
    return json.dumps(message).encode()


async def test_viewer_of_many_jobs_with_a_small_outbox_is_told_everything_once() -> None:
    connection = Connection(Desk().services, ALICE)
    for job_id in JOBS:
        assert connection.watch(Wanted(job_id)) is None
    told: list[tuple[str, str, int]] = []
    async with asyncio.timeout(10):
        while not connection.has_told_all:
            frame = await connection.next()
            assert frame is not None
            told.append((frame.job_id, frame.kind, frame.n))
            # Its peer is slow: the hub has all the time to fill the outbox up.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
    connection.close()
    assert sorted(told) == sorted(
        (job_id, kind, n)
        for job_id in JOBS
        for kind, n in [("subscribed", 0), ("final", 0), ("log", 1), ("log", 2), ("end", 2)]
    )


async def test_silence_is_filled_with_pings() -> None:
    connection = Connection(Desk(ping_interval=0.01).services, ALICE)
    frames = [await connection.next() for _ in range(2)]
    assert [frame.kind for frame in frames if frame is not None] == ["ping", "ping"]
    connection.close()


async def test_first_frames_of_a_stream_are_no_pings() -> None:
    connection = Connection(Desk(ping_interval=0.01).services, ALICE)
    # The state of the job takes longer than the first pings.
    asyncio.get_running_loop().call_later(0.1, connection.deliver, missing_frame("j"))
    assert [frame.kind for frame in await first_frames(connection, 5)] == ["missing"]
    assert await first_frames(connection, 0.1) == []
    connection.close()


async def test_connection_ends_when_its_credentials_do() -> None:
    viewer = Viewer("alice", expires_at=time.time() + 0.05)
    connection = Connection(Desk().services, viewer)
    assert await connection.next() is None
    assert connection.ending is Ending.EXPIRED
    connection.close()


async def test_first_reason_to_end_stays() -> None:
    desk = Desk()
    connection = Connection(desk.services, ALICE)
    writer = asyncio.create_task(connection.next())
    await asyncio.sleep(0)
    desk.departure.begin()
    assert await asyncio.wait_for(writer, 5) is None
    connection.end(Ending.STALLED)
    connection.close()
    assert connection.ending is Ending.LEAVING
    # What opens now ends at once.
    assert Connection(desk.services, ALICE).ending is Ending.LEAVING


async def test_closed_connection_is_forgotten_by_the_hub() -> None:
    desk = Desk()
    connection = Connection(desk.services, ALICE)
    connection.watch(Wanted("j"))
    assert desk.hub.viewers == 1
    connection.close()
    connection.close()
    assert (desk.hub.viewers, connection.ending) == (0, Ending.GONE)


async def test_other_credentials_unwatch_what_they_may_not_see() -> None:
    desk = Desk(final=False)
    connection = Connection(desk.services, ALICE)
    for job_id in ("kept", "hidden"):
        connection.watch(Wanted(job_id))
    await wait_until_async(lambda: connection.answered, description="both are answered")
    connection.watch(Wanted("not answered yet"))
    connection.follow(WantedFeed("mine"))
    connection.follow(WantedFeed("tag:a=b"))
    told = connection.become(Viewer("alice", jobs=frozenset({"kept"})))
    assert [frame.job_id for frame in told] == ["hidden"]
    assert connection.watching == 4
    told = connection.become(Viewer("alice", feed="mine"))
    assert [frame.job_id for frame in told] == ["kept", ""]
    assert json.loads(told[-1].payload)["feed"] == "tag:a=b"
    assert connection.followed == ["mine"]
    assert not connection.may_see("not answered yet", "alice")
    connection.close()


@pytest.mark.parametrize("job_id", ["", "a\0b", "x" * 256])
async def test_impossible_job_is_answered_without_the_hub(job_id: str) -> None:
    desk = Desk()
    connection = Connection(desk.services, ALICE)
    answer = connection.watch(Wanted(job_id, ref=4))
    assert answer is not None
    assert json.loads(answer.payload)["code"] == "unknown_job"
    assert (desk.hub.viewers, connection.watching) == (0, 0)
    connection.close()


async def test_connection_without_a_viewer_sees_nothing() -> None:
    connection = Connection(Desk().services, None)
    assert not connection.may_see("j", "")
    assert connection.seconds_left() == float("inf")
    connection.close()
