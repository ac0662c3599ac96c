"""The hub and viewers that are full, come back, or break."""

from __future__ import annotations

from livejobs.entries import Cursor
from livejobs_server.push.hub import Snapshot
from livejobs_server.push.wire import Frame

from .hub_stage import JOB, Recorder, Stage


def test_refused_frame_parks_the_viewer_and_nobody_else() -> None:
    stage, slow, quick = Stage(), Recorder(), Recorder()
    stage.live(slow, quick)
    slow.room = 1
    for n in (1, 2, 3):
        stage.hear("log", n=n)
    assert slow.told() == ["log 1-1"]
    assert quick.told() == ["log 1-1", "log 1-2", "log 1-3"]
    assert stage.hub.lagging == 1
    assert stage.reads() == []


def test_resume_goes_on_at_the_last_frame_taken_without_the_view_it_has() -> None:
    stage, slow, quick = Stage(), Recorder(), Recorder()
    stage.live(slow, quick)
    slow.room = 1
    for n in (1, 2, 3):
        stage.hear("log", n=n)
    slow.told()
    quick.told()
    slow.room = None
    stage.hub.resume(slow)
    assert stage.hub.lagging == 0
    read = stage.read()
    assert read.after == Cursor(1, 1)
    stage.hear("log", n=4)
    stage.answer(read, numbers=(2, 3))
    assert slow.told() == ["log 1-2", "log 1-3", "log 1-4"]
    assert quick.told() == ["log 1-4"]


def test_resume_of_a_viewer_that_does_not_lag_does_nothing() -> None:
    stage, viewer = Stage(), Recorder()
    stage.hub.resume(viewer)
    stage.live(viewer)
    stage.hub.resume(viewer)
    assert stage.actions() == []


def test_lagging_viewer_is_parked_on_all_its_jobs() -> None:
    stage, slow, other = Stage(), Recorder(), Recorder()
    for job_id in ("a", "b", "c"):
        stage.subscribe(slow, job_id=job_id)
    stage.subscribe(other, job_id="a")
    stage.actions()
    stage.ack("a")
    stage.ack("b")
    for read in stage.reads():
        stage.answer(read)
    slow.told()
    other.told()
    slow.room = 0
    stage.hub.published("a", b"1 1 1 0 0 log\n{}")
    slow.room = None
    stage.hub.published("b", b"1 1 1 0 0 log\n{}")
    stage.ack("c")
    assert stage.reads() == []
    assert slow.told() == []
    assert other.told() == ["log 1-1"]
    stage.hub.resume(slow)
    assert {read.job_id: read.after for read in stage.reads()} == {
        "a": Cursor(1, 0),
        "b": Cursor(1, 0),
        "c": Cursor(0, 0),
    }


def test_subscription_made_while_lagging_waits_for_the_resume() -> None:
    stage, slow = Stage(), Recorder()
    stage.live(slow)
    slow.room = 0
    stage.hear("log", n=1)
    slow.room = None
    stage.subscribe(slow, job_id="b")
    stage.actions()
    stage.ack("b")
    assert stage.reads() == []
    stage.hub.resume(slow)
    assert sorted(read.job_id for read in stage.reads()) == ["b", JOB]


def test_viewer_that_fills_up_during_its_catch_up_resumes_there() -> None:
    stage, slow = Stage(), Recorder()
    stage.subscribe(slow)
    stage.actions()
    stage.ack()
    slow.room = 3
    stage.answer(stage.read(), numbers=(1, 2, 3))
    assert slow.told() == ["subscribed", "job 1-0 v1 s0", "log 1-1"]
    slow.room = None
    stage.hub.resume(slow)
    read = stage.read()
    assert read.after == Cursor(1, 1)
    stage.answer(read, numbers=(2, 3))
    assert slow.told() == ["log 1-2", "log 1-3"]


def test_viewer_that_fills_up_before_its_answer_gets_it_later() -> None:
    stage, slow = Stage(), Recorder()
    stage.subscribe(slow, None, 1)
    stage.actions()
    stage.ack()
    slow.room = 0
    stage.answer(stage.read(), numbers=(4,))
    slow.room = None
    stage.hub.resume(slow)
    stage.answer(stage.read(), numbers=(4, 5))
    assert slow.told() == ["subscribed", "job 1-3 v1 s0", "log 1-4", "log 1-5"]


def test_viewer_that_fills_up_among_what_arrived_during_a_read_resumes_there() -> None:
    stage, slow, quick = Stage(), Recorder(), Recorder()
    stage.subscribe(slow)
    stage.subscribe(quick)
    stage.actions()
    stage.ack()
    read = stage.read()
    stage.hear("log", n=1)
    stage.hear("log", n=2)
    slow.room = 3
    stage.answer(read)
    assert slow.told() == ["subscribed", "job 1-0 v1 s0", "log 1-1"]
    assert quick.told()[2:] == ["log 1-1", "log 1-2"]
    slow.room = None
    stage.hub.resume(slow)
    assert stage.read().after == Cursor(1, 1)


def test_refused_final_comes_after_the_resume() -> None:
    stage, slow = Stage(), Recorder()
    stage.live(slow)
    slow.room = 0
    stage.hear("final", version=2)
    assert stage.hub.topics == 1
    slow.room = None
    stage.hub.resume(slow)
    stage.answer(stage.read(), 2, final=True)
    assert slow.told() == ["final 1-0 v2 s0", "end 1-0-end"]
    assert stage.hub.topics == 0


