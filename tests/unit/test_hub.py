"""The hub: new viewers, whose jobs they may see, and the reads they share."""

from __future__ import annotations

import pytest

from livejobs.entries import START, Cursor
from livejobs_server.push import topic
from livejobs_server.push.hub import Snapshot, Subscribe

from .hub_stage import JOB, Recorder, Stage

# -- a new viewer --------------------------------------------------------------------------------


def test_subscribe_waits_for_the_acknowledgement_before_reading() -> None:
    stage, viewer = Stage(), Recorder()
    stage.subscribe(viewer)
    assert stage.actions() == [Subscribe(JOB)]
    assert stage.actions() == []
    stage.ack()
    read = stage.read()
    assert (read.job_id, read.after, read.tail) == (JOB, START, None)
    assert viewer.told() == []


def test_subscribe_is_told_view_then_entries_then_what_arrived_meanwhile() -> None:
    stage, viewer = Stage(), Recorder()
    stage.subscribe(viewer)
    stage.actions()
    stage.ack()
    read = stage.read()
    stage.hear("log", n=2)
    stage.hear("log", n=3)
    stage.hear("progress", n=3, seq=6)
    stage.answer(read, 4, 5, numbers=(1, 2))
    assert viewer.told() == [
        "subscribed", "job 1-0 v4 s5", "log 1-1", "log 1-2", "log 1-3", "progress 1-3 s6",
    ]  # fmt: skip
    stage.hear("log", n=4)
    assert viewer.told() == ["log 1-4"]
    assert stage.actions() == []


@pytest.mark.parametrize(
    ("after", "wanted", "asked", "told"),
    [
        (None, "all", (START, None), ["job 1-0 v1 s0", "log 1-1", "log 1-2", "log 1-3"]),
        ("1-2", "all", (Cursor(1, 2), None), ["job 1-2 v1 s0", "log 1-3"]),
        ("1-3", "all", (Cursor(1, 3), None), ["job 1-3 v1 s0"]),
        ("0-9", "all", (Cursor(0, 9), None), ["job 1-0 v1 s0", "log 1-1", "log 1-2", "log 1-3"]),
        (None, "none", (None, None), ["job 1-3 v1 s0"]),
        (None, 2, (None, 2), ["job 1-1 v1 s0", "log 1-2", "log 1-3"]),
        (None, 9, (None, 9), ["job 1-0 v1 s0", "log 1-1", "log 1-2", "log 1-3"]),
        (None, 0, (None, None), ["job 1-3 v1 s0"]),
        ("1-0", 2, (Cursor(1, 0), None), ["job 1-0 v1 s0", "log 1-1", "log 1-2", "log 1-3"]),
    ],
)
def test_subscribe_gets_the_entries_it_asked_for(
    after: str | None, wanted: str | int, asked: tuple[Cursor | None, int | None], told: list[str]
) -> None:
    stage, viewer = Stage(), Recorder()
    stage.subscribe(viewer, after, wanted)  # type: ignore[arg-type]
    stage.actions()
    stage.ack()
    read = stage.read()
    assert (read.after, read.tail) == asked
    first = 4
    if read.after is not None:
        first = read.after.n + 1 if read.after.attempt == 1 else 1
    elif read.tail is not None:
        first = max(1, 4 - read.tail)
    stage.answer(read, numbers=tuple(range(first, 4)), last=3)
    assert viewer.told() == ["subscribed", *told]
    stage.hear("log", n=4)
    assert viewer.told() == ([] if wanted == "none" else ["log 1-4"])


def test_subscribe_with_a_cursor_from_the_future_goes_on_from_the_present() -> None:
    stage, viewer = Stage(), Recorder()
    stage.subscribe(viewer, "1-99")
    stage.actions()
    stage.ack()
    stage.answer(stage.read(), last=3)
    stage.hear("log", n=4)
    assert viewer.told() == ["subscribed", "job 1-3 v1 s0", "log 1-4"]


