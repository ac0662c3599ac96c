"""The hub and viewers that come in crowds: a job is read once for all of them."""

from __future__ import annotations

import pytest

from livejobs_server.push import topic
from livejobs_server.push.hub import CROWD

from .hub_stage import Recorder, Stage

STATE = ["subscribed", "job 1-0 v1 s0", "log 1-1"]


def arrive(stage: Stage, count: int = CROWD) -> list[Recorder]:
    """So many come, and whoever can be told at once is; there may be a read to answer."""
    viewers = [Recorder() for _ in range(count)]
    for viewer in viewers:
        stage.subscribe(viewer, "1-0")
    return viewers


def crowd(stage: Stage) -> list[Recorder]:
    """A crowd that has been told how the job stands, by one read."""
    viewers = arrive(stage)
    stage.actions()
    stage.ack()
    stage.answer(stage.read(), numbers=(1,))
    assert all(viewer.told() == STATE for viewer in viewers)
    return viewers


def test_crowd_is_told_by_one_read() -> None:
    stage = Stage()
    first = crowd(stage)
    second = arrive(stage)
    assert stage.reads() == []
    assert all(viewer.told() == STATE for viewer in second)
    stage.hear("log", n=2)
    assert all(viewer.told() == ["log 1-2"] for viewer in first + second)


def test_crowd_is_told_what_was_published_since_the_read() -> None:
    stage = Stage()
    crowd(stage)
    stage.hear("progress", n=1, seq=1)
    stage.hear("log", n=2)
    late = arrive(stage)
    assert stage.reads() == []
    assert all(viewer.told() == [*STATE, "progress 1-1 s1", "log 1-2"] for viewer in late)
    stage.hear("log", n=3)
    assert all(viewer.told() == ["log 1-3"] for viewer in late)


def test_viewers_that_are_no_crowd_are_told_by_reads_of_their_own() -> None:
    stage = Stage()
    stage.live(*arrive(stage, 3))
    arrive(stage, 1)
    assert len(stage.reads()) == 1


def test_newcomer_after_a_while_is_told_by_a_read() -> None:
    stage = Stage()
    crowd(stage)
    stage.hub.let_go()
    [late] = arrive(stage, 1)
    stage.answer(stage.read(), 2, numbers=(1,))
    assert late.told() == ["subscribed", "job 1-0 v2 s0", "log 1-1"]


def test_newcomer_that_knows_more_than_was_read_is_told_by_a_read() -> None:
    stage, ahead = Stage(), Recorder()
    crowd(stage)
    stage.subscribe(ahead, "1-3")
    assert ahead.told() == []
    stage.answer(stage.read(), 2, numbers=(1, 2, 3, 4))
    assert ahead.told() == ["subscribed", "job 1-3 v2 s0", "log 1-4"]


def test_missed_message_makes_what_was_read_worthless() -> None:
    stage = Stage()
    first = crowd(stage)
    stage.hear("log", n=3)
    late = arrive(stage)
    stage.answer(stage.read(), numbers=(1, 2, 3))
    assert all(viewer.told() == ["log 1-2", "log 1-3"] for viewer in first)
    assert all(viewer.told() == [*STATE, "log 1-2", "log 1-3"] for viewer in late)


def test_lost_connection_makes_what_was_read_worthless() -> None:
    stage = Stage()
    crowd(stage)
    stage.hub.disconnected()
    arrive(stage, 1)
    assert len(stage.reads()) == 1


def test_much_that_was_published_since_makes_for_another_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(topic, "KEPT_FRAMES", 2)
    stage = Stage()
    crowd(stage)
    for n in (2, 3, 4):
        stage.hear("log", n=n)
    arrive(stage, 1)
    assert len(stage.reads()) == 1


def test_row_that_was_found_newer_is_read_for_newcomers_too() -> None:
    stage = Stage()
    first = crowd(stage)
    stage.look(version=5)
    [late] = arrive(stage, 1)
    stage.answer(stage.read(), 5, numbers=(1,))
    assert first[0].told() == ["job 1-1 v5 s0"]
    assert late.told() == ["subscribed", "job 1-0 v5 s0", "log 1-1"]


def test_newcomer_without_the_right_is_told_nothing_of_what_was_read() -> None:
    stage, stranger = Stage(), Recorder("somebody else")
    crowd(stage)
    stage.subscribe(stranger)
    assert stage.reads() == []
    assert stranger.told() == ["missing"]


def test_crowd_that_leaves_altogether_leaves_nothing_behind() -> None:
    stage = Stage()
    for viewer in crowd(stage):
        stage.hub.remove(viewer)
    assert (stage.hub.topics, stage.hub.viewers) == (0, 0)
    stage.hub.let_go()
    arrive(stage, 1)
    stage.actions()
    stage.ack()
    assert len(stage.reads()) == 1
