"""What workers and servers publish for feeds, through the real script."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from livejobs.entries import (
    Entry,
    ProgressReport,
    channel,
    feed_channels,
    parse_published,
    parse_told,
)
from livejobs.live import Live, Publication
from livejobs.settings import Settings
from livejobs_server.push.scope import Scope

from ..support.live_server import on_sqlite
from ..support.waiting import wait_until_async
from ..unit.feed_stage import Follower
from ..unit.hub_stage import Recorder
from .relay_bench import Bench

ODD = ["", "alice", "a}b{", 'quote"\n', "日本"]


def heard(listener: Any, count: int) -> list[tuple[str, bytes]]:
    """So many messages: channel and data."""
    found: list[tuple[str, bytes]] = []
    deadline = time.monotonic() + 10
    while len(found) < count:
        assert time.monotonic() < deadline, f"only {len(found)} messages came"
        # An acknowledgement counts as none.
        message = listener.get_message(timeout=0.5)
        if message is not None:
            found.append((message["channel"].decode(), message["data"]))
    return found


@pytest.fixture
def live(settings: Settings) -> Iterator[Live]:
    live = Live(settings)
    yield live
    live.close()


@on_sqlite
@pytest.mark.parametrize("owner", ODD)
def test_views_and_progress_are_published_for_feeds_with_the_same_payload(
    live: Live, owner: str
) -> None:
    job_id = f'job of "{owner}"\\'
    names = [channel(job_id), *feed_channels(owner, owner)]
    listener = live.client.pubsub(ignore_subscribe_messages=True)
    listener.subscribe(*names)
    entry = Entry(1, "log", '"lines":[]}')
    outcome = live.publish(
        Publication(
            job_id,
            1,
            1,
            [entry],
            ProgressReport(3, '{"current":3}'),
            feeds=feed_channels(owner, owner),
        )
    )
    assert outcome == (True, 1, 0)
    messages = heard(listener, 5)
    own = [parse_published(data) for name, data in messages if name == names[0]]
    assert [message.kind for message in own] == ["log", "progress"]
    told = {name: parse_told(data) for name, data in messages if name != names[0]}
    assert set(told) == set(names[1:])
    assert all(found == (job_id, own[1]) for found in told.values())
    assert json.loads(own[1].payload)["job_id"] == job_id
    listener.close()


@on_sqlite
def test_older_attempt_is_told_to_no_feed(live: Live) -> None:
    feeds = feed_channels("alice", None)
    listener = live.client.pubsub(ignore_subscribe_messages=True)
    listener.subscribe(*feeds)
    report = ProgressReport(1, "{}")
    assert live.publish(Publication("j", 2, 0, (), report, feeds=feeds)).accepted
    assert not live.publish(Publication("j", 1, 0, (), report, feeds=feeds)).accepted
    assert [parse_told(data)[1].attempt for _, data in heard(listener, 2)] == [2, 2]
    assert listener.get_message(timeout=0.2) is None
    listener.close()


async def test_feed_channels_are_left_with_their_last_follower(redis_url: str) -> None:
    bench = Bench(redis_url)
    await bench.connected()
    name = feed_channels("erin", None)[1]

    async def subscribers() -> int:
        return int((await bench.redis.pubsub_numsub(name))[0][1])

    follower, other = Follower(), Recorder()
    try:
        bench.feeds.subscribe(follower, Scope("mine", "erin"))
        bench.watch(other, "a")
        await wait_until_async(lambda: follower.frames, description="it follows")
        assert await subscribers() == 1
        bench.feeds.remove(follower)
        bench.relay.kick()
        for _ in range(100):
            if not await subscribers():
                break
        assert await subscribers() == 0
        assert bench.relay.connected
    finally:
        await bench.stop()
