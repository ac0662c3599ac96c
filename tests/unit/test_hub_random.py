"""Whatever happens in whatever order: every viewer ends with the truth, all of it, once."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from livejobs_server.push import fanout, topic
from livejobs_server.push.hub import EntriesWanted

from .hub_world import Client, Job, World

JOBS = st.sampled_from("ab")
PICK = st.integers(0, 99)
WANTED: st.SearchStrategy[EntriesWanted] = st.sampled_from(["all", "all", "none", 0, 2, 5])
WORK = st.sampled_from(["log", "log", "progress", "change", "report", "begin", "end"])
SELDOM = st.sampled_from([False, False, False, True])


class HubMachine(RuleBasedStateMachine):
    """Jobs run, clients come and go, Redis and the database answer when they like."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    def job(self, job_id: str) -> Job:
        return self.world.jobs[job_id]

    def client(self, pick: int) -> Client:
        return self.world.clients[pick % len(self.world.clients)]

    # -- jobs --------------------------------------------------------------------------------------

    @rule(job_id=JOBS, kind=WORK, lost=SELDOM, count=st.integers(1, 4))
    def work(self, job_id: str, kind: str, lost: bool, count: int) -> None:
        job = self.job(job_id)
        if not job.final:
            getattr(self, f"_{kind}")(job, lost, count)
        elif kind == "begin":
            job.final = False
            job.version += 1
            self.world.publish_view(job, lost)

    def _log(self, job: Job, lost: bool, count: int) -> None:
        for _ in range(count):
            job.n += 1
            self.world.publish(job, "log", lost)

    def _progress(self, job: Job, lost: bool, count: int) -> None:
        job.seq += 1
        job.live_seq = job.seq
        self.world.publish(job, "progress", lost, seq=job.seq)

    def _change(self, job: Job, lost: bool, count: int) -> None:
        job.version += 1
        self.world.publish_view(job, lost)

    def _report(self, job: Job, lost: bool, count: int) -> None:
        job.report()

    def _begin(self, job: Job, lost: bool, count: int) -> None:
        job.begin()
        self.world.publish_view(job, lost)

    def _end(self, job: Job, lost: bool, count: int) -> None:
        job.save()
        job.final = True
        self._change(job, lost, count)

    @rule(job_id=JOBS)
    def redis_loses_its_data(self, job_id: str) -> None:
        self.job(job_id).flush()

    # -- connection and reads -------------------------------------------------------------------

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
    @rule(count=st.integers(1, 9))
    def execute_commands(self, count: int) -> None:
        for _ in range(min(count, len(self.world.commands))):
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

    @rule(max_reads=st.sampled_from([0, 1, None, None]))
    def take_actions(self, max_reads: int | None) -> None:
        self.world.take_actions(max_reads)

    @precondition(lambda self: self.world.reads)
    @rule(pick=PICK, alone=SELDOM)
    def perform_read(self, pick: int, alone: bool) -> None:
        self.world.perform_read(pick % len(self.world.reads), redis=not alone)

    @precondition(lambda self: self.world.found)
    @rule(pick=PICK)
    def answer_read(self, pick: int) -> None:
        self.world.answer_read(pick % len(self.world.found))

    @precondition(lambda self: self.world.reads)
    @rule(pick=PICK, really=SELDOM)
    def fail_read(self, pick: int, really: bool) -> None:
        if really:
            read = self.world.reads.pop(pick % len(self.world.reads))
            self.world.hub.read_failed(read)

    @rule(look=SELDOM)
    def retry_reads(self, look: bool) -> None:
        self.world.hub.retry_reads()
        if look:
            self.world.look()

    # -- clients --------------------------------------------------------------------------------

    @rule(job_ids=st.sampled_from(["a", "b", "ab"]), wanted=WANTED, stranger=SELDOM)
    def come(self, job_ids: str, wanted: EntriesWanted, stranger: bool) -> None:
        client = Client(self.world.jobs, allowed=not stranger)
        self.world.clients.append(client)
        for job_id in job_ids:
            self.world.watch(client, job_id, wanted)

    @precondition(lambda self: self.world.clients)
    @rule(pick=PICK)
    def come_back(self, pick: int) -> None:
        self.world.reconnect(self.client(pick))

    @precondition(lambda self: self.world.clients)
    @rule(pick=PICK, job_id=JOBS)
    def unsubscribe(self, pick: int, job_id: str) -> None:
        client = self.client(pick)
        told = client.told.get(job_id)
        if told is not None and not told.over:
            self.world.hub.unsubscribe(client, job_id)
            del client.told[job_id]

    @precondition(lambda self: self.world.clients)
    @rule(pick=PICK, room=st.integers(0, 3))
    def fill_up(self, pick: int, room: int) -> None:
        self.client(pick).room = room

    @precondition(lambda self: self.world.clients)
    @rule(pick=PICK)
    def drain(self, pick: int) -> None:
        client = self.client(pick)
        client.room = None
        self.world.hub.resume(client)

    # -- always ---------------------------------------------------------------------------------

    @invariant()
    def figures_agree(self) -> None:
        self.world.check_figures()

    def teardown(self) -> None:
        self.world.settle()
        self.world.check_rest()


class CrowdMachine(HubMachine):
    """The same where few are a crowd already: told in slices, and by what was read for others."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(fanout, "SLICE", 2)
        self.patch.setattr(fanout, "QUEUED", 2)
        self.patch.setattr(fanout, "SHARE", 1)
        self.patch.setattr(topic, "KEPT_FRAMES", 5)
        self.world = World(crowd=2)

    @rule()
    def proceed(self) -> None:
        self.world.hub.proceed()

    @rule(really=SELDOM)
    def let_go(self, really: bool) -> None:
        if really:
            self.world.hub.let_go()

    def teardown(self) -> None:
        super().teardown()
        self.patch.undo()


HubMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)
test_hub_tells_everybody_the_truth = HubMachine.TestCase
CrowdMachine.TestCase.settings = HubMachine.TestCase.settings
test_hub_tells_a_crowd_the_truth = CrowdMachine.TestCase
