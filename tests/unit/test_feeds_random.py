"""Whatever happens in whatever order: every follower's picture ends as the truth, never older."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from livejobs.entries import deletion_messages, owner_channel
from livejobs_server.push.exchange import Snapshot
from livejobs_server.push.feed_exchange import (
    Changes,
    Deleted,
    Glance,
    Leave,
    Listen,
    Listing,
    ListJobs,
    ReadJobs,
)
from livejobs_server.push.feeds import Feeds
from livejobs_server.push.scope import Scope
from livejobs_server.push.wire import Frame

from .feed_stage import MINE, SECOND, TAGGED, published, view_json

CHANNEL = owner_channel("me")
TAGS = {"a": {"k": "v"}, "b": {"k": "w"}, "c": {"k": "v"}}
PICK = st.integers(0, 99)
SELDOM = st.sampled_from([False, False, False, True])
WORK = st.sampled_from(["progress", "progress", "progress", "change", "report", "begin", "end"])


@dataclass
class Job:
    """The truth about one job."""

    job_id: str
    attempt: int = 1
    version: int = 1
    seq: int = 0
    saved_seq: int = 0
    final: bool = False
    deleted: bool = False
    changed: int = 0
    shown: int = 1

    @property
    def shape(self) -> int:
        """Of all that is to be seen; not of a report that was saved."""
        return hash((self.shown, self.final))

    def save(self, clock: int) -> None:
        """The worker saves what it reported, which nobody publishes."""
        self.version += 1
        self.changed = clock
        self.saved_seq = self.seq

    def glance(self) -> Glance:
        return Glance(
            self.job_id, "me", None, self.final, self.attempt, self.version, self.saved_seq, 0,
            self.shape, self.changed,
        )  # fmt: skip

    def snapshot(self) -> Snapshot:
        return Snapshot(
            job_id=self.job_id, owner="me", final=self.final, attempt=self.attempt,
            version=self.version, seq=self.seq, view=view_json(self.job_id, TAGS[self.job_id]),
            shape=self.shape,
        )  # fmt: skip


@dataclass(eq=False)
class Client:
    """A viewer that checks what it is told."""

    world: World
    scope: Scope
    room: int | None = None
    greeted: int = 0
    caught_up: bool = False
    picture: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    told_at: dict[str, list[float]] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)

    def may_see_in(self, feed: str, job_id: str, owner: str) -> bool:
        return owner == "me"

    def has_caught_up(self, feed: str) -> None:
        self.caught_up = True

    def deliver_in(self, feed: str, frame: Frame) -> bool:
        if self.room == 0:
            return False
        if self.room is not None:
            self.room -= 1
        if frame.kind == "subscribed":
            self.greeted += 1
            return True
        if not self.greeted:
            self.complaints.append(f"{frame} before subscribed")
        self._note_time(frame.job_id)
        self._take(frame)
        return True

    def _note_time(self, job_id: str) -> None:
        times = self.told_at.setdefault(job_id, [])
        times.append(self.world.now)
        if len([at for at in times if at > self.world.now - 0.999]) > 4:
            self.complaints.append(f"more than four messages in a second about {job_id}")

    def _take(self, frame: Frame) -> None:
        job_id = frame.job_id
        if self.scope is TAGGED and TAGS[job_id] != {"k": "v"} and frame.kind != "gone":
            self.complaints.append(f"{frame} has another tag")
        if frame.kind == "gone":
            self.picture.pop(job_id, None)
            return
        attempt, version, seq = self.picture.get(job_id, (0, 0, 0))
        if frame.kind == "progress":
            if not version or frame.attempt != attempt or frame.seq < seq:
                self.complaints.append(f"{frame} after {(attempt, version, seq)}")
            self.picture[job_id] = attempt, version, frame.seq
            return
        if frame.version < version or frame.attempt < attempt:
            self.complaints.append(f"{frame} after {(attempt, version, seq)}")
        self.picture[job_id] = frame.attempt, frame.version, frame.seq


class World:
    """Feeds, their followers, Redis and the database."""

    def __init__(self) -> None:
        self.feeds = Feeds()
        self.now = 1000.0
        self.jobs: dict[str, Job] = {}
        self.deleted: dict[str, int] = {}
        self.clients: list[Client] = []
        self.online = False
        self.listening = False
        self.commands: deque[Listen | Leave] = deque()
        self.arriving: deque[bytes | None] = deque()
        self.reads: list[ListJobs | ReadJobs] = []
        self.found: list[tuple[ListJobs, Listing] | tuple[ReadJobs, dict[str, Snapshot]]] = []

    @property
    def clock(self) -> int:
        return int(self.now * SECOND)

    # -- the connection --------------------------------------------------------------------------

    def connect(self) -> None:
        self.online = True
        self.feeds.connected()

    def disconnect(self) -> None:
        self.online = self.listening = False
        self.commands.clear()
        self.arriving.clear()
        self.feeds.disconnected()

    def execute_command(self) -> None:
        command = self.commands.popleft()
        self.listening = isinstance(command, Listen)
        if self.listening:
            self.arriving.append(None)

    def arrive(self) -> None:
        data = self.arriving.popleft()
        if data is None:
            self.feeds.subscribed(CHANNEL)
        else:
            self.feeds.published(CHANNEL, data)

    def publish(self, job: Job, kind: str, lost: bool, **numbers: int) -> None:
        if self.listening and not lost:
            data = published(
                kind, job.job_id, attempt=job.attempt, tags=TAGS[job.job_id], **numbers
            )
            self.arriving.append(data)

    def publish_view(self, job: Job, lost: bool) -> None:
        kind = "final" if job.final else "job"
        self.publish(job, kind, lost, version=job.version, seq=job.seq)

    def publish_deletion(self, job: Job, lost: bool) -> None:
        if self.listening and not lost:
            self.arriving.append(dict(deletion_messages(job.job_id, "me", None))[CHANNEL])

    # -- reads -----------------------------------------------------------------------------------

    def take_actions(self, max_reads: int | None) -> None:
        for action in self.feeds.take_actions(max_reads):
            if isinstance(action, ListJobs | ReadJobs):
                self.reads.append(action)
            else:
                self.commands.append(action)

    def in_scope(self, scope: Scope) -> list[Job]:
        return [
            job for job in self.jobs.values() if scope is MINE or TAGS[job.job_id] == {"k": "v"}
        ]

    def perform_read(self, index: int) -> None:
        read = self.reads.pop(index)
        jobs = self.in_scope(read.scope)
        if isinstance(read, ReadJobs):
            self.found.append(
                (read, {j.job_id: j.snapshot() for j in jobs if j.job_id in read.job_ids})
            )
            return
        since = read.since
        listed = [
            job.glance()
            for job in jobs
            if (read.open and not job.final) or (since is not None and job.changed >= since)
        ]
        gone = [
            Deleted(job_id, "me", None)
            for job_id, at in self.deleted.items()
            if since is not None and at >= since and job_id not in self.jobs
        ]
        listed.sort(key=lambda glance: glance.changed)
        self.found.append((read, Listing(self.clock, listed, gone)))

    def answer_read(self, index: int) -> None:
        read, answer = self.found.pop(index)
        if isinstance(read, ListJobs):
            assert isinstance(answer, Listing)
            self.feeds.listed(read, answer)
        else:
            assert isinstance(answer, dict)
            self.feeds.read(read, answer)

    def fail_read(self, index: int) -> None:
        read = self.reads.pop(index)
        if isinstance(read, ListJobs):
            self.feeds.listed(read, None)
        else:
            self.feeds.read(read, None)

    def look(self, everything: bool = True) -> None:
        """A round; else one of what changed in the last seconds."""
        since = 0 if everything else self.clock - 15 * SECOND
        jobs = [job.glance() for job in self.jobs.values() if job.changed >= since]
        gone = [
            Deleted(job_id, "me", None)
            for job_id, at in self.deleted.items()
            if at >= since and job_id not in self.jobs
        ]
        self.feeds.look(Changes(self.clock, jobs, gone))
        if everything:
            self.feeds.renew(self.clock)

    # -- rest ------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Nothing new happens any more; everything under way comes to its end."""
        if not self.online:
            self.connect()
        for job in self.jobs.values():
            if job.seq > job.saved_seq:
                job.save(self.clock)
        self._run()
        self.look()
        self._run()

    def _run(self) -> None:
        for _ in range(300):
            for client in self.clients:
                client.room = None
                self.feeds.resume(client)
            self.feeds.retry_reads()
            self.now += 0.3
            self.feeds.tick(self.now)
            if not self.round() and self.feeds.next_due is None:
                return
        raise AssertionError("the feeds do not come to rest")

    def round(self) -> bool:
        """Everything under way goes one step on; whether there was anything."""
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
            assert client.greeted
            assert client.caught_up
            for job in self.in_scope(client.scope):
                known = client.picture.get(job.job_id)
                if known is None:
                    assert job.final, f"{job.job_id} is open, and nobody was told"
                else:
                    assert known[0] == job.attempt
                    assert known[2] == job.seq
                    # Of saved reports alone nobody is told.
                    assert job.shown <= known[1] <= job.version
            assert set(client.picture) <= set(self.jobs), "a deleted job"
        self.check_figures()
        assert self.feeds.members <= 2 * len([job for job in self.jobs.values() if not job.final])

    def check_figures(self) -> None:
        """Nobody complains, and the feeds know exactly those viewers that there are."""
        for client in self.clients:
            assert client.complaints == []
        assert self.feeds.viewers == len(self.clients)
        assert self.feeds.feeds == len({client.scope for client in self.clients})