def test_subscribe_with_a_cursor_that_redis_alone_knows_is_not_told_it_again() -> None:
    stage, viewer, other = Stage(), Recorder(), Recorder()
    stage.subscribe(viewer, "1-8")
    stage.subscribe(other, "1-6")
    stage.actions()
    stage.ack()
    stage.answer(stage.read(), numbers=(7,), sure=False)
    assert viewer.told() == ["subscribed", "job 1-8 v1 s0"]
    assert other.told() == ["subscribed", "job 1-6 v1 s0", "log 1-7"]
    stage.hear("log", n=9)
    stage.hub.retry_reads()
    stage.answer(stage.read(), numbers=(8, 9))
    stage.hear("log", n=10)
    assert viewer.told() == ["log 1-9", "log 1-10"]
    assert other.told() == ["log 1-8", "log 1-9", "log 1-10"]


def test_subscribe_without_redis_goes_live_where_the_database_knows_as_much() -> None:
    stage, viewer = Stage(), Recorder()
    stage.subscribe(viewer, "1-7")
    stage.actions()
    stage.ack()
    stage.answer(stage.read(), last=7, sure=False)
    stage.hear("log", n=8)
    assert viewer.told() == ["subscribed", "job 1-7 v1 s0", "log 1-8"]


def test_subscribe_answers_with_the_ref_once() -> None:
    stage, viewer = Stage(), Recorder()
    stage.hub.subscribe(viewer, JOB, ref=7)
    stage.actions()
    stage.ack()
    stage.answer(stage.read())
    assert b'"ref":7' in viewer.frames[0].payload
    assert b"ref" not in viewer.frames[1].payload


@pytest.mark.parametrize(
    ("have", "told"),
    [
        ((0, 0), ["subscribed", "job 1-0 v3 s5"]),
        ((3, 5), ["subscribed"]),
        ((3, 4), ["subscribed", "job 1-0 v3 s5"]),
        ((2, 9), ["subscribed", "job 1-0 v3 s5"]),
    ],
)
def test_subscribe_with_a_view_gets_only_a_newer_one(
    have: tuple[int, int], told: list[str]
) -> None:
    stage, viewer = Stage(), Recorder()
    stage.subscribe(viewer, have=have)
    stage.actions()
    stage.ack()
    stage.answer(stage.read(), 3, 5)
    assert viewer.told() == told


def test_subscribe_twice_replaces_the_first() -> None:
    stage, viewer = Stage(), Recorder()
    stage.live(viewer)
    stage.subscribe(viewer, "1-0", "none")
    assert stage.hub.subscriptions == 1
    stage.answer(stage.read())
    assert viewer.told() == ["subscribed", "job 1-0 v1 s0"]
    stage.hear("log", n=1)
    assert viewer.told() == []
    assert stage.channels() == []


def test_entries_lost_to_retention_are_owned_up_to() -> None:
    stage, whole, partial = Stage(), Recorder(), Recorder()
    stage.subscribe(partial, "1-1")
    stage.subscribe(whole, "1-3")
    stage.actions()
    stage.ack()
    stage.answer(stage.read(), numbers=(4, 5), complete=False)
    assert partial.told() == ["subscribed, lost", "job 1-1 v1 s0", "log 1-4", "log 1-5"]
    assert whole.told() == ["subscribed", "job 1-3 v1 s0", "log 1-4", "log 1-5"]


def test_entries_all_lost_to_retention_are_skipped() -> None:
    stage, viewer = Stage(), Recorder()
    stage.subscribe(viewer, "1-1")
    stage.actions()
    stage.ack()
    stage.answer(stage.read(), last=5, complete=False)
    stage.hear("log", n=6)
    assert viewer.told() == ["subscribed, lost", "job 1-1 v1 s0", "log 1-6"]


# -- whose job it is -----------------------------------------------------------------------------


def test_missing_and_foreign_jobs_look_the_same() -> None:
    stage, nobody, stranger = Stage(), Recorder(), Recorder(owner="you")
    stage.subscribe(nobody)
    stage.actions()
    stage.ack()
    stage.hub.snapshot(stage.read(), Snapshot(job_id=JOB, found=False))
    stage.subscribe(stranger)
    stage.actions()
    stage.ack()
    stage.answer(stage.read(), final=True)
    (missing,), (foreign,) = nobody.frames, stranger.frames
    assert missing.kind == "missing"
    assert missing.payload == foreign.payload
    assert stage.hub.topics == 0
    assert stage.hub.viewers == 0


