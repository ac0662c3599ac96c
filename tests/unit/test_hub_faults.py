"""The hub: reads that fail or are behind, and the connection to Redis."""

from __future__ import annotations

from livejobs.entries import Cursor
from livejobs_server.push.feed_exchange import Changes, Deleted
from livejobs_server.push.hub import Read, Snapshot

from .hub_stage import JOB, Recorder, Stage, published

# -- reads that fail, come late or are behind ----------------------------------------------------


def test_read_failed_is_retried_when_told_to() -> None:
    stage, viewer, late = Stage(), Recorder(), Recorder()
    stage.subscribe(viewer)
    stage.actions()
    stage.ack()
    stage.hub.read_failed(stage.read())
    stage.subscribe(late)
    assert stage.hub.postponed == 1
    assert stage.reads() == []
    stage.hub.retry_reads()
    stage.answer(stage.read())
    assert viewer.told() == late.told() == ["subscribed", "job 1-0 v1 s0"]
    assert stage.hub.postponed == 0


def test_answer_that_nobody_waits_for_is_ignored() -> None:
    stage, gone, back = Stage(), Recorder(), Recorder()
    stage.subscribe(gone)
    stage.actions()
    stage.ack()
    old = stage.read()
    stage.hub.remove(gone)
    stage.answer(old)
    stage.hub.read_failed(old)
    stage.subscribe(back)
    stage.answer(old)
    assert stage.channels() == [f"-{JOB}", f"+{JOB}"]
    stage.ack()
    stage.answer(stage.read())
    assert gone.told() == []
    assert back.told() == ["subscribed", "job 1-0 v1 s0"]


def test_read_that_lacks_published_entries_is_told_and_repeated_later() -> None:
    """As after Redis lost its data, until the database has the newest entries."""
    stage, viewer = Stage(), Recorder()
    stage.live(viewer, last=3)
    stage.hear("log", n=6)
    stage.answer(stage.read(), 2, numbers=(4,))
    assert viewer.told() == ["job 1-3 v2 s0", "log 1-4"]
    assert stage.reads() == []
    assert stage.hub.postponed == 1
    stage.hub.retry_reads()
    stage.answer(stage.read(), 2, numbers=(5, 6))
    stage.hear("log", n=7)
    assert viewer.told() == ["log 1-5", "log 1-6", "log 1-7"]


def test_hole_in_what_arrived_during_a_read_is_filled_from_there() -> None:
    stage, viewer = Stage(), Recorder()
    stage.subscribe(viewer)
    stage.actions()
    stage.ack()
    read = stage.read()
    stage.hear("log", n=1)
    stage.hear("log", n=3)
    stage.answer(read)
    assert viewer.told() == ["subscribed", "job 1-0 v1 s0", "log 1-1"]
    again = stage.read()
    assert again.after == Cursor(1, 1)
    stage.answer(again, numbers=(2, 3))
    assert viewer.told() == ["log 1-2", "log 1-3"]


def test_read_behind_the_live_leaves_them_alone() -> None:
    stage, live, new = Stage(), Recorder(), Recorder()
    stage.live(live, last=3)
    stage.hear("log", n=4)
    live.told()
    stage.subscribe(new, "1-1")
    stage.answer(stage.read(), 2, numbers=(2, 3))
    assert live.told() == []
    assert new.told() == ["subscribed", "job 1-1 v2 s0", "log 1-2", "log 1-3"]
    stage.hear("log", n=5)
    assert live.told() == ["log 1-5"]
    stage.hub.retry_reads()
    stage.answer(stage.read(), 2, numbers=(4, 5))
    assert new.told() == ["log 1-4", "log 1-5"]