def test_refused_end_comes_after_the_resume() -> None:
    stage, slow, quick = Stage(), Recorder(), Recorder()
    stage.live(slow, quick)
    slow.room = 1
    stage.hear("final", version=2)
    assert slow.told() == ["final 1-0 v2 s0"]
    assert quick.told() == ["final 1-0 v2 s0", "end 1-0-end"]
    slow.room = None
    stage.hub.resume(slow)
    stage.answer(stage.read(), 2, final=True)
    assert slow.told() == ["end 1-0-end"]


def test_refused_missing_comes_after_the_resume() -> None:
    stage, slow = Stage(), Recorder()
    stage.subscribe(slow)
    stage.actions()
    stage.ack()
    slow.room = 0
    stage.hub.snapshot(stage.read(), Snapshot(job_id=JOB, found=False))
    slow.room = None
    stage.hub.resume(slow)
    stage.hub.snapshot(stage.read(), Snapshot(job_id=JOB, found=False))
    assert slow.told() == ["missing"]


def test_resume_during_a_read_that_is_behind_waits_for_the_next() -> None:
    stage, slow, new = Stage(), Recorder(), Recorder()
    stage.live(slow)
    stage.subscribe(new, "1-0")
    read = stage.read()
    stage.hear("log", n=1)
    slow.room = 0
    stage.hear("log", n=2)
    slow.room = None
    slow.told()
    stage.hub.resume(slow)
    stage.answer(read)
    assert new.told() == ["subscribed", "job 1-0 v1 s0", "log 1-1", "log 1-2"]
    assert slow.told() == []
    again = stage.read()
    assert again.after == Cursor(1, 1)
    stage.answer(again, numbers=(2,))
    assert slow.told() == ["log 1-2"]


def test_view_is_shown_after_a_resume_where_it_is_newer_and_for_each_subscription() -> None:
    stage, slow = Stage(), Recorder()
    stage.live(slow, version=2, seq=3)
    for version, seq, shown in [(2, 3, []), (2, 4, ["job 1-0 v2 s4"]), (3, 0, ["job 1-0 v3 s0"])]:
        slow.room = 0
        stage.hear("progress", seq=9)
        slow.room = None
        stage.hub.resume(slow)
        stage.answer(stage.read(), version, seq)
        assert slow.told() == shown
    stage.subscribe(slow, "1-0")
    stage.answer(stage.read(), 3)
    assert slow.told() == ["subscribed", "job 1-0 v3 s0"]


def test_lagging_viewer_that_leaves_is_forgotten() -> None:
    stage, slow = Stage(), Recorder()
    stage.live(slow)
    slow.room = 0
    stage.hear("log", n=1)
    stage.hub.remove(slow)
    stage.hub.resume(slow)
    assert (stage.hub.lagging, stage.hub.topics) == (0, 0)
    assert stage.channels() == [f"-{JOB}"]


def test_viewer_that_breaks_is_removed_alone() -> None:
    stage, broken, other = Stage(), Recorder(), Recorder()
    stage.live(broken, other)
    broken.broken = True
    stage.hear("log", n=1)
    stage.hear("final", n=1, version=2)
    assert other.told() == ["log 1-1", "final 1-1 v2 s0", "end 1-1-end"]
    assert stage.hub.viewers == 0


def test_viewer_that_breaks_in_its_catch_up_is_removed_alone() -> None:
    stage, broken, other = Stage(), Recorder(), Recorder()
    stage.subscribe(broken)
    stage.subscribe(other)
    stage.actions()
    stage.ack()
    broken.broken = True
    stage.answer(stage.read(), numbers=(1,))
    assert other.told() == ["subscribed", "job 1-0 v1 s0", "log 1-1"]
    assert stage.hub.viewers == 1


def test_viewer_that_breaks_at_missing_is_removed() -> None:
    stage, broken = Stage(), Recorder()
    stage.subscribe(broken)
    stage.actions()
    stage.ack()
    broken.broken = True
    stage.hub.snapshot(stage.read(), Snapshot(job_id=JOB, found=False))
    assert stage.hub.topics == 0


def test_viewer_whose_right_cannot_be_told_is_removed_alone() -> None:
    class Undecided(Recorder):
        def may_see(self, job_id: str, owner: str) -> bool:
            raise LookupError("no such right")

    stage, undecided, other = Stage(), Undecided(), Recorder()
    stage.subscribe(undecided)
    stage.subscribe(other)
    stage.actions()
    stage.ack()
    stage.answer(stage.read())
    assert undecided.told() == []
    assert other.told() == ["subscribed", "job 1-0 v1 s0"]


def test_last_viewer_that_breaks_closes_the_channel() -> None:
    stage, broken = Stage(), Recorder()
    stage.live(broken)
    broken.broken = True
    stage.hear("log", n=1)
    assert stage.channels() == [f"-{JOB}"]
    assert stage.hub.topics == 0


def test_viewer_that_breaks_among_what_arrived_during_a_read_is_removed_alone() -> None:
    class Short(Recorder):
        def deliver(self, frame: Frame) -> bool:
            self.broken = len(self.frames) == 2
            return super().deliver(frame)

    stage, broken, other = Stage(), Short(), Recorder()
    stage.subscribe(broken)
    stage.subscribe(other)
    stage.actions()
    stage.ack()
    read = stage.read()
    stage.hear("log", n=1)
    stage.answer(read)
    assert broken.told() == ["subscribed", "job 1-0 v1 s0"]
    assert other.told() == ["subscribed", "job 1-0 v1 s0", "log 1-1"]
    assert stage.hub.viewers == 1
