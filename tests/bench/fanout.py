"""One job, many viewers: what a delivery costs, how long it takes, how many hold."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from .contenders import Contender, Running, watched
from .machine import cpu_seconds, memory_bytes
from .publisher import ENTRIES, PROGRESS, Publisher
from .stage import Stage
from .viewers import Viewers

HELD_P99_MS = 100.0
"""A rate is held while 99 of 100 messages arrive within this time."""
SETTLE_SECONDS = 0.3
"""What a server still does for viewers that have just come, it does within this time."""
HALF = 0.5
"""The cost is measured where a server has to work for no more than this share of its time."""
MOST_ENTRIES = 50.0
"""Entries a second, where it is seen whether all arrive."""
FIRST_VIEWERS = 100
"""Come before memory is measured, so that what every server makes once is there."""


@dataclass(frozen=True)
class Load:
    """How much is put on each server.

    Attributes:
        viewers: Of the one job.
        rate: Messages a second at which the cost is measured, less for servers that cannot take it.
        seconds: How long for each measurement.
        repeats: Measurements of the cost, of which the best counts: the machine has other work.
        search: Look for the highest rate held.
    """

    viewers: int = 1000
    rate: float = 100.0
    seconds: float = 5.0
    repeats: int = 3
    search: bool = True


@dataclass(frozen=True)
class Cost:
    """What was measured at one rate; times in ms.

    Attributes:
        rate: Messages a second.
        deliveries: Messages received by all viewers.
        lost: Messages published that viewers did not receive.
        cpu_us: CPU of the server for each delivery, in µs.
        p50, p99: From publishing to receiving.
        client_load: Share of its core that the load client used.
        server_load: The same of the server.
    """

    rate: float
    deliveries: int
    lost: int
    cpu_us: float
    p50: float
    p99: float
    client_load: float
    server_load: float

    @property
    def holds(self) -> bool:
        """Whether the server holds this rate."""
        return self.lost == 0 and self.p99 <= HELD_P99_MS

    def rank(self) -> tuple[bool, float]:
        """Orders measurements of the same thing, the best one first."""
        return self.lost != 0, self.cpu_us


@dataclass(frozen=True)
class Fanout:
    """A contender's row.

    Attributes:
        memory_bytes: Of each further idle viewer.
        entries_wrong: Entries that viewers did not receive, or received more than once.
        cost: Where the server has to work for half of its time at most.
        highest: At the highest rate held, None where it holds none or that was not looked for.
    """

    name: str
    transport: str
    memory_bytes: float
    entries_wrong: int
    cost: Cost
    highest: Cost | None


def measure(stage: Stage, contender: Contender, publisher: Publisher, load: Load) -> Fanout:
    """Start a contender, measure it, end it."""
    [job_id] = stage.running_jobs(1)
    with watched(stage, contender, job_id) as (running, crowd):
        memory = idle_memory(running, crowd, load.viewers)

        def at(rate: float) -> Cost:
            return cost_at(running, crowd, publisher, job_id, rate, load.seconds)

        # A server that is overloaded joins messages, and one that sleeps pays for waking up.
        warm = at(load.rate / 10)
        rate = min(load.rate, HALF * 1e6 / (warm.cpu_us * load.viewers))
        cost = min((at(rate) for _ in range(load.repeats)), key=Cost.rank)
        highest = search(at, rate, cost) if load.search else None
        wrong = wrong_entries(crowd, publisher, job_id, min(rate, MOST_ENTRIES))
    return Fanout(contender.name, contender.transport, memory, wrong, cost, highest)


def idle_memory(running: Running, crowd: Viewers, viewers: int) -> float:
    """Bytes by which the server grows for each viewer that connects and waits."""
    first = min(FIRST_VIEWERS, viewers // 2)
    crowd.open(first)
    before = memory_bytes(running.pid)
    crowd.open(viewers)
    time.sleep(SETTLE_SECONDS)
    return (memory_bytes(running.pid) - before) / (viewers - first)


def wrong_entries(crowd: Viewers, publisher: Publisher, job_id: str, rate: float) -> int:
    """Publish entries for a second, each of which has to reach every viewer once."""
    crowd.reset()
    done = publisher.publish(ENTRIES, [job_id], rate, 1.0)
    expected = done.count * crowd.report().open
    report = crowd.settle(expected)
    return expected - (report.messages - report.repeated) + report.repeated


def cost_at(
    running: Running, crowd: Viewers, publisher: Publisher, job_id: str, rate: float, seconds: float
) -> Cost:
    """Publish at a rate, and see what it costs."""
    crowd.reset()
    before, client_before = cpu_seconds(running.pid), crowd.report().cpu_seconds
    done = publisher.publish(PROGRESS, [job_id], rate, seconds)
    report = crowd.settle(done.count * crowd.report().open)
    spent = cpu_seconds(running.pid) - before
    return Cost(
        rate=done.rate,
        deliveries=report.messages,
        lost=done.count * report.open - report.messages,
        cpu_us=1e6 * spent / max(report.messages, 1),
        p50=report.p50_us / 1000,
        p99=report.p99_us / 1000,
        client_load=(report.cpu_seconds - client_before) / done.seconds,
        server_load=spent / done.seconds,
    )


def search(at: Callable[[float], Cost], rate: float, cost: Cost) -> Cost | None:
    """The cost at the highest rate held, to 10 %; None: it holds none.

    The machine has other work, so a rate counts as held where one of two attempts holds it.
    """

    def held(rate: float) -> Cost | None:
        tries = (at(rate) for _ in range(2))
        return next((it for it in tries if it.holds and it.rate > 0.95 * rate), None)

    best = cost if cost.holds else None
    while best is None and rate > 1:
        rate /= 2
        best = held(rate)
    step = 1.5 if cost.holds else 2**0.5
    while best is not None and step > 1.1:
        tried = held(rate * step)
        if tried is None:
            step = step**0.5
        else:
            best, rate = tried, rate * step
    return best
