"""The hub: what comes live, and the end of a job."""

from __future__ import annotations

import pytest

from livejobs.entries import Cursor

from .hub_stage import JOB, Recorder, Stage

# -- live ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "numbers", "told"),
    [
        ("job", {"n": 3, "version": 5, "seq": 5}, []),
        ("job", {"n": 3, "version": 6, "seq": 5}, ["job 1-3 v6 s5"]),
        ("job", {"n": 2, "version": 6, "seq": 5}, ["job 1-2 v6 s5"]),
        ("progress", {"n": 3, "seq": 5}, []),
        ("progress", {"n": 3, "seq": 9}, ["progress 1-3 s9"]),
        ("log", {"n": 3}, []),
        ("log", {"n": 4}, ["log 1-4"]),
        ("output", {"n": 4}, ["output 1-4"]),
        ("log", {"attempt": 0, "n": 4}, []),
        ("job", {"attempt": 0, "n": 0, "version": 9}, []),
        ("job", {"attempt": 2, "n": 0, "version": 6, "seq": 0}, ["job 2-0 v6 s0"]),
        ("final", {"n": 3, "version": 6, "seq": 5}, ["final 1-3 v6 s5", "end 1-3-end"]),
        ("final", {"n": 3, "version": 5, "seq": 5}, []),
        (
            "final",
            {"attempt": 2, "n": 0, "version": 7, "seq": 0},
            ["final 2-0 v7 s0", "end 2-0-end"],
        ),
    ],
)
def test_live_takes_what_is_next_and_drops_what_is_old(
    kind: str, numbers: dict[str, int], told: list[str]
) -> None:
    stage, viewer = Stage(), Recorder()
    stage.live(viewer, version=5, seq=5, last=3)
    stage.hear(kind, **numbers)
    assert viewer.told() == told
    assert stage.reads() == []


@pytest.mark.parametrize(
    ("kind", "numbers"),
    [
        ("log", {"n": 5}),
        ("progress", {"n": 4, "seq": 9}),
        ("job", {"n": 4, "version": 9, "seq": 5}),
        ("final", {"n": 4, "version": 9, "seq": 5}),
        ("progress", {"attempt": 2, "n": 0, "seq": 1}),
        ("log", {"attempt": 2, "n": 1}),
        ("job", {"attempt": 2, "n": 1, "version": 9}),
        ("job", {"attempt": 2, "n": 0, "version": 5}),
        ("final", {"attempt": 2, "n": 1, "version": 9}),
    ],
)
def test_live_reads_when_something_was_missed(kind: str, numbers: dict[str, int]) -> None:
    stage, viewer = Stage(), Recorder()
    stage.live(viewer, version=5, seq=5, last=3)
    stage.hear(kind, **numbers)
    assert viewer.told() == []
    assert stage.read().after == Cursor(1, 3)


def test_hole_is_filled_for_all_without_a_second_view() -> None:
    stage, one, two = Stage(), Recorder(), Recorder()
    stage.live(one, two, version=5, seq=5, last=3)
    stage.hear("log", n=5)
    stage.answer(stage.read(), 5, 5, numbers=(4, 5))
    stage.hear("log", n=6)
    assert one.told() == two.told() == ["log 1-4", "log 1-5", "log 1-6"]


def test_hole_brings_the_view_where_it_is_newer() -> None:
    stage, viewer = Stage(), Recorder()
    stage.live(viewer, version=5, seq=5, last=3)
    stage.hear("progress", n=4, seq=9)
    stage.answer(stage.read(), 5, 9, numbers=(4,))
    assert viewer.told() == ["job 1-3 v5 s9", "log 1-4"]


def test_new_attempt_after_a_hole_starts_entries_afresh() -> None:
    stage, viewer = Stage(), Recorder()
    stage.live(viewer, version=5, seq=5, last=3)
    stage.hear("log", attempt=2, n=2)
    stage.answer(stage.read(), 7, 1, attempt=2, numbers=(1, 2))
    assert viewer.told() == ["job 2-0 v7 s1", "log 2-1", "log 2-2"]
    stage.hear("log", attempt=1, n=4)
    stage.hear("log", attempt=2, n=3)
    assert viewer.told() == ["log 2-3"]


def test_new_attempt_taken_live_counts_from_one() -> None:
    stage, viewer = Stage(), Recorder()
    stage.live(viewer, version=5, seq=5, last=3)
    stage.hear("job", attempt=2, n=0, version=6, seq=0)
    stage.hear("log", attempt=2, n=1)
    stage.hear("progress", attempt=2, n=1, seq=1)
    assert viewer.told() == ["job 2-0 v6 s0", "log 2-1", "progress 2-1 s1"]


def test_joiner_s_read_that_knows_more_brings_the_live_up_to_date() -> None:
    stage, live, new = Stage(), Recorder(), Recorder()
    stage.live(live, version=5, last=3)
    stage.subscribe(new, "1-2")
    stage.answer(stage.read(), 6, numbers=(3, 4))
    assert live.told() == ["job 1-3 v6 s0", "log 1-4"]
    assert new.told() == ["subscribed", "job 1-2 v6 s0", "log 1-3", "log 1-4"]
    # What the read knew arrives late, and is known.
    stage.hear("log", n=4)
    stage.hear("job", n=4, version=6)
    stage.hear("log", n=5)
    assert live.told() == new.told() == ["log 1-5"]


