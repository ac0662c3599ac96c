"""The hub and very many viewers: told in slices, in order, all of it, whoever comes and goes."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from livejobs_server.push import fanout, live
from livejobs_server.push.counts import Counts
from livejobs_server.push.hub import Hub, Read, Snapshot

from .hub_stage import JOB, Recorder, Stage, entries, published

CROWD = 3000


def crowd(stage: Stage, size: int = CROWD) -> list[Recorder]:
    viewers = [Recorder() for _ in range(size)]
    stage.live(*viewers)
    stage.hub.let_go()
    return viewers


def finish(hub: Hub) -> int:
    """Tell all that is queued; in how many slices."""
    slices = 1
    while hub.proceed():
        slices += 1
    return slices


def test_message_for_very_many_is_told_in_slices() -> None:
    stage = Stage()
    viewers = crowd(stage)
    stage.hear("log", n=1)
    told = []
    while stage.hub.proceed():
        told.append(sum(len(viewer.frames) for viewer in viewers))
    assert told == list(range(fanout.QUEUED, CROWD, fanout.QUEUED))
    assert all(viewer.told() == ["log 1-1"] for viewer in viewers)


def test_message_for_few_is_told_at_once() -> None:
    stage = Stage()
    viewers = crowd(stage, 100)
    stage.hear("log", n=1)
    assert all(viewer.told() == ["log 1-1"] for viewer in viewers)
    assert not stage.hub.proceed()


def test_job_with_very_many_viewers_does_not_keep_the_message_of_another_one() -> None:
    stage, other = Stage(), Recorder()
    viewers = crowd(stage)
    stage.subscribe(other, job_id="other")
    stage.actions()
    stage.ack("other")
    stage.hub.snapshot(stage.read(), Snapshot(job_id="other", owner="me", attempt=1, version=1))
    other.told()
    for n in range(1, 11):
        stage.hear("log", n=n)
    stage.hub.proceed()
    stage.hub.published("other", published("progress", seq=1))
    assert other.frames or stage.hub.proceed()
    assert other.told() == ["progress 1-0 s1"]
    assert sum(len(viewer.frames) for viewer in viewers) <= 2 * (fanout.SLICE + 10)
    finish(stage.hub)
    assert all(len(viewer.frames) == 10 for viewer in viewers)


def test_many_jobs_with_many_viewers_take_turns() -> None:
    stage = Stage()
    jobs = [f"job-{number}" for number in range(8)]
    viewers = {job_id: [Recorder() for _ in range(600)] for job_id in jobs}
    for job_id in jobs:
        for viewer in viewers[job_id]:
            stage.subscribe(viewer, "1-0", job_id=job_id)
        stage.actions()
        stage.ack(job_id)
        stage.hub.snapshot(stage.read(), Snapshot(job_id=job_id, owner="me", attempt=1, version=1))
        for viewer in viewers[job_id]:
            viewer.told()
        stage.hub.let_go()
    stage.hub.proceed()
    for job_id in jobs:
        stage.hub.published(job_id, published("log", n=1))
    assert sum(len(v.frames) for job in viewers.values() for v in job) <= fanout.SLICE
    finish(stage.hub)
    assert all(viewer.told() == ["log 1-1"] for job in viewers.values() for viewer in job)


def test_viewer_that_comes_between_slices_is_told_what_follows_its_state() -> None:
    stage, late = Stage(), Recorder()
    viewers = crowd(stage)
    stage.hear("log", n=1)
    stage.hub.proceed()
    stage.subscribe(late, "1-0")
    read = stage.read()
    stage.hear("log", n=2)
    stage.answer(read, numbers=(1,))
    stage.hear("log", n=3)
    finish(stage.hub)
    assert late.told() == ["subscribed", "job 1-0 v1 s0", "log 1-1", "log 1-2", "log 1-3"]
    assert all(viewer.told() == ["log 1-1", "log 1-2", "log 1-3"] for viewer in viewers)


def test_viewer_that_refuses_between_slices_resumes_at_its_own_place() -> None:
    stage = Stage()
    viewers = crowd(stage)
    for n in (1, 2, 3):
        stage.hear("log", n=n)
    slow = viewers[-1]
    slow.room = 2
    stage.hub.proceed()
    assert slow.told() == ["log 1-1", "log 1-2"]
    slow.room = None
    stage.hub.resume(slow)
    read = stage.read()
    assert (read.after.attempt, read.after.n) == (1, 2) if read.after else False
    stage.answer(read, numbers=(3,))
    finish(stage.hub)
    assert slow.told() == ["log 1-3"]


def test_job_that_ends_between_slices_is_over_for_everybody() -> None:
    stage = Stage()
    viewers = crowd(stage)
    stage.hear("log", n=1)
    stage.hub.proceed()
    stage.hear("final", n=1, version=2)
    finish(stage.hub)
    assert all(viewer.told() == ["log 1-1", "final 1-1 v2 s0", "end 1-1-end"] for viewer in viewers)
    assert (stage.hub.topics, stage.hub.viewers, stage.hub.subscriptions) == (0, 0, 0)


def test_connection_lost_between_slices_leaves_nobody_behind() -> None:
    stage = Stage()
    viewers = crowd(stage)
    stage.hear("log", n=1)
    stage.hub.proceed()
    stage.hub.disconnected()
    assert not stage.hub.proceed()
    stage.answer(stage.read(), numbers=(1,))
    assert all(viewer.told() == ["log 1-1"] for viewer in viewers)


def test_too_much_for_very_many_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "QUEUED_FRAMES", 5)
    stage = Stage()
    viewers = crowd(stage)
    for n in range(1, 7):
        stage.hear("log", n=n)
    assert not stage.hub.proceed()
    stage.answer(stage.read(), numbers=(1, 2, 3, 4, 5, 6))
    assert all(viewer.told() == [f"log 1-{n}" for n in range(1, 7)] for viewer in viewers)


def test_muted_viewers_among_very_many_get_no_entries() -> None:
    stage, muted = Stage(), Recorder()
    crowd(stage)
    stage.subscribe(muted, None, "none")
    stage.answer(stage.read())
    muted.told()
    stage.hear("log", n=1)
    stage.hear("progress", n=1, seq=1)
    finish(stage.hub)
    assert muted.told() == ["progress 1-1 s1"]


@pytest.mark.parametrize("seed", range(20))
def test_everybody_gets_everything_once_and_in_order_whoever_comes_and_goes(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, "SLICE", 7)
    monkeypatch.setattr(fanout, "SHARE", 3)
    chance, stage, last = random.Random(seed), Stage(), 0
    hub, here, gone = stage.hub, list[Recorder](), list[Recorder]()

    def answer(read: Read) -> None:
        assert read.after is not None
        after = read.after.n if read.after.attempt == 1 else 0
        numbers = range(after + 1, last + 1)
        found = entries(*numbers)
        hub.snapshot(
            read,
            Snapshot(job_id=JOB, owner="me", attempt=1, version=1, entries=found, last=last),
        )

    def settle() -> None:
        for action in hub.take_actions():
            if isinstance(action, Read):
                answer(action)
            elif type(action).__name__ == "Subscribe":
                hub.subscribed(JOB)

    for _ in range(600):
        what = chance.choices(
            ["come", "go", "hear", "proceed", "settle", "fill", "drain"], [6, 2, 4, 8, 4, 1, 2]
        )[0]
        viewer = chance.choice(here) if here else None
        if what == "come":
            here.append(Recorder())
            stage.subscribe(here[-1], "1-0")
        elif what == "hear":
            last += 1
            stage.hear("log", n=last)
        elif what == "proceed":
            hub.proceed()
        elif what == "settle":
            settle()
        elif viewer is not None and what == "go":
            here.remove(viewer)
            gone.append(viewer)
            hub.remove(viewer)
        elif viewer is not None and what == "fill":
            viewer.room = chance.randint(0, 2)
        elif viewer is not None:
            viewer.room = None
            hub.resume(viewer)
    for viewer in here:
        viewer.room = None
        hub.resume(viewer)
    for _ in range(5):
        settle()
        finish(hub)
    for viewer in here:
        assert [frame.n for frame in viewer.frames if frame.kind == "log"] == list(
            range(1, last + 1)
        )
    for viewer in gone:
        numbers = [frame.n for frame in viewer.frames if frame.kind == "log"]
        assert numbers == list(range(1, len(numbers) + 1))
    assert hub.viewers == len(here)


def test_hub_counts_what_it_tells() -> None:
    counts = Counts()
    stage = Stage()
    stage.hub = Hub(counts)
    stage.hub.connected()
    slow, quick = Recorder(), Recorder()
    stage.live(slow, quick)
    slow.room = 0
    for n in (1, 2, 3):
        stage.hear("log", n=n)
    told = Counter({"fanouts": counts.fanouts, "coalesced": counts.coalesced})
    assert told == {"fanouts": 3, "coalesced": 2}
    assert counts.fanout_seconds > 0
