"""A server that goes away tells everybody who listens, once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from types import FrameType

import pytest

from livejobs_server.push import departure
from livejobs_server.push.departure import Departure

from ..support.waiting import wait_until_async


class Listener:
    """Somebody who is told; what they are told stands in a list that several share."""

    def __init__(self, told: list[str], name: str = "", forgets: Departure | None = None) -> None:
        self.told = told
        self.name = name
        self.heard = asyncio.Event()
        self._forgets = forgets

    def warn(self) -> None:
        self.told.append(f"{self.name} warned")

    def leave(self) -> None:
        self.told.append(self.name)
        self.heard.set()
        if self._forgets is not None:
            self._forgets.forget(self)


async def test_departure_tells_those_who_listen_and_only_once() -> None:
    leaving, told = Departure(), list[str]()
    leaving.listen(Listener(told, "a"))
    forgotten = Listener(told, "b")
    leaving.listen(forgotten)
    leaving.forget(forgotten)
    leaving.begin()
    leaving.begin()
    assert told == ["a"]


async def test_departure_that_has_begun_tells_newcomers_at_once() -> None:
    leaving, told = Departure(), list[str]()
    leaving.begin()
    leaving.listen(Listener(told, "late"))
    assert told == ["late"]


async def test_departure_lets_listeners_forget_each_other_meanwhile() -> None:
    leaving, told = Departure(), list[str]()

    class Forgetful(Listener):
        def leave(self) -> None:
            super().leave()
            for other in (first, second):
                leaving.forget(other)

    first, second = Forgetful(told), Forgetful(told)
    leaving.listen(first)
    leaving.listen(second)
    leaving.begin()
    assert len(told) == 1


async def test_departure_tells_the_others_where_one_fails() -> None:
    leaving, told = Departure(), list[str]()

    class Broken(Listener):
        def leave(self) -> None:
            raise RuntimeError("no")

    for listener in (Listener(told, "a"), Broken(told), Listener(told, "b")):
        leaving.listen(listener)
    leaving.begin()
    assert sorted(told) == ["a", "b"]


async def test_departure_of_one_app_is_not_that_of_another() -> None:
    ended, other, told = Departure(), Departure(), list[str]()
    ended.listen(Listener(told, "ended"))
    other.listen(Listener(told, "other"))
    ended.begin()
    assert told == ["ended"]
    later = Departure()
    later.listen(Listener(told, "later"))
    assert (told, other.begun, later.begun) == (["ended"], False, False)


async def test_departure_with_time_warns_first_and_goes_on_until_all_have_moved() -> None:
    leaving, told = Departure(linger=60.0), list[str]()
    listener = Listener(told, "a")
    leaving.listen(listener)
    departing = asyncio.create_task(leaving.depart())
    await wait_until_async(lambda: told, description="the warning")
    assert (told, leaving.begun, departing.done()) == (["a warned"], True, False)
    leaving.listen(Listener(told, "late", forgets=leaving))
    leaving.forget(listener)
    await asyncio.wait_for(departing, 10)
    assert told == ["a warned", "late"]


async def test_departure_tells_those_who_have_not_moved_in_time() -> None:
    leaving, told = Departure(linger=0.05), list[str]()
    leaving.listen(Listener(told, "a", forgets=leaving))
    await asyncio.wait_for(leaving.depart(), 10)
    assert told == ["a warned", "a"]


async def test_departure_that_is_hastened_waits_for_nobody() -> None:
    leaving, told = Departure(linger=60.0), list[str]()
    leaving.listen(Listener(told, "a"))
    departing = asyncio.create_task(leaving.depart())
    await wait_until_async(lambda: told, description="the warning")
    leaving.hasten()
    await asyncio.wait_for(departing, 10)
    await asyncio.wait_for(leaving.wait_for_all(), 10)
    assert told == ["a warned", "a"]


async def test_departure_spreads_the_viewers_over_its_time() -> None:
    leaving = Departure(spread=4.0)
    delays = [json.loads(leaving.drain().payload)["reconnect_after_ms"] for _ in range(400)]
    assert 0 <= min(delays) < 400
    assert 3600 < max(delays) <= 4000
    assert {leaving.retry_after() for _ in range(400)} == {"1", "2", "3", "4"}


async def test_block_that_is_limited_has_some_time_once_the_app_goes_away() -> None:
    leaving = Departure()

    async def go_on_for_ever() -> None:
        async with leaving.limiting(0.01):
            leaving.begin()
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await go_on_for_ever()
    async with leaving.limiting(60.0):
        pass
    await asyncio.wait_for(leaving.wait_for_all(), 10)


@pytest.fixture
def servers_handler() -> Iterator[list[int]]:
    """A server's own handler of SIGTERM and SIGINT; what it was called with."""
    heard: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        heard.append(number)

    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, handle) for number in numbers}
    yield heard
    for number, handler in before.items():
        signal.signal(number, handler)


async def test_departures_begin_with_the_signal_and_the_server_hears_it_when_all_have_left(
    servers_handler: list[int],
) -> None:
    departures, told = [Departure(), Departure()], list[str]()
    listeners = [Listener(told, str(number)) for number in range(2)]
    for leaving, listener in zip(departures, listeners, strict=True):
        leaving.listen(listener)
    os.kill(os.getpid(), signal.SIGTERM)
    for listener in listeners:
        await asyncio.wait_for(listener.heard.wait(), 5)
    departures[0].forget(listeners[0])
    assert servers_handler == []
    departures[1].forget(listeners[1])
    await wait_until_async(lambda: servers_handler, description="the server hears it")
    # Its own handler was called as if nobody else listened.
    assert servers_handler == [signal.SIGTERM]


async def test_server_hears_the_signal_though_somebody_does_not_leave(
    servers_handler: list[int],
) -> None:
    leaving = Departure()
    leaving.listen(Listener([]))
    os.kill(os.getpid(), signal.SIGTERM)
    await wait_until_async(lambda: servers_handler, description="the server hears it")
    assert servers_handler == [signal.SIGTERM]


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_second_signal_ends_the_waiting_and_is_heard_at_once(
    servers_handler: list[int], second: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaving, told = Departure(linger=60.0), list[str]()
    leaving.listen(Listener(told))
    os.kill(os.getpid(), signal.SIGTERM)
    await wait_until_async(lambda: told, description="the warning")
    # One that follows at once is the same: it came to a whole group of processes.
    os.kill(os.getpid(), second)
    assert servers_handler == []
    monkeypatch.setattr(departure, "SAME_SECONDS", 0.0)
    os.kill(os.getpid(), second)
    assert servers_handler == [signal.SIGTERM, second]
    await asyncio.wait_for(leaving.wait_for_all(), 5)


async def test_departures_share_one_signal_handler_for_each_event_loop(
    servers_handler: list[int],
) -> None:
    Departure().listen(Listener([]))
    shared = signal.getsignal(signal.SIGTERM)
    Departure().listen(Listener([]))
    assert signal.getsignal(signal.SIGTERM) is shared
    assert servers_handler == []


def test_departure_drops_the_handler_of_an_event_loop_that_is_gone(
    servers_handler: list[int],
) -> None:
    async def listen() -> Departure:
        leaving = Departure()
        leaving.listen(Listener([]))
        return leaving

    for _ in range(3):
        asyncio.run(listen())
    handler = signal.getsignal(signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)
    assert servers_handler == [signal.SIGTERM]
    assert not hasattr(handler.then, "then")