def test_read_of_an_older_attempt_is_not_told_to_those_who_know_better() -> None:
    stage, viewer, new = Stage(), Recorder(), Recorder()
    stage.live(viewer, last=3)
    stage.hear("job", attempt=2, version=2)
    viewer.told()
    stage.hear("log", attempt=2, n=2)
    stage.subscribe(new)
    stage.answer(stage.read(), 1, numbers=(1, 2, 3))
    assert viewer.told() == []
    assert new.told() == ["subscribed", "job 1-0 v1 s0", "log 1-1", "log 1-2", "log 1-3"]
    stage.hub.retry_reads()
    stage.answer(stage.read(), 2, attempt=2, numbers=(1, 2))
    assert viewer.told() == ["log 2-1", "log 2-2"]
    assert new.told() == ["job 2-0 v2 s0", "log 2-1", "log 2-2"]


def test_end_is_believed_even_if_entries_are_gone_for_good() -> None:
    stage, viewer = Stage(), Recorder()
    stage.live(viewer, last=3)
    stage.hear("final", n=5, version=2)
    stage.answer(stage.read(), 2, last=3, final=True)
    assert viewer.told() == ["final 1-3 v2 s0", "end 1-3-end"]


def test_round_brings_what_was_never_published() -> None:
    stage, behind, muted = Stage(), Recorder(), Recorder()
    stage.live(behind, version=1, last=1)
    stage.look(version=1, last=1)
    assert stage.reads() == []
    stage.look(version=2, last=2)
    read = stage.read()
    assert (read.after, read.tail) == (None, None)
    stage.answer(read, 2, last=2)
    stage.answer(stage.read(), 2, numbers=(2,))
    assert behind.told() == ["job 1-1 v2 s0", "log 1-2"]
    assert muted.told() == []


# -- the connection ------------------------------------------------------------------------------


def test_only_the_last_outstanding_acknowledgement_counts() -> None:
    stage, viewer = Stage(), Recorder()
    stage.subscribe(viewer)
    stage.hub.unsubscribe(viewer, JOB)
    stage.subscribe(viewer)
    assert stage.channels() == [f"+{JOB}", f"-{JOB}", f"+{JOB}"]
    stage.ack()
    assert stage.reads() == []
    stage.ack()
    assert stage.read().job_id == JOB


def test_acknowledgements_of_forgotten_or_unknown_jobs_do_nothing() -> None:
    stage, viewer = Stage(), Recorder()
    stage.subscribe(viewer)
    stage.hub.unsubscribe(viewer, JOB)
    stage.ack()
    stage.ack("never heard of")
    assert stage.reads() == []
    stage.subscribe(viewer)
    stage.actions()
    stage.ack()
    stage.ack()
    assert stage.read().job_id == JOB


def test_messages_before_the_acknowledgement_are_not_believed() -> None:
    stage, viewer = Stage(), Recorder()
    stage.subscribe(viewer)
    stage.hear("log", n=1)
    stage.hub.published("never heard of", published("log", n=1))
    assert viewer.told() == []
    assert stage.hub.topics == 1


def test_disconnect_and_connect_resume_at_the_position() -> None:
    stage, one, two = Stage(), Recorder(), Recorder()
    stage.live(one, two, version=5, seq=5, last=3)
    stage.hub.disconnected()
    assert stage.actions() == []
    stage.hub.connected()
    assert stage.channels() == [f"+{JOB}"]
    stage.ack()
    read = stage.read()
    assert read.after == Cursor(1, 3)
    stage.answer(read, 6, 6, numbers=(4,))
    assert one.told() == two.told() == ["job 1-3 v6 s6", "log 1-4"]
    stage.hear("log", n=5)
    assert one.told() == ["log 1-5"]


def test_new_viewer_while_offline_sees_what_the_database_says() -> None:
    stage, viewer = Stage(online=False), Recorder()
    stage.subscribe(viewer)
    (read,) = stage.actions()
    assert isinstance(read, Read)
    stage.answer(read, 2, numbers=(1,))
    assert viewer.told() == ["subscribed", "job 1-0 v2 s0", "log 1-1"]
    assert stage.actions() == []
    stage.hub.connected()
    stage.actions()
    stage.ack()
    stage.answer(stage.read(), 3, numbers=(2,))
    assert viewer.told() == ["job 1-1 v3 s0", "log 1-2"]