def test_live_viewers_are_not_disturbed_by_a_join() -> None:
    stage, live, new = Stage(), Recorder(), Recorder()
    stage.live(live, version=5, last=3)
    stage.subscribe(new, "1-3")
    read = stage.read()
    stage.hear("log", n=4)
    stage.answer(read, 5, last=3)
    assert live.told() == ["log 1-4"]
    assert new.told() == ["subscribed", "job 1-3 v5 s0", "log 1-4"]
    assert stage.reads() == []


def test_rubbish_on_the_channel_is_counted_and_ignored() -> None:
    stage, viewer = Stage(), Recorder()
    stage.live(viewer)
    for data in (b"", b"rubbish", b"1 1 1 0 0 rumour\n{}", b"9 1 1 0 0 log\n{}", b"\xff\n\xff"):
        stage.hub.published(JOB, data)
    assert stage.hub.rejected == 5
    assert viewer.told() == []
    assert stage.reads() == []


# -- the end -------------------------------------------------------------------------------------


def test_final_ends_all_and_closes_the_channel() -> None:
    stage, one, two = Stage(), Recorder(), Recorder()
    stage.live(one, two)
    stage.hear("final", version=2)
    assert one.told() == two.told() == ["final 1-0 v2 s0", "end 1-0-end"]
    assert stage.hub.subscriptions == 0
    assert stage.channels() == [f"-{JOB}"]


def test_snapshot_of_a_job_that_is_over_is_told_to_its_end() -> None:
    stage, viewer = Stage(), Recorder()
    stage.subscribe(viewer, "1-1")
    stage.actions()
    stage.ack()
    stage.answer(stage.read(), 9, 3, numbers=(2, 3), final=True)
    assert viewer.told() == [
        "subscribed", "final 1-1 v9 s3", "log 1-2", "log 1-3", "end 1-3-end",
    ]  # fmt: skip
    assert stage.hub.topics == 0


def test_end_waits_for_the_last_page() -> None:
    stage, viewer = Stage(), Recorder()
    stage.subscribe(viewer)
    stage.actions()
    stage.ack()
    stage.answer(stage.read(), numbers=(1,), last=2, more=True, final=True)
    assert viewer.told() == ["subscribed", "final 1-0 v1 s0", "log 1-1"]
    stage.answer(stage.read(), numbers=(2,), final=True)
    assert viewer.told() == ["log 1-2", "end 1-2-end"]


def test_viewer_without_entries_gets_the_end_while_others_page() -> None:
    stage, viewer, mute = Stage(), Recorder(), Recorder()
    stage.subscribe(viewer)
    stage.subscribe(mute, None, "none")
    stage.actions()
    stage.ack()
    stage.answer(stage.read(), numbers=(1,), last=2, more=True, final=True)
    assert mute.told() == ["subscribed", "final 1-2 v1 s0", "end 1-2-end"]


def test_final_does_not_overtake_missing_entries() -> None:
    stage, viewer = Stage(), Recorder()
    stage.live(viewer)
    stage.hear("final", n=2, version=2)
    assert viewer.told() == []
    stage.answer(stage.read(), 2, numbers=(1, 2), final=True)
    assert viewer.told() == ["final 1-0 v2 s0", "log 1-1", "log 1-2", "end 1-2-end"]


def test_final_during_a_read_reaches_live_and_joiners_once() -> None:
    stage, live, new = Stage(), Recorder(), Recorder()
    stage.live(live)
    stage.subscribe(new)
    read = stage.read()
    stage.hear("log", n=1)
    stage.hear("final", n=1, version=2)
    assert live.told() == ["log 1-1", "final 1-1 v2 s0", "end 1-1-end"]
    stage.answer(read)
    assert new.told() == [
        "subscribed", "job 1-0 v1 s0", "log 1-1", "final 1-1 v2 s0", "end 1-1-end",
    ]  # fmt: skip
    assert stage.hub.topics == 0


def test_read_that_knows_the_end_first_ends_the_live_once() -> None:
    stage, live, new = Stage(), Recorder(), Recorder()
    stage.live(live)
    stage.subscribe(new)
    stage.answer(stage.read(), 2, final=True)
    assert live.told() == ["final 1-0 v2 s0", "end 1-0-end"]
    stage.hear("final", version=2)
    assert live.told() == []
    assert new.told() == ["subscribed", "final 1-0 v2 s0", "end 1-0-end"]


def test_job_requeued_during_a_read_does_not_end() -> None:
    stage, viewer = Stage(), Recorder()
    stage.subscribe(viewer)
    stage.actions()
    stage.ack()
    read = stage.read()
    stage.hear("job", version=3)
    stage.answer(read, 2, final=True)
    assert viewer.told() == ["subscribed", "final 1-0 v2 s0", "job 1-0 v3 s0"]
