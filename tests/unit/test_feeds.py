"""Feeds: where they begin, how often they tell, and what they remember."""

from __future__ import annotations

import itertools

import pytest

from livejobs.entries import owner_channel
from livejobs_server.push import follower as follower_module
from livejobs_server.push.feed_exchange import Deleted
from livejobs_server.push.scope import Scope

from .feed_stage import MINE, SECOND, TAGGED, Follower, Stage, glance, row

CHANNEL = owner_channel("me")


# -- beginning -----------------------------------------------------------------------------------


def test_feed_begins_with_what_is_listed_when_its_channel_is_subscribed() -> None:
    stage, follower = Stage(), Follower()
    stage.subscribe(follower, ref=3)
    assert stage.channels() == [f"+{CHANNEL}"]
    assert stage.actions() == []
    stage.ack()
    read = stage.listing()
    assert (read.scope, read.open, read.since) == (MINE, True, None)
    stage.list(read, glance("b"), glance("a", 2), at=5)
    assert follower.told() == ["subscribed 00:00:05"]
    assert stage.answer(row("a", 2, 7), row("b")) == ("b", "a")
    assert follower.told() == ["job b v1 s0", "job a v2 s7"]
    assert follower.caught_up == ["mine"]


def test_feed_without_jobs_has_told_all_at_once() -> None:
    stage, follower = Stage(), Follower()
    stage.subscribe(follower)
    stage.ack()
    stage.list(stage.listing())
    assert follower.caught_up == ["mine"]


def test_those_who_come_together_share_one_reading() -> None:
    stage, one, two, late = Stage(), Follower(), Follower(), Follower()
    stage.subscribe(one)
    stage.subscribe(two, since=100 * SECOND)
    stage.ack()
    read = stage.listing()
    assert (read.open, read.since) == (True, 90 * SECOND)
    stage.subscribe(late)
    assert stage.actions() == []
    stage.list(read, glance("over", 95, final=True), glance("a", 96))
    assert late.told() == []
    again = stage.actions()
    assert len(again) == 2
    assert stage.feeds.feeds == 1


def test_each_is_told_what_its_own_since_leaves_out() -> None:
    stage, new, back, poll = Stage(), Follower(), Follower(), Follower()
    stage.subscribe(new)
    stage.subscribe(back, since=100 * SECOND)
    stage.subscribe(poll, since=100 * SECOND, wants_open=False)
    stage.ack()
    stage.list(
        stage.listing(), glance("old", 5), glance("over", 95, final=True), glance("open", 97)
    )
    stage.answer(row("old", 5), row("over", 95, final=True), row("open", 97))
    assert new.told()[1:] == ["job old v5 s0", "job open v97 s0"]
    assert back.told()[1:] == ["job old v5 s0", "final over v95 s0", "job open v97 s0"]
    assert poll.told()[1:] == ["final over v95 s0", "job open v97 s0"]


def test_what_happens_during_the_listing_is_told_after_it() -> None:
    stage, follower = Stage(), Follower()
    stage.subscribe(follower)
    stage.ack()
    read = stage.listing()
    stage.hear("job", "new", version=1)
    stage.hear("job", "listed", version=4, attempt=1)
    assert follower.told() == []
    stage.list(read, glance("listed", 3))
    stage.answer(row("listed", 4), row("new", 1))
    assert sorted(follower.told()[1:]) == ["job listed v4 s0", "job new v1 s0"]


def test_message_newer_than_the_row_is_told_in_its_place() -> None:
    stage, follower = Stage(), Follower()
    stage.subscribe(follower)
    stage.ack()
    stage.list(stage.listing(), glance("a", 1))
    (read,) = stage.reads()
    stage.hear("final", version=3)
    assert follower.told()[1:] == ["final a v3 s0"]
    stage.feeds.read(read, {"a": row("a", 1)})
    stage.tick(1)
    assert follower.told() == []
    assert follower.caught_up == ["mine"]


def test_listing_that_leaves_jobs_out_says_so() -> None:
    stage, follower = Stage(), Follower()
    stage.subscribe(follower)
    stage.ack()
    stage.list(stage.listing(), complete=False)
    assert follower.told() == ["subscribed 00:00:00, not all"]


def test_listing_that_fails_is_tried_again() -> None:
    stage, follower = Stage(), Follower()
    stage.subscribe(follower)
    stage.ack()
    stage.feeds.listed(stage.listing(), None)
    assert stage.feeds.postponed == 1
    assert stage.actions() == []
    stage.feeds.retry_reads()
    stage.list(stage.listing(), glance("a"))
    (read,) = stage.reads()
    stage.feeds.read(read, None)
    assert stage.actions() == []
    stage.feeds.retry_reads()
    stage.answer(row())
    assert follower.told()[1:] == ["job a v1 s0"]


