"""A small model of what surrounds the hub: jobs, their database and Redis, and clients.

Everything that takes time is a queue that somebody else moves along: commands to Redis, what Redis
sends, and reads. So a test can interleave it all in any order.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from livejobs.entries import Cursor
from livejobs_server.push.feed_exchange import Changes, Glance
from livejobs_server.push.hub import (
    EntriesWanted,
    Hub,
    Read,
    Snapshot,
    Subscribe,
    Unsubscribe,
)
from livejobs_server.push.wire import Frame

from .hub_stage import entries, published

PAGE = 3
"""Entries in one answer to a read."""


@dataclass
class Job:
    """The truth about one job, and how much of it the database and Redis have."""

    job_id: str
    attempt: int = 1
    n: int = 0
    version: int = 1
    seq: int = 0
    final: bool = False
    saved_n: int = 0
    saved_seq: int = 0
    # Redis: the stream's first entry, and the newest progress.
    stream_from: int = 1
    live_seq: int = 0
    flushed: bool = False

    def save(self) -> None:
        self.saved_n, self.saved_seq = self.n, self.seq

    def report(self) -> None:
        """The worker saves, which nobody publishes."""
        if not self.final:
            self.save()
            self.version += 1

    def flush(self) -> None:
        self.stream_from, self.live_seq, self.flushed = self.n + 1, 0, True

    def begin(self) -> None:
        """A new attempt."""
        self.attempt += 1
        self.version += 1
        self.n = self.seq = self.saved_n = self.saved_seq = self.live_seq = 0
        self.stream_from = 1

    def glance(self) -> Glance:
        """What a round finds now."""
        return Glance(
            job_id=self.job_id,
            owner="me",
            parent_id=None,
            final=self.final,
            attempt=self.attempt,
            version=self.version,
            seq=self.saved_seq,
            last=self.saved_n,
            shape=0,
            changed=0,
        )

    def snapshot(self, read: Read, redis: bool = True) -> Snapshot:
        """What a read finds now, where Redis answers or does not."""
        gapless = redis and self.saved_n >= self.stream_from - 1
        last = self.n if gapless else self.saved_n
        start = last
        if read.after is not None:
            start = read.after.n if read.after.attempt == self.attempt else 0
        elif read.tail is not None:
            start = max(0, last - read.tail)
        numbers = range(start + 1, last + 1)
        return Snapshot(
            job_id=self.job_id,
            owner="me",
            final=self.final,
            attempt=self.attempt,
            version=self.version,
            seq=max(self.saved_seq, self.live_seq if redis else 0),
            view=b"{}",
            entries=entries(*numbers[:PAGE], attempt=self.attempt),
            last=last,
            more=len(numbers) > PAGE,
            sure=redis or self.final,
        )


@dataclass
class Told:
    """What a client has been told about one job."""

    wanted: EntriesWanted = "all"
    attempt: int = 0
    n: int = 0
    version: int = 0
    seq: int = 0
    final: bool = False
    greeted: bool = False
    placed: bool = False
    over: bool = False

    def take(self, frame: Frame, job: Job) -> None:
        """Apply a frame as a client does, and insist on what it may rely on."""
        assert not self.over, f"{frame} after the end"
        if frame.kind == "subscribed":
            assert not self.greeted
            assert b'"recovered":true' in frame.payload
            self.greeted = True
            return
        assert self.greeted, f"{frame} before subscribed"
        if frame.kind in {"job", "final"}:
            self._take_view(frame)
        elif frame.kind == "progress":
            assert frame.attempt == self.attempt
            assert self.wanted == "none" or frame.n <= self.n
            assert frame.seq > self.seq
            self.seq = frame.seq
        elif frame.kind == "log":
            self._take_entry(frame, job)
        else:
            assert frame.kind == "end"
            assert self.final, "end before the final view"
            assert self.wanted == "none" or frame.n == self.n, "end before the entries"
            requeued = job.version > self.version
            assert requeued or self.wanted == "none" or self.n == job.n, "end before all entries"
            self.over = True

    def _take_view(self, frame: Frame) -> None:
        assert frame.version >= self.version, "an older view"
        assert frame.attempt >= self.attempt
        skips = self.wanted == "none" or (self.wanted != "all" and not self.placed)
        if frame.attempt > self.attempt:
            assert skips or frame.n == 0
            self.attempt, self.n = frame.attempt, frame.n
        elif skips:
            self.n = max(self.n, frame.n)
        assert frame.n <= self.n, "a cursor past entries that were not sent"
        self.placed = True
        self.version, self.seq, self.final = frame.version, frame.seq, frame.kind == "final"

    def _take_entry(self, frame: Frame, job: Job) -> None:
        assert self.wanted != "none"
        assert frame.attempt == self.attempt
        if job.flushed and frame.n <= self.n:
            return  # Back with a cursor that nobody but its worker knew: sent again, and dropped.
        assert frame.n == self.n + 1, f"{frame} after {self.attempt}-{self.n}"
        self.n = frame.n


@dataclass(eq=False)
class Client:
    """A viewer that checks what it is told."""

    jobs: dict[str, Job]
    allowed: bool = True
    room: int | None = None
    watches: Any = None
    told: dict[str, Told] = field(default_factory=dict)
    complaints: list[AssertionError] = field(default_factory=list)

    def deliver(self, frame: Frame) -> bool:
        if self.room == 0:
            return False
        if self.room is not None:
            self.room -= 1
        try:
            self._take(frame)
        except AssertionError as complaint:
            # The hub would take it for a broken connection.
            self.complaints.append(complaint)
        return True

    def _take(self, frame: Frame) -> None:
        if frame.kind == "missing":
            assert not self.allowed
            del self.told[frame.job_id]
        else:
            assert self.allowed, "somebody else's job"
            self.told[frame.job_id].take(frame, self.jobs[frame.job_id])

    def may_see(self, job_id: str, owner: str) -> bool:
        return self.allowed

    @property
    def watched(self) -> list[str]:
        return [job_id for job_id, told in self.told.items() if not told.over]


class World:
    """The hub, its clients, Redis and the database."""

    def __init__(self, job_ids: str = "ab", crowd: int = 100) -> None:
        self.hub = Hub(crowd=crowd)
        self.jobs = {job_id: Job(job_id) for job_id in job_ids}
        self.clients: list[Client] = []
        self.online = False
        self.channels: set[str] = set()
        self.commands: deque[Subscribe | Unsubscribe] = deque()
        self.arriving: deque[tuple[str, bytes | None]] = deque()
        self.reads: list[Read] = []
        self.found: list[tuple[Read, Snapshot]] = []

    # -- the connection -------------------------------------------------------------------------

    def connect(self) -> None:
        self.online = True
        self.hub.connected()

    def disconnect(self) -> None:
        self.online = False
        self.channels.clear()
        self.commands.clear()
        self.arriving.clear()
        self.hub.disconnected()

    def execute_command(self) -> None:
        command = self.commands.popleft()
        if isinstance(command, Subscribe):
            self.channels.add(command.job_id)
            self.arriving.append((command.job_id, None))
        else:
            self.channels.discard(command.job_id)

    def arrive(self) -> None:
        job_id, data = self.arriving.popleft()
        if data is None:
            self.hub.subscribed(job_id)
        else:
            self.hub.published(job_id, data)

    def publish(self, job: Job, kind: str, lost: bool, **numbers: int) -> None:
        if job.job_id in self.channels and not lost:
            data = published(kind, job.attempt, job.n, **numbers)
            self.arriving.append((job.job_id, data))

    def publish_view(self, job: Job, lost: bool) -> None:
        kind = "final" if job.final else "job"
        self.publish(job, kind, lost, version=job.version, seq=job.seq)

    # -- reads ----------------------------------------------------------------------------------

    def take_actions(self, max_reads: int | None) -> None:
        for action in self.hub.take_actions(max_reads):
            if isinstance(action, Read):
                self.reads.append(action)
            else:
                self.commands.append(action)

    def perform_read(self, index: int, redis: bool = True) -> None:
        read = self.reads.pop(index)
        self.found.append((read, self.jobs[read.job_id].snapshot(read, redis)))

    def answer_read(self, index: int) -> None:
        self.hub.snapshot(*self.found.pop(index))

    def look(self) -> None:
        """A round compares everything with the database."""
        self.hub.look(Changes(0, [job.glance() for job in self.jobs.values()]))

    # -- clients --------------------------------------------------------------------------------

    def watch(
        self, client: Client, job_id: str, wanted: EntriesWanted, told: Told | None = None
    ) -> None:
        """Subscribe, with `told` as what the client knows from before."""
        if told is None:
            client.told[job_id] = Told(wanted)
            self.hub.subscribe(client, job_id, None, wanted)
            return
        told.greeted = False
        client.told[job_id] = told
        cursor = Cursor(told.attempt, told.n)
        self.hub.subscribe(client, job_id, cursor, wanted, told.version, told.seq)

    def reconnect(self, client: Client) -> Client:
        """The client's connection breaks, and it comes back with its cursors."""
        self.hub.remove(client)
        self.clients.remove(client)
        back = Client(self.jobs, client.allowed)
        for job_id in client.watched:
            told = client.told[job_id]
            self.watch(back, job_id, told.wanted, told if told.placed else None)
        self.clients.append(back)
        return back

    # -- rest -----------------------------------------------------------------------------------

    def settle(self) -> None:
        """Nothing new happens any more; everything under way comes to its end."""
        if not self.online:
            self.connect()
        for job in self.jobs.values():
            job.report()
        self._run()
        # What was lost on the way is found by looking.
        self.look()
        self._run()

    def _run(self) -> None:
        for _ in range(1000):
            for client in self.clients:
                client.room = None
                self.hub.resume(client)
            self.hub.retry_reads()
            if not self.round():
                return
        raise AssertionError("the hub does not come to rest")

    def round(self) -> bool:
        """Everything under way goes one step on; whether there was anything."""
        while self.hub.proceed():
            pass
        self.take_actions(None)
        busy = bool(self.commands or self.arriving or self.reads or self.found)
        while self.commands:
            self.execute_command()
        while self.arriving:
            self.arrive()
        while self.reads:
            self.perform_read(0)
        while self.found:
            self.answer_read(0)
        return busy

    def check_rest(self) -> None:
        """Every client knows the truth."""
        for client in self.clients:
            for job_id, told in client.told.items():
                job = self.jobs[job_id]
                if told.over:
                    continue
                assert not job.final, f"{job_id} is over, and nobody was told"
                assert (told.version, told.attempt, told.seq) == (
                    job.version, job.attempt, job.seq,
                )  # fmt: skip
                assert told.wanted == "none" or told.n == job.n
        self.check_figures()

    def check_figures(self) -> None:
        """The hub knows exactly those subscriptions that the clients have, and none complains."""
        for client in self.clients:
            for complaint in client.complaints:
                raise complaint
        watched = [client.watched for client in self.clients]
        assert self.hub.subscriptions == sum(map(len, watched))
        assert self.hub.viewers == sum(map(bool, watched))
        assert self.hub.topics == len({job_id for each in watched for job_id in each})
