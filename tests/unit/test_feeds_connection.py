"""Feeds and what is around them: rounds, the pub/sub connection, and who has gone."""

from __future__ import annotations

import pytest

from livejobs.entries import owner_channel
from livejobs_server.push import members as members_module
from livejobs_server.push import remembered

from .feed_stage import MINE, SECOND, TAGGED, Follower, Stage, glance, row

CHANNEL = owner_channel("me")


# -- rounds --------------------------------------------------------------------------------------


def test_round_has_those_read_that_are_behind() -> None:
    stage, follower = Stage(), Follower()
    stage.follow(follower)
    stage.hear("job", "a", version=3, seq=2)
    stage.hear("final", "over", version=8)
    stage.tick(1)
    follower.told()
    stage.look(glance("a", 3, seq=2), glance("over", 8, final=True))
    assert stage.actions() == []
    stage.look(glance("a", 4, seq=2), glance("never heard of", 1))
    assert stage.answer(row("a", 4, 2, shape=5), row("never heard of")) == ("a", "never heard of")
    assert follower.told() == ["job a v4 s2", "job never heard of v1 s0"]
    # Only reports were saved: there is nothing to see.
    stage.look(glance("a", 9, seq=2, shape=5))
    assert stage.actions() == []
    stage.look(glance("a", 9, seq=3, shape=5))
    assert stage.answer(row("a", 9, 3)) == ("a",)


def test_round_concerns_only_the_feeds_of_the_owner() -> None:
    stage, follower = Stage(), Follower()
    stage.follow(follower)
    stage.look(glance("a", owner="other"), glance("b", owner=""))
    assert stage.actions() == []


def test_followers_that_know_everything_are_told_where_to_resume_once_a_minute() -> None:
    stage, follower, slow = Stage(), Follower(), Follower()
    stage.follow(follower, slow)
    stage.hear("job", version=1)
    stage.feeds.renew(59 * SECOND)
    assert follower.told() == ["job a v1 s0"]
    slow.room = 0
    stage.hear("job", "b", version=1)
    stage.feeds.renew(61 * SECOND)
    stage.feeds.renew(66 * SECOND)
    assert follower.told() == ["job b v1 s0", "subscribed 00:01:01"]
    assert slow.told() == ["job a v1 s0"]
    stage.hear("progress", "c", seq=1)
    stage.feeds.renew(200 * SECOND)
    assert follower.told() == []
    stage.answer(row("c", 1, 1))
    stage.feeds.renew(201 * SECOND)
    assert follower.told() == ["job c v1 s1", "subscribed 00:03:21"]


# -- the connection ------------------------------------------------------------------------------


def test_offline_a_feed_begins_without_its_channel_and_lives_on_rounds() -> None:
    stage, follower = Stage(online=False), Follower()
    stage.subscribe(follower)
    stage.list(stage.listing(), glance("a"))
    stage.answer(row())
    assert follower.told() == ["subscribed 00:00:00", "job a v1 s0"]
    stage.tick(1)
    stage.look(glance("a", 2, seq=6))
    stage.answer(row("a", 2, 6))
    assert follower.told() == ["job a v2 s6"]
    stage.feeds.connected()
    assert stage.channels() == [f"+{CHANNEL}"]
    stage.hear("progress", seq=9)
    assert follower.told() == []
    stage.ack()
    stage.tick(1)
    stage.hear("progress", seq=9)
    assert follower.told() == ["progress a s9"]


def test_channel_is_left_with_its_last_feed_and_late_acknowledgements_count_for_nothing() -> None:
    stage, one, two = Stage(), Follower(), Follower()
    stage.subscribe(one)
    stage.subscribe(two, TAGGED)
    assert stage.channels() == [f"+{CHANNEL}"]
    stage.feeds.unsubscribe(one, "mine")
    stage.feeds.remove(two)
    assert stage.channels() == [f"-{CHANNEL}"]
    stage.subscribe(one)
    assert stage.channels() == [f"+{CHANNEL}"]
    stage.ack()
    assert stage.actions() == []
    stage.ack()
    assert stage.listing().scope == MINE
    assert (stage.feeds.feeds, stage.feeds.viewers) == (1, 1)


def test_members_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members_module, "MAX_MEMBERS", 10)
    monkeypatch.setattr(remembered, "MAX_REMEMBERED", 10)
    stage, follower = Stage(), Follower()
    stage.follow(follower)
    for number in range(100):
        stage.hear("job", f"open-{number}", version=1)
        stage.hear("final", f"over-{number}", version=1)
    assert 5 < stage.feeds.members <= 10
    assert len(follower.told()) == 200
    stage.hear("progress", "open-3", seq=1)
    assert stage.answer(row("open-3", 1, 1)) == ("open-3",)
    assert follower.told() == ["job open-3 v1 s1"]


def test_nothing_is_left_of_viewers_that_went_away() -> None:
    stage, one, two = Stage(), Follower(), Follower()
    stage.follow(one, two)
    stage.follow(one, scope=TAGGED)
    stage.hear("job", version=1)
    stage.hear("progress", seq=1)
    stage.feeds.remove(one)
    stage.feeds.remove(two)
    stage.feeds.unsubscribe(two, "mine")
    stage.tick(1)
    feeds = stage.feeds
    assert (feeds.feeds, feeds.viewers, feeds.members, feeds.lagging) == (0, 0, 0, 0)