class FeedsMachine(RuleBasedStateMachine):
    """Jobs run, followers come and go, Redis and the database answer when they like."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    def client(self, pick: int) -> Client:
        return self.world.clients[pick % len(self.world.clients)]

    # -- jobs ------------------------------------------------------------------------------------

    @rule(
        job_id=st.sampled_from("abc"), kind=WORK, lost=SELDOM, seconds=st.sampled_from([0, 0.1, 7])
    )
    def work(self, job_id: str, kind: str, lost: bool, seconds: float) -> None:
        world = self.world
        world.now += seconds
        job = world.jobs.get(job_id)
        if job is None:
            job = world.jobs[job_id] = Job(job_id, changed=world.clock)
            world.publish_view(job, lost)
        elif not job.final:
            getattr(self, f"_{kind}")(job, lost)
        elif kind == "begin":
            job.final = False
            self._change(job, lost)
        elif kind == "end":
            del world.jobs[job_id]
            world.deleted[job_id] = world.clock
            world.publish_deletion(job, lost)

    def _progress(self, job: Job, lost: bool) -> None:
        job.seq += 1
        self.world.publish(job, "progress", lost, seq=job.seq)

    def _change(self, job: Job, lost: bool) -> None:
        job.version += 1
        job.shown = job.version
        job.changed = self.world.clock
        self.world.publish_view(job, lost)

    def _report(self, job: Job, lost: bool) -> None:
        job.save(self.world.clock)

    def _begin(self, job: Job, lost: bool) -> None:
        job.attempt += 1
        job.seq = job.saved_seq = 0
        self._change(job, lost)

    def _end(self, job: Job, lost: bool) -> None:
        job.saved_seq = job.seq
        job.final = True
        self._change(job, lost)

    # -- connection, reads, time -------------------------------------------------------------------

    @precondition(lambda self: not self.world.online)
    @rule()
    def connect(self) -> None:
        self.world.connect()

    @precondition(lambda self: self.world.online)
    @rule(really=SELDOM)
    def disconnect(self, really: bool) -> None:
        if really:
            self.world.disconnect()

    @precondition(lambda self: self.world.commands)
    @rule()
    def execute_command(self) -> None:
        self.world.execute_command()

    @precondition(lambda self: self.world.arriving)
    @rule(count=st.integers(1, 9))
    def arrive(self, count: int) -> None:
        for _ in range(min(count, len(self.world.arriving))):
            self.world.arrive()

    @rule(rounds=st.integers(1, 4))
    def calm(self, rounds: int) -> None:
        for _ in range(rounds):
            self.world.round()
            self.world.feeds.tick(self.world.now)

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.1, 0.2, 0.5, 3.0]))
    def tick(self, seconds: float) -> None:
        self.world.now += seconds
        self.world.feeds.tick(self.world.now)

    @rule(max_reads=st.sampled_from([0, 1, None, None]))
    def take_actions(self, max_reads: int | None) -> None:
        self.world.take_actions(max_reads)

    @precondition(lambda self: self.world.reads)
    @rule(pick=PICK, fails=SELDOM)
    def perform_read(self, pick: int, fails: bool) -> None:
        index = pick % len(self.world.reads)
        if fails:
            self.world.fail_read(index)
        else:
            self.world.perform_read(index)

    @precondition(lambda self: self.world.found)
    @rule(pick=PICK)
    def answer_read(self, pick: int) -> None:
        self.world.answer_read(pick % len(self.world.found))

    @rule(look=SELDOM)
    def retry_reads(self, look: bool) -> None:
        self.world.feeds.retry_reads()
        if look:
            self.world.look(everything=False)

    # -- clients -----------------------------------------------------------------------------------

    @rule(scope=st.sampled_from([MINE, TAGGED]))
    def come(self, scope: Scope) -> None:
        client = Client(self.world, scope)
        self.world.clients.append(client)
        self.world.feeds.subscribe(client, scope)

    @precondition(lambda self: self.world.clients)
    @rule(pick=PICK)
    def leave(self, pick: int) -> None:
        client = self.client(pick)
        self.world.clients.remove(client)
        self.world.feeds.remove(client)

    @precondition(lambda self: self.world.clients)
    @rule(pick=PICK, room=st.integers(0, 3))
    def fill_up(self, pick: int, room: int) -> None:
        self.client(pick).room = room

    @precondition(lambda self: self.world.clients)
    @rule(pick=PICK)
    def drain(self, pick: int) -> None:
        client = self.client(pick)
        client.room = None
        self.world.feeds.resume(client)

    # -- always ------------------------------------------------------------------------------------

    @invariant()
    def figures_agree(self) -> None:
        self.world.check_figures()

    def teardown(self) -> None:
        self.world.settle()
        self.world.check_rest()


FeedsMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)
test_feeds_tell_everybody_the_truth = FeedsMachine.TestCase