def test_foreign_viewer_does_not_end_the_others() -> None:
    stage, mine, stranger = Stage(), Recorder(), Recorder(owner="you")
    stage.live(mine)
    stage.subscribe(stranger)
    stage.answer(stage.read())
    assert stranger.told() == ["missing"]
    stage.hear("log", n=1)
    assert mine.told() == ["log 1-1"]
    assert stage.channels() == []


def test_a_deleted_job_is_missing_for_the_live_too() -> None:
    stage, live, late = Stage(), Recorder(), Recorder()
    stage.live(live)
    stage.subscribe(late)
    stage.hub.snapshot(stage.read(), Snapshot(job_id=JOB, found=False))
    assert live.told() == ["missing"]
    assert late.told() == ["missing"]
    assert stage.channels() == [f"-{JOB}"]


# -- many viewers share reads --------------------------------------------------------------------


def test_joiners_of_one_job_share_one_read_from_the_oldest_cursor() -> None:
    stage = Stage()
    viewers = [Recorder() for _ in range(5)]
    for n, viewer in enumerate(viewers):
        stage.subscribe(viewer, f"1-{4 - n}")
    stage.actions()
    stage.ack()
    read = stage.read()
    assert read.after == Cursor(1, 0)
    stage.answer(read, numbers=(1, 2, 3, 4))
    for n, viewer in enumerate(viewers):
        told = viewer.told()
        assert told[:2] == ["subscribed", f"job 1-{4 - n} v1 s0"]
        assert told[2:] == [f"log 1-{m}" for m in range(5 - n, 5)]


def test_all_viewers_get_the_same_frame() -> None:
    stage, one, two = Stage(), Recorder(), Recorder()
    stage.subscribe(one)
    stage.subscribe(two)
    stage.actions()
    stage.ack()
    stage.answer(stage.read(), numbers=(1,))
    stage.hear("log", n=2)
    assert one.frames[1:] == two.frames[1:]
    assert len(one.frames) == 4


def test_joiner_during_a_read_shares_it_if_covered() -> None:
    stage, first, late, early = Stage(), Recorder(), Recorder(), Recorder()
    stage.subscribe(first, "1-2")
    stage.actions()
    stage.ack()
    read = stage.read()
    stage.hear("log", n=4)
    stage.subscribe(late, "1-3")
    stage.subscribe(early, "1-1")
    assert stage.reads() == []
    stage.answer(read, numbers=(3,))
    assert first.told() == ["subscribed", "job 1-2 v1 s0", "log 1-3", "log 1-4"]
    assert late.told() == ["subscribed", "job 1-3 v1 s0", "log 1-4"]
    assert early.told() == []
    again = stage.read()
    assert again.after == Cursor(1, 1)
    stage.answer(again, numbers=(2, 3, 4))
    assert early.told() == ["subscribed", "job 1-1 v1 s0", "log 1-2", "log 1-3", "log 1-4"]
    assert first.told() == []


def test_joiner_that_knows_more_than_the_read_under_way_waits_for_the_next() -> None:
    stage, first, back = Stage(), Recorder(), Recorder()
    stage.subscribe(first)
    stage.actions()
    stage.ack()
    read = stage.read()
    stage.hear("log", n=1)
    # It has seen entry 1 elsewhere; this read began before there was one.
    stage.subscribe(back, "1-1")
    stage.answer(read)
    assert first.told() == ["subscribed", "job 1-0 v1 s0", "log 1-1"]
    assert back.told() == []
    stage.answer(stage.read(), last=1)
    assert back.told() == ["subscribed", "job 1-1 v1 s0"]


def test_tail_and_cursor_joiners_are_all_served() -> None:
    stage, cursor, tail, mute = Stage(), Recorder(), Recorder(), Recorder()
    stage.subscribe(cursor, "1-8")
    stage.subscribe(tail, None, 5)
    stage.subscribe(mute, None, "none")
    stage.actions()
    stage.ack()
    read = stage.read()
    assert read.after == Cursor(1, 8)
    stage.answer(read, numbers=(9,))
    assert cursor.told() == ["subscribed", "job 1-8 v1 s0", "log 1-9"]
    assert mute.told() == ["subscribed", "job 1-9 v1 s0"]
    assert tail.told() == []
    read = stage.read()
    assert (read.after, read.tail) == (None, 5)
    stage.answer(read, numbers=(5, 6, 7, 8, 9))
    assert tail.told()[1:] == ["job 1-4 v1 s0", *(f"log 1-{n}" for n in range(5, 10))]


