"""Faults that chance rarely brings about, played one after the other, all else being in order."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import time
from collections.abc import Callable, Iterator
from typing import Final

from livejobs import reads
from livejobs.database import Database
from livejobs.statements import OVER

from .driver import Accepted, Driver
from .evidence import status_of
from .parts import Process
from .plan import CLIENTS, SERVERS, VALKEY, WORKERS, Order, Watching
from .stage import QUIET_SERVER, Stage

BEGIN_SECONDS: Final = 45.0
"""Within this time a job that nothing hinders has begun."""
LATE_JOBS: Final = 24
LATE_AT_ONCE: Final = 6
LATE_SECONDS: Final = 1.2
"""Viewers come within this time after the job has begun; it takes about a second."""
UNTOLD_JOBS: Final = len(WORKERS)
"""So that all of them run at once."""
VANISHED_JOBS: Final = 8


class Scenes:
    """Plays scenes on a stage.

    Args:
        database: That of the stage, without a link.
    """

    def __init__(self, on: Stage, driver: Driver, database: Database, seed: int) -> None:
        self._on = on
        self._driver = driver
        self._database = database
        self._chance = random.Random(f"scenes {seed}")

    async def messages_vanish(self) -> None:
        """Jobs are sent, the broker loses them before there is a worker, and then there is one."""
        orders = [
            self._order("vanished", number, "quick", (), self._watching(SERVERS, count=1))
            for number in range(VANISHED_JOBS)
        ]
        await asyncio.gather(*map(self._driver.place, orders))
        await self._on.flush()
        for name in WORKERS:
            await self._on.parts[name].start()

    async def a_worker_comes_back_from_the_dead(self) -> None:
        """A frozen worker's job runs elsewhere, and it wakes up just when its own code is done."""
        watching = self._watching(SERVERS, count=2)
        order = self._order("zombie", 0, "silent", (8.0,), watching)
        accepted = await self._driver.place(order)
        await self._until(lambda: self._has_begun(accepted, 1), "the job has begun")
        frozen = await self._worker_of(accepted.ids[0])
        frozen.freeze()
        frozen_at = time.monotonic()
        try:
            await self._until(lambda: self._has_begun(accepted, 2), "it runs elsewhere")
            await asyncio.sleep(max(0.5, frozen_at + order.args[0] - time.monotonic()))
        finally:
            frozen.thaw()

    async def viewers_come_late(self) -> None:
        """Viewers come in the moments in which jobs end, to a server that is slow to subscribe.

        One for each job: the next one to come would have the server look again for all of them.
        """
        kinds = itertools.cycle(itertools.product(CLIENTS, ("websocket", "sse")))
        places = asyncio.Semaphore(LATE_AT_ONCE)

        async def come(order: Order, watching: Watching) -> None:
            async with places:
                accepted = await self._driver.place(order)
                await self._until(lambda: self._has_begun(accepted, 1), "the job has begun")
                await self._driver.watch(accepted.ids[0], watching)

        async with asyncio.TaskGroup() as group:
            for number, (client, transport) in zip(range(LATE_JOBS), kinds, strict=False):
                after = self._chance.uniform(0.0, LATE_SECONDS)
                watching = Watching(after, client, transport, QUIET_SERVER)
                order = self._order("late", number, "slow", (10, 0.1), ())
                group.create_task(come(order, watching))

    async def nobody_is_told(self) -> None:
        """Jobs end while their workers cannot reach Valkey, and these die before they can."""
        orders = [
            self._order("untold", number, "slow", (40, 0.1), self._watching(SERVERS, count=3))
            for number in range(UNTOLD_JOBS)
        ]
        placed = await asyncio.gather(*map(self._driver.place, orders))
        await self._until(
            lambda: all(self._has_begun(it, 1) for it in placed), "all jobs have begun"
        )
        await asyncio.sleep(1.0)  # so that the viewers are there, and live
        links = [self._on.links[f"{name}:{VALKEY}"] for name in WORKERS]
        for link in links:
            link.cut()
        ids = [it.ids[0] for it in placed]
        try:
            await self._until(lambda: self._are_over(ids), "all jobs are over")
        finally:
            for name in WORKERS:
                await self._on.parts[name].kill()
            for link in links:
                link.heal()
            for name in WORKERS:
                await self._on.parts[name].start()

    # -- what they are made of -------------------------------------------------------------------

    def _order(
        self,
        scene: str,
        number: int,
        kind: str,
        args: tuple[float, ...],
        watching: tuple[Watching, ...],
    ) -> Order:
        key = f"{scene}-{number}"
        return Order(key, 0.0, kind, args, self._chance.choice(SERVERS), None, watching)

    def _watching(self, servers: tuple[str, ...], *, count: int) -> tuple[Watching, ...]:
        def some() -> Iterator[Watching]:
            for _ in range(count):
                transport = self._chance.choice(("websocket", "sse"))
                yield Watching(
                    0.0, self._chance.choice(CLIENTS), transport, self._chance.choice(servers)
                )

        return tuple(some())

    def _has_begun(self, accepted: Accepted, attempt: int) -> bool:
        return self._on.witness.has_begun(accepted.ids[0], attempt)

    def _are_over(self, ids: list[str]) -> bool:
        return all(status in OVER for status in status_of(self._database, ids))

    async def _worker_of(self, job_id: str) -> Process:
        row = await asyncio.to_thread(self._database.read, reads.job(job_id))
        assert row is not None
        group = os.getpgid(int(row.worker.split(":")[1]))
        for name in WORKERS:
            part = self._on.parts[name]
            if isinstance(part, Process) and part.pid == group:
                return part
        raise AssertionError(f"{row.worker} belongs to no worker")

    async def _until(self, predicate: Callable[[], bool], description: str) -> None:
        deadline = time.monotonic() + BEGIN_SECONDS
        while not await asyncio.to_thread(predicate):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {BEGIN_SECONDS:g} s: {description}")
            await asyncio.sleep(0.1)
