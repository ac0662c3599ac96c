"""The relay between a real Valkey and the hub: what is lost, noticed, repeated and resumed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Iterator

import pytest
import redis.asyncio
import uvloop

from livejobs.entries import channel
from livejobs.errors import RedisUnavailable
from livejobs.live import OUTAGES, AsyncLive
from livejobs.settings import Settings
from livejobs_server.push import line, relay

from ..support.servers import ValkeyProcess
from ..support.waiting import wait_until_async
from ..unit.hub_stage import Recorder
from .relay_bench import NOTICED_SECONDS, Bench, told


@pytest.fixture
async def bench(redis_url: str) -> AsyncIterator[Bench]:
    made = Bench(redis_url)
    yield made
    await made.stop()


@pytest.fixture
def valkey() -> Iterator[ValkeyProcess]:
    """A server of this test's own, to be killed and frozen."""
    server = ValkeyProcess()
    server.start()
    yield server
    server.close()


async def test_relay_brings_what_is_published_to_the_viewer(bench: Bench) -> None:
    viewer = Recorder()
    await bench.publish("a", 1)
    bench.watch(viewer, "a")
    await told(viewer, "subscribed", "job 1-0 v1 s0", "log 1-1")
    await bench.publish("a", 2)
    await told(viewer, "log 1-2")


async def test_relay_subscribes_only_while_somebody_watches(bench: Bench) -> None:
    async def subscribers(expected: int) -> None:
        async with asyncio.timeout(5):
            while (await bench.redis.pubsub_numsub(channel("a")))[0][1] != expected:
                pass

    viewer = Recorder()
    bench.watch(viewer, "a")
    await told(viewer, "subscribed", "job 1-0 v1 s0")
    await subscribers(1)
    for _ in range(3):
        bench.hub.remove(viewer)
        bench.watch(viewer, "a")
    await told(viewer, "subscribed", "job 1-0 v1 s0")
    bench.hub.remove(viewer)
    bench.relay.kick()
    await subscribers(0)


async def test_relay_watches_many_jobs_on_one_connection(bench: Bench) -> None:
    await bench.connected()
    viewers = {f"job-{n}": Recorder() for n in range(2500)}
    for job_id, viewer in viewers.items():
        bench.watch(viewer, job_id)
    await wait_until_async(
        lambda: all(len(viewer.frames) == 2 for viewer in viewers.values()),
        description="all are told",
    )
    clients = await bench.redis.client_list("pubsub")
    assert len([client for client in clients if int(client["sub"]) > 100]) == 1
    assert bench.truth.reads == 2500
    assert bench.truth.most_at_once <= relay.BATCHES * relay.BATCH_READS
    viewers["job-2499"].told()
    await bench.publish("job-2499", 1)
    await told(viewers["job-2499"], "log 1-1")


async def test_relay_outlives_silence(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "livejobs.relay")
    viewer = Recorder()
    bench.watch(viewer, "a")
    await told(viewer, "subscribed", "job 1-0 v1 s0")
    await asyncio.sleep(2.5 * line.TIMEOUT_SECONDS)
    await bench.publish("a", 1)
    await told(viewer, "log 1-1")
    assert caplog.messages == ["connected to Redis"]


async def test_relay_resumes_after_redis_was_killed(
    valkey: ValkeyProcess, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "livejobs.relay")
    bench, viewer, late = Bench(valkey.url), Recorder(), Recorder()
    bench.watch(viewer, "a")
    await told(viewer, "subscribed", "job 1-0 v1 s0")
    await bench.publish("a", 1)
    await told(viewer, "log 1-1")
    valkey.kill()
    await bench.connected(False, NOTICED_SECONDS)
    bench.truth.last["a"] = 2
    bench.watch(late, "a")
    await told(late, "subscribed", "job 1-0 v1 s0", "log 1-1", "log 1-2")
    await told(viewer, "log 1-2")
    bench.truth.last["a"] = 3
    await told(viewer, "log 1-3")
    valkey.start()
    await bench.connected()
    bench.truth.last["a"] = 4
    await bench.publish("a", 5)
    await told(viewer, "log 1-4", "log 1-5")
    await bench.stop()
    kinds = [message.partition(",")[0] for message in caplog.messages]
    assert kinds == ["connected to Redis", "Redis is away", "connected to Redis"]


async def test_relay_waits_for_a_redis_that_is_not_there_yet() -> None:
    valkey = ValkeyProcess()
    bench, viewer = Bench(valkey.url), Recorder()
    bench.watch(viewer, "a")
    await told(viewer, "subscribed", "job 1-0 v1 s0")
    try:
        bench.truth.last["a"] = 1
        valkey.start()
        await bench.connected()
        await told(viewer, "log 1-1")
        await bench.publish("a", 2)
        await told(viewer, "log 1-2")
    finally:
        await bench.stop()
        valkey.close()


async def test_relay_notices_a_redis_that_hangs(valkey: ValkeyProcess) -> None:
    bench, viewer = Bench(valkey.url), Recorder()
    bench.watch(viewer, "a")
    await told(viewer, "subscribed", "job 1-0 v1 s0")
    valkey.freeze()
    await bench.connected(False, NOTICED_SECONDS)
    bench.truth.last["a"] = 1
    await told(viewer, "log 1-1")
    valkey.thaw()
    await bench.connected()
    await bench.publish("a", 2)
    await told(viewer, "log 1-2")
    await bench.stop()