def test_pages_are_read_to_the_end_while_offline() -> None:
    stage, viewer = Stage(online=False), Recorder()
    stage.subscribe(viewer)
    stage.answer(stage.read(), numbers=(1,), last=2, more=True)
    stage.answer(stage.read(), numbers=(2,))
    assert viewer.told()[2:] == ["log 1-1", "log 1-2"]
    assert stage.reads() == []


def test_job_that_is_over_ends_while_offline() -> None:
    stage, viewer = Stage(online=False), Recorder()
    stage.subscribe(viewer)
    stage.answer(stage.read(), final=True)
    assert viewer.told() == ["subscribed", "final 1-0 v1 s0", "end 1-0-end"]
    assert stage.actions() == []
    assert stage.hub.topics == 0


def test_round_while_offline_reaches_those_who_were_live() -> None:
    stage, viewer = Stage(), Recorder()
    stage.live(viewer)
    stage.hub.disconnected()
    stage.look(version=2, last=1)
    stage.answer(stage.read(), 2, numbers=(1,))
    assert viewer.told() == ["job 1-0 v2 s0", "log 1-1"]
    assert stage.reads() == []


def test_read_from_before_a_reconnect_is_told_but_not_relied_on() -> None:
    stage, viewer = Stage(), Recorder()
    stage.subscribe(viewer)
    stage.actions()
    stage.ack()
    old = stage.read()
    stage.hub.disconnected()
    stage.hub.connected()
    stage.actions()
    stage.ack()
    assert stage.reads() == []
    stage.answer(old, numbers=(1,))
    assert viewer.told() == ["subscribed", "job 1-0 v1 s0", "log 1-1"]
    stage.answer(stage.read(), numbers=(2,))
    stage.hear("log", n=3)
    assert viewer.told() == ["log 1-2", "log 1-3"]


def test_read_from_before_the_acknowledgement_is_not_relied_on() -> None:
    stage, viewer = Stage(online=False), Recorder()
    stage.subscribe(viewer)
    old = stage.read()
    stage.hub.connected()
    stage.actions()
    stage.ack()
    stage.answer(old, numbers=(1,))
    # Entry 2 was published after the read and before the channel was subscribed.
    stage.answer(stage.read(), numbers=(2,))
    assert viewer.told() == ["subscribed", "job 1-0 v1 s0", "log 1-1", "log 1-2"]


def test_disconnect_forgets_channel_actions_not_taken() -> None:
    stage = Stage()
    stage.subscribe(Recorder(), job_id="a")
    stage.hub.disconnected()
    stage.hub.connected()
    assert stage.channels() == ["+a"]


def test_round_that_finds_nothing_to_see_has_nothing_read() -> None:
    stage, viewer = Stage(), Recorder()
    stage.subscribe(viewer)
    stage.actions()
    stage.ack()
    stage.answer(stage.read(), 3, seq=2, last=1, numbers=(1,), shape=7)
    viewer.told()
    # Reports were saved, of which it knows all.
    stage.look(version=9, seq=2, last=1, shape=7)
    assert stage.reads() == []
    stage.look(version=9, seq=3, last=1, shape=7)
    stage.answer(stage.read(), 9, seq=3, last=1, shape=7)
    assert viewer.told() == ["job 1-1 v9 s3"]
    stage.look(version=10, seq=3, last=2, shape=7)
    stage.answer(stage.read(), 10, seq=3, last=2, shape=7)
    stage.answer(stage.read(), 10, seq=3, numbers=(2,), shape=7)
    assert viewer.told() == ["job 1-1 v10 s3", "log 1-2"]
    stage.look(version=11, seq=3, last=2, shape=8)
    assert len(stage.reads()) == 1


def test_deleted_job_is_missed_by_whoever_watches_it_still() -> None:
    for announced in (True, False):
        stage, viewer = Stage(), Recorder()
        stage.live(viewer)
        if announced:
            stage.hear("gone", attempt=0)
        else:
            stage.hub.look(Changes(0, deleted=[Deleted(JOB, "me", None)]))
        stage.hub.snapshot(stage.read(), Snapshot(job_id=JOB, found=False))
        assert viewer.told() == ["missing"]
        assert stage.hub.topics == 0