def test_children_are_for_who_may_see_the_parent() -> None:
    stage, follower, stranger = Stage(), Follower(), Follower()
    scope = Scope("children:p", parent_id="p")
    stranger.hidden = {"p"}
    stage.subscribe(follower, scope)
    stage.subscribe(stranger, scope, ref=4)
    stage.ack(scope)
    stage.list(stage.listing(), glance("a", parent_id="p"), parent_owner="me")
    assert follower.told() == ["subscribed 00:00:00"]
    assert b'"code":"unknown_job"' in stranger.frames[0].payload
    assert b'"feed":"children:p","ref":4' in stranger.frames[0].payload
    assert stage.feeds.viewers == 1


# -- live ----------------------------------------------------------------------------------------


def test_first_message_goes_out_at_once_and_the_newest_a_quarter_second_later() -> None:
    stage, follower = Stage(), Follower()
    stage.follow(follower)
    stage.hear("job", version=1)
    assert follower.told() == ["job a v1 s0"]
    for seq in range(1, 10):
        stage.hear("progress", seq=seq)
        stage.tick(0.02)
    assert follower.told() == []
    assert stage.feeds.next_due == pytest.approx(100.25)
    stage.tick(0.1)
    assert follower.told() == ["progress a s9"]
    assert stage.feeds.next_due is None


def test_no_more_than_four_messages_go_out_in_a_second() -> None:
    stage, follower = Stage(), Follower()
    stage.follow(follower)
    stage.hear("job", version=1)
    follower.told()
    told = [stage.now]
    for step in range(400):
        stage.tick(0.01)
        stage.hear("job" if step % 7 == 0 else "progress", version=2 + step, seq=1 + step)
        told += [stage.now] * len(follower.told())
    assert 15 <= len(told) <= 17
    assert all(later - sooner > 0.2499 for sooner, later in itertools.pairwise(told))


def test_view_goes_before_progress_and_progress_after_it_is_kept() -> None:
    stage, follower = Stage(), Follower()
    stage.follow(follower)
    stage.hear("job", version=1)
    stage.hear("progress", seq=1)
    stage.hear("job", version=2, seq=1)
    stage.hear("progress", seq=2)
    follower.told()
    stage.tick(0.25)
    assert follower.told() == ["job a v2 s1"]
    stage.tick(0.25)
    assert follower.told() == ["progress a s2"]


def test_final_view_is_told_at_the_next_edge_and_its_job_forgotten() -> None:
    stage, follower = Stage(), Follower()
    stage.follow(follower)
    stage.hear("job", version=1)
    stage.hear("progress", seq=1)
    stage.hear("final", version=3, seq=1)
    follower.told()
    stage.tick(0.25)
    assert follower.told() == ["final a v3 s1"]
    assert stage.feeds.members == 0
    for kind in ("progress", "job", "final"):
        stage.hear(kind, version=2, seq=9)
    stage.tick(1)
    assert follower.told() == []
    assert stage.actions() == []
    stage.hear("job", version=4)
    assert follower.told() == ["job a v4 s0"]


def test_old_messages_are_dropped() -> None:
    stage, follower = Stage(), Follower()
    stage.follow(follower)
    stage.hear("job", version=5, attempt=2, seq=3)
    follower.told()
    stage.tick(1)
    stage.hear("job", version=5, attempt=2, seq=3)
    stage.hear("job", version=4, attempt=2, seq=9)
    stage.hear("progress", attempt=2, seq=3)
    stage.hear("progress", attempt=1, seq=9)
    stage.tick(1)
    assert follower.told() == []


def test_progress_of_a_job_that_is_not_known_has_its_row_read() -> None:
    stage, follower = Stage(), Follower()
    stage.follow(follower)
    stage.hear("progress", seq=4)
    stage.hear("progress", seq=5)
    assert follower.told() == []
    assert stage.answer(row("a", 2, 5)) == ("a",)
    assert follower.told() == ["job a v2 s5"]
    stage.tick(1)
    stage.hear("progress", attempt=2, seq=1)
    assert stage.answer(row("a", 3, 1, attempt=2)) == ("a",)
    assert follower.told() == ["job a v3 s1"]


def test_tag_feed_looks_once_at_each_job() -> None:
    stage, follower = Stage(), Follower()
    stage.follow(follower, scope=TAGGED)
    stage.hear("job", "in", version=1, tags={"k": "v"})
    stage.hear("job", "out", version=1, tags={"k": "w"})
    stage.hear("progress", "out", seq=1)
    assert follower.told() == ["job in v1 s0"]
    stage.hear("progress", "other", seq=1)
    assert stage.answer() == ("other",)
    stage.hear("progress", "other", seq=2)
    stage.look(glance("other", 7), glance("out", 7))
    assert stage.actions() == []
    assert follower.told() == []