def test_line_that_is_lost_cannot_send(valkey: ValkeyProcess) -> None:
    async def lose() -> None:
        lost = line.Line(line.connection_options(valkey.url), lambda kind, name, data: None)
        await lost.open()
        valkey.kill()
        with pytest.raises(OUTAGES):
            await lost.listen()
        with pytest.raises(OUTAGES):
            await lost.send([("PING",)])
        await lost.close()

    # As servers run; its transports say so in their own way.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(lose())


def test_connection_that_is_closed_as_it_is_made_is_an_outage() -> None:
    async def close_soon(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(random.uniform(0.0, 0.0006))
        writer.transport.abort()

    async def connect() -> None:
        server = await asyncio.start_server(close_soon, "127.0.0.1", 0)
        url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        live = AsyncLive(Settings(redis_url=url))
        for _ in range(1000):
            lost = line.Line(line.connection_options(url), lambda kind, name, data: None)
            with contextlib.suppress(*OUTAGES):
                await lost.open()
            await lost.close()
            with pytest.raises(RedisUnavailable):
                await live.read_head("job")
        await live.close()
        server.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(connect())


async def test_relay_resumes_after_its_connection_was_cut(bench: Bench) -> None:
    viewer = Recorder()
    bench.watch(viewer, "a")
    await told(viewer, "subscribed", "job 1-0 v1 s0")
    for n in range(1, 4):
        await bench.redis.client_kill_filter(_type="pubsub")
        await bench.publish("a", n)
        await told(viewer, f"log 1-{n}")


async def test_relay_reads_again_what_failed(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    await bench.connected()
    viewer = Recorder()
    bench.truth.failures = 3
    bench.watch(viewer, "a")
    await told(viewer, "subscribed", "job 1-0 v1 s0")
    assert bench.truth.reads == 4
    assert caplog.messages == ["jobs cannot be read, trying again: the database is away"]


async def test_relay_reads_others_beside_a_job_that_cannot_be_read(bench: Bench) -> None:
    await bench.connected()
    viewers = {name: Recorder() for name in "abc"}
    bench.truth.poison = "b"
    for job_id, viewer in viewers.items():
        bench.watch(viewer, job_id)
    await told(viewers["a"], "subscribed", "job 1-0 v1 s0")
    await told(viewers["c"], "subscribed", "job 1-0 v1 s0")
    assert viewers["b"].told() == []
    bench.truth.poison = None
    await told(viewers["b"], "subscribed", "job 1-0 v1 s0")


async def test_relay_gives_up_a_read_that_hangs(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "READ_SECONDS", 0.05)
    viewer = Recorder()
    bench.truth.hangs = True
    bench.watch(viewer, "a")
    await wait_until_async(lambda: bench.truth.reads >= 3, description="tried again")
    bench.truth.hangs = False
    await told(viewer, "subscribed", "job 1-0 v1 s0")


async def test_relay_ends_with_reads_under_way_and_runs_again(bench: Bench) -> None:
    await bench.connected()
    viewer = Recorder()
    bench.truth.hangs = True
    bench.watch(viewer, "a")
    await wait_until_async(lambda: bench.truth.reads, description="a read has begun")
    bench.task.cancel()
    await asyncio.wait([bench.task], timeout=1)
    assert bench.task.cancelled()
    assert not bench.relay.connected
    bench.truth.hangs = False
    bench.task = asyncio.create_task(bench.relay.run())
    await told(viewer, "subscribed", "job 1-0 v1 s0")
    await bench.publish("a", 1)
    await told(viewer, "log 1-1")


async def test_relay_ends_while_redis_is_away(valkey: ValkeyProcess) -> None:
    bench = Bench(valkey.url)
    await bench.connected()
    valkey.freeze()
    await bench.connected(False, NOTICED_SECONDS)
    bench.task.cancel()
    await asyncio.wait([bench.task], timeout=1)
    assert bench.task.cancelled()
    valkey.thaw()
    await bench.stop()


@pytest.mark.parametrize("turns", range(8))
async def test_relay_ends_though_its_connection_was_just_lost(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    viewer = Recorder()
    bench.watch(viewer, "a")
    await told(viewer, "subscribed", "job 1-0 v1 s0")

    def cancel_after(turns: int) -> None:
        if turns:
            asyncio.get_running_loop().call_soon(cancel_after, turns - 1)
        else:
            bench.task.cancel()

    def published(job_id: str, data: bytes) -> None:
        cancel_after(turns)
        raise ConnectionResetError

    monkeypatch.setattr(bench.hub, "published", published)
    await bench.publish("a", 1)
    await asyncio.wait([bench.task], timeout=5)
    assert bench.task.cancelled()


async def test_relay_says_why_redis_refuses(caplog: pytest.LogCaptureFixture) -> None:
    valkey = ValkeyProcess()
    valkey.start()
    async with redis.asyncio.Redis.from_url(valkey.url) as admin:
        await admin.config_set("requirepass", "hush")
    bench = Bench(valkey.url)
    await wait_until_async(lambda: caplog.messages, description="said why")
    assert caplog.messages[0].startswith("Redis is away, trying again: ")
    assert "Authentication" in caplog.messages[0]
    await bench.stop()
    valkey.close()


async def test_relay_survives_any_job_id(bench: Bench) -> None:
    viewer = Recorder()
    for job_id in ("é", "a b", "{x}", "\r\nPING\r\n", "\ud800"):
        bench.watch(viewer, job_id)
        await told(viewer, "subscribed", "job 1-0 v1 s0")
    await bench.publish("{x}", 1)
    await told(viewer, "log 1-1")
