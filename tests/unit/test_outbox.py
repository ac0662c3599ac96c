"""One viewer's buffer: bounded, in order, and never waiting for anybody by itself."""

from __future__ import annotations

import asyncio

from livejobs_server.push.outbox import Outbox
from livejobs_server.push.wire import Frame

SOON = 0.01
LONG = 30.0


def frame(name: str, size: int = 10) -> Frame:
    return Frame("log", name, b"x" * size)


def names(frames: list[Frame]) -> list[str]:
    return [frame.job_id for frame in frames]


async def test_outbox_gives_frames_in_order() -> None:
    outbox = Outbox(100)
    assert all(outbox.deliver(frame(name)) for name in "abc")
    assert (len(outbox), outbox.size) == (3, 30)
    first = await outbox.next(LONG)
    assert first is not None
    assert first.job_id == "a"
    assert names(outbox.take()) == ["b", "c"]
    assert (len(outbox), outbox.size) == (0, 0)


async def test_outbox_refuses_more_than_its_limit_and_keeps_the_rest() -> None:
    outbox = Outbox(20)
    assert outbox.deliver(frame("a"))
    assert outbox.deliver(frame("b"))
    assert not outbox.deliver(frame("c"))
    assert names(outbox.take()) == ["a", "b"]


async def test_outbox_lets_a_frame_larger_than_itself_through() -> None:
    outbox = Outbox(25)
    assert outbox.deliver(frame("small"))
    assert outbox.deliver(frame("large", size=1000))
    assert not outbox.deliver(frame("late"))


async def test_outbox_wakes_a_waiting_writer() -> None:
    outbox = Outbox(100)
    writer = asyncio.create_task(outbox.next(LONG))
    await asyncio.sleep(0)
    outbox.deliver(frame("a"))
    outbox.deliver(frame("b"))
    taken = await asyncio.wait_for(writer, 1)
    assert taken is not None
    assert (taken.job_id, names(outbox.take())) == ("a", ["b"])


async def test_next_gives_up_after_its_time() -> None:
    assert await Outbox(100).next(SOON) is None


async def test_next_with_no_time_still_gives_what_is_there() -> None:
    outbox = Outbox(100)
    assert await outbox.next(0) is None
    outbox.deliver(frame("a"))
    assert await outbox.next(0) is not None


async def test_cancelled_writer_loses_no_frame() -> None:
    outbox = Outbox(100)
    writer = asyncio.create_task(outbox.next(LONG))
    await asyncio.sleep(0)
    outbox.deliver(frame("a"))
    writer.cancel()
    await asyncio.wait([writer])
    assert names(outbox.take()) == ["a"]


async def test_outbox_has_drained_once_for_each_refusal_and_below_half() -> None:
    outbox = Outbox(40)
    assert not outbox.has_drained()
    for name in "abcd":
        outbox.deliver(frame(name))
    assert not outbox.deliver(frame("e"))
    drained = []
    for _ in range(4):
        await outbox.next(LONG)
        drained.append(outbox.has_drained())
    assert drained == [False, True, False, False]


async def test_put_waits_for_room_and_is_in_order() -> None:
    outbox = Outbox(20)
    outbox.deliver(frame("a"))
    outbox.deliver(frame("b"))
    putting = asyncio.create_task(outbox.put(frame("answer")))
    await asyncio.sleep(0)
    assert not putting.done()
    await outbox.next(LONG)
    await asyncio.wait_for(putting, 1)
    assert names(outbox.take()) == ["b", "answer"]
    # Waiting for room is not lagging: the hub refused nothing.
    assert not outbox.has_drained()


async def test_close_drops_everything_and_wakes_both_sides() -> None:
    outbox = Outbox(25)
    writer = asyncio.create_task(outbox.next(LONG))
    await asyncio.sleep(0)
    outbox.close()
    assert await asyncio.wait_for(writer, 1) is None

    outbox = Outbox(20)
    outbox.deliver(frame("a"))
    outbox.deliver(frame("b"))
    putting = asyncio.create_task(outbox.put(frame("c")))
    await asyncio.sleep(0)
    outbox.close()
    await asyncio.wait_for(putting, 1)
    assert (len(outbox), outbox.size, outbox.take()) == (0, 0, [])


async def test_closed_outbox_takes_and_drops() -> None:
    outbox = Outbox(25)
    outbox.close()
    assert all(outbox.deliver(frame(name)) for name in "abcdef")
    await outbox.put(frame("g"))
    assert await outbox.next(LONG) is None
    assert len(outbox) == 0