def test_job_that_the_viewer_may_not_see_is_not_told() -> None:
    stage, follower, other = Stage(), Follower(), Follower()
    follower.hidden = {"a"}
    stage.follow(follower, other)
    stage.hear("job", version=1)
    stage.look(deleted=["a"])
    stage.tick(1)
    assert follower.told() == []
    assert other.told() == ["job a v1 s0", "gone a"]


def test_message_that_is_not_understood_is_counted() -> None:
    stage, follower = Stage(), Follower()
    stage.follow(follower)
    for data in (b"", b"1 1 1 1 1 job\nx\n{}", b"1 1 1 1 1 job\n7\n{}", b"1 1 1 1 1 dance\n{}\n{}"):
        stage.feeds.published(CHANNEL, data)
    stage.feeds.published(CHANNEL, b'1 1 0 1 0 job\n"a"\n{"type":"job","job":[]}')
    stage.feeds.published(CHANNEL, b'1 0 0 0 0 gone\n"a"\n{}')
    assert stage.feeds.rejected == 6
    stage.feeds.published(CHANNEL, b'1 1 3 0 0 log\n"a"\n{}')
    stage.tick(1)
    assert follower.told() == []
    stage.feeds.published("lj:feed:{other}", b"")
    assert stage.feeds.rejected == 6


# -- deleted -------------------------------------------------------------------------------------


def test_deleted_job_is_told_once() -> None:
    stage, follower = Stage(), Follower()
    stage.follow(follower)
    stage.hear("final", version=3)
    follower.told()
    stage.tick(1)
    stage.hear_deleted("a")
    assert follower.told() == ["gone a"]
    stage.look(deleted=["a"])
    stage.tick(1)
    assert follower.told() == []
    assert stage.feeds.members == 0
    # The id is used again.
    stage.hear("job", version=1)
    assert follower.told() == ["job a v1 s0"]
    stage.hear_deleted("a")
    stage.tick(1)
    assert follower.told() == ["gone a"]


def test_job_whose_row_is_missing_is_told_as_deleted() -> None:
    stage, follower = Stage(), Follower()
    stage.follow(follower)
    stage.hear("job", version=3)
    stage.look(glance("a", 5))
    assert stage.answer() == ("a",)
    stage.tick(1)
    assert follower.told() == ["job a v3 s0", "gone a"]
    stage.hear("progress", "b", seq=1)
    assert stage.answer() == ("b",)
    assert follower.told() == []


def test_who_comes_back_is_told_what_was_deleted() -> None:
    stage, follower, new = Stage(), Follower(), Follower()
    stage.subscribe(follower, since=5 * SECOND)
    stage.subscribe(new)
    stage.ack()
    stage.list(stage.listing(), deleted=[Deleted("a", "me", None)])
    stage.tick(1)
    assert follower.told() == ["subscribed 00:00:00", "gone a"]
    assert new.told() == ["subscribed 00:00:00"]
    assert stage.feeds.members == 0


def test_who_lags_while_a_job_that_is_over_is_deleted_is_told_later() -> None:
    stage, slow = Stage(), Follower()
    stage.follow(slow)
    stage.hear("final", version=3)
    stage.tick(1)
    slow.told()
    slow.room = 0
    stage.hear_deleted("a")
    assert stage.feeds.members == 0
    slow.room = None
    stage.feeds.resume(slow)
    stage.tick(1)
    assert slow.told() == ["gone a"]


def test_job_that_is_made_anew_is_told_after_the_end_of_the_one_before() -> None:
    stage, slow, quick = Stage(), Follower(), Follower()
    stage.follow(slow, quick)
    stage.hear("job", version=7, seq=5)
    slow.told()
    quick.told()
    slow.room = 0
    stage.hear_deleted("a")
    stage.hear("job", version=1)
    stage.hear("progress", seq=1)
    for _ in range(3):
        stage.tick(0.25)
    assert quick.told() == ["gone a", "job a v1 s0", "progress a s1"]
    slow.room = None
    stage.feeds.resume(slow)
    stage.answer(row(version=1, seq=1))
    for _ in range(3):
        stage.tick(0.25)
    assert slow.told() == ["gone a", "job a v1 s1"]


def test_job_that_was_made_anew_unheard_is_known_by_its_smaller_version() -> None:
    stage, follower = Stage(), Follower()
    stage.follow(follower)
    stage.hear("job", "a", version=7)
    stage.hear("final", "b", version=3)
    stage.tick(1)
    follower.told()
    stage.look(glance("a", 2), glance("b", 1))
    assert stage.answer(row("a", 2), row("b", 1)) == ("a", "b")
    for _ in range(3):
        stage.tick(0.25)
    assert sorted(follower.told()) == ["gone a", "gone b", "job a v2 s0", "job b v1 s0"]
    assert stage.reads() == []