def test_long_history_comes_in_pages() -> None:
    stage, viewer, near = Stage(), Recorder(), Recorder()
    stage.subscribe(viewer)
    stage.subscribe(near, "1-3")
    stage.actions()
    stage.ack()
    stage.answer(stage.read(), numbers=(1, 2), last=5, more=True)
    assert viewer.told() == ["subscribed", "job 1-0 v1 s0", "log 1-1", "log 1-2"]
    assert near.told() == []
    read = stage.read()
    assert read.after == Cursor(1, 2)
    stage.hear("log", n=6)
    stage.answer(read, numbers=(3, 4), last=5, more=True)
    assert viewer.told() == ["log 1-3", "log 1-4"]
    assert near.told() == ["subscribed", "job 1-3 v1 s0", "log 1-4"]
    read = stage.read()
    assert read.after == Cursor(1, 4)
    stage.answer(read, 2, numbers=(5, 6))
    assert viewer.told() == ["job 1-4 v2 s0", "log 1-5", "log 1-6"]
    stage.hear("log", n=7)
    assert viewer.told() == ["log 1-7"]
    assert near.told()[-1] == "log 1-7"


def test_viewer_without_entries_goes_live_while_others_page() -> None:
    stage, viewer, mute = Stage(), Recorder(), Recorder()
    stage.subscribe(viewer)
    stage.subscribe(mute, None, "none")
    stage.actions()
    stage.ack()
    read = stage.read()
    stage.answer(read, numbers=(1, 2), last=3, more=True)
    assert mute.told() == ["subscribed", "job 1-3 v1 s0"]
    stage.hear("progress", n=3, seq=1)
    assert mute.told() == ["progress 1-3 s1"]


def test_overflow_of_the_buffer_reads_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topic, "BUFFERED_FRAMES", 2)
    stage, viewer = Stage(), Recorder()
    stage.subscribe(viewer)
    stage.actions()
    stage.ack()
    read = stage.read()
    for n in (1, 2, 3):
        stage.hear("log", n=n)
    stage.answer(read)
    assert viewer.told() == ["subscribed", "job 1-0 v1 s0"]
    stage.answer(stage.read(), numbers=(1, 2, 3))
    stage.hear("log", n=4)
    assert viewer.told() == ["log 1-1", "log 1-2", "log 1-3", "log 1-4"]


def test_overflow_counts_bytes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topic, "BUFFERED_BYTES", 10)
    stage, viewer = Stage(), Recorder()
    stage.subscribe(viewer)
    stage.actions()
    stage.ack()
    read = stage.read()
    stage.hear("log", n=1)
    stage.answer(read)
    assert viewer.told() == ["subscribed", "job 1-0 v1 s0"]
    assert stage.read().after == Cursor(1, 0)


def test_take_actions_hands_out_no_more_reads_than_asked_for() -> None:
    stage = Stage()
    for name in "abc":
        stage.subscribe(Recorder(), job_id=name)
    stage.actions()
    for name in "abc":
        stage.ack(name)
    assert stage.hub.take_actions(0) == []
    assert [action.job_id for action in stage.hub.take_actions(2)] == ["a", "b"]
    assert [action.job_id for action in stage.hub.take_actions(2)] == ["c"]
    assert stage.hub.take_actions(2) == []


# -- leaving -------------------------------------------------------------------------------------


def test_last_viewer_closes_the_channel() -> None:
    stage, one, two = Stage(), Recorder(), Recorder()
    stage.live(one, two)
    stage.hub.unsubscribe(one, JOB)
    stage.hub.unsubscribe(one, JOB)
    assert stage.channels() == []
    stage.hub.remove(two)
    stage.hub.remove(two)
    assert stage.channels() == [f"-{JOB}"]
    assert (stage.hub.viewers, stage.hub.topics, stage.hub.subscriptions) == (0, 0, 0)


def test_figures_count_what_there_is() -> None:
    stage, one, two = Stage(), Recorder(), Recorder()
    stage.subscribe(one, job_id="a")
    stage.subscribe(one, job_id="b")
    stage.subscribe(two, job_id="b")
    hub = stage.hub
    assert (hub.viewers, hub.topics, hub.subscriptions, hub.lagging) == (2, 2, 3, 0)