def test_read_from_before_a_deletion_brings_no_job_back() -> None:
    stage, follower = Stage(), Follower()
    stage.follow(follower)
    stage.hear("job", version=2)
    stage.look(glance("a", 5))
    (read,) = stage.reads()
    stage.hear_deleted("a")
    stage.feeds.read(read, {"a": row("a", 5)})
    for _ in range(3):
        stage.tick(0.25)
    assert follower.told() == ["job a v2 s0", "gone a"]
    assert (stage.feeds.members, stage.reads()) == (0, [])


def test_listing_tells_followers_what_no_round_has_told_of() -> None:
    stage, follower, new = Stage(), Follower(), Follower()
    stage.follow(follower)
    stage.feeds.renew(100 * SECOND)
    follower.told()
    stage.subscribe(new)
    # Rounds have failed for a minute, and with them what would have told of this.
    stage.list(stage.listing(), glance("a", changed=120 * SECOND), at=160)
    assert stage.answer(row("a", 1)) == ("a",)
    stage.tick(1)
    assert follower.told() == ["job a v1 s0"]


# -- lagging -------------------------------------------------------------------------------------


def test_lagging_viewer_costs_ids_and_gets_the_newest_when_it_resumes() -> None:
    stage, slow, quick = Stage(), Follower(), Follower()
    stage.follow(slow, quick)
    slow.room = 0
    stage.hear("job", "a", version=1)
    stage.hear("job", "b", version=1)
    for seq in range(1, 50):
        stage.hear("progress", "a", seq=seq)
        stage.tick(0.3)
    stage.tick(1)
    stage.hear("final", "c", version=9)
    assert len(quick.told()) == 52
    assert stage.feeds.lagging == 1
    assert stage.feeds.members == 2
    slow.room = None
    stage.feeds.resume(slow)
    stage.tick()
    assert slow.told() == []
    assert stage.answer(row("a", 1, 49), row("b"), row("c", 9, final=True)) == ("a", "b", "c")
    assert slow.told() == ["job a v1 s49", "job b v1 s0", "final c v9 s0"]
    assert quick.told() == []
    stage.hear("progress", "a", seq=50)
    stage.tick(1)
    assert slow.told() == quick.told() == ["progress a s50"]


def test_viewer_that_fills_up_again_goes_on_where_it_was() -> None:
    stage, slow = Stage(), Follower()
    stage.follow(slow)
    slow.room = 0
    for job_id in "abcd":
        stage.hear("job", job_id, version=1)
    told: list[str] = []
    while len(told) < 4:
        slow.room = 1
        stage.feeds.resume(slow)
        stage.tick(1)
        for read in stage.reads():
            stage.feeds.read(read, {job_id: row(job_id) for job_id in read.job_ids})
        stage.tick(1)
        told += slow.told()
    assert sorted(told) == [f"job {job_id} v1 s0" for job_id in "abcd"]


def test_viewer_that_lags_too_long_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower_module, "MAX_MEMBERS", 3)
    stage, slow = Stage(), Follower()
    stage.subscribe(slow)
    stage.ack()
    stage.list(stage.listing(), at=60)
    slow.told()
    slow.room = 0
    for number in range(5):
        stage.hear("job", f"job-{number}", version=1)
    slow.room = None
    stage.feeds.resume(slow)
    read = stage.listing()
    assert (read.open, read.since) == (True, 50 * SECOND)
    stage.list(read, glance("job-4", 70), at=80)
    stage.answer(row("job-4", 70))
    assert slow.told() == ["subscribed 00:01:20", "job job-4 v70 s0"]


def test_viewer_that_refuses_its_beginning_gets_it_later() -> None:
    stage, slow = Stage(), Follower()
    slow.room = 0
    stage.subscribe(slow)
    stage.ack()
    stage.list(stage.listing(), glance("a"))
    assert stage.feeds.lagging == 1
    slow.room = None
    stage.feeds.resume(slow)
    stage.list(stage.listing(), glance("a"))
    for read in stage.reads():
        stage.feeds.read(read, {"a": row()})
    stage.tick()
    assert slow.told() == ["subscribed 00:00:00", "job a v1 s0"]


def test_viewer_that_breaks_is_removed_and_nobody_else() -> None:
    stage, broken, other = Stage(), Follower(), Follower()
    stage.follow(broken, other)
    broken.broken = True
    stage.hear("job", version=1)
    assert other.told() == ["job a v1 s0"]
    assert stage.feeds.viewers == 1
