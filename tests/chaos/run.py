"""A run from its first process to its report."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Final

from livejobs.database import Database
from livejobs_server import sign_token

from .checks import CHECKS
from .driver import Driver
from .evidence import gather, open_jobs
from .plan import OWNER, PARTS, SERVERS, Fault, Order, Plan
from .report import Outcome, text
from .scenes import Scenes
from .stage import QUIET_SERVER, Stage, stage, use_environment
from .viewers import Viewers, viewers

LOOK_SECONDS: Final = 0.5
SPARE_TASKS: Final = 3
MOST_CONNECTIONS: Final = {"clients": 1, "to_valkey": 40, "to_postgres": 40}
"""Who asks is a client, and pools keep some connections, whoever has watched."""
MOST_GROWN_KILOBYTES: Final = 64 * 1024
GONE_SECONDS: Final = 60.0
"""Within this time after the last viewer has gone, a server has nothing left of it."""
TOKEN_SECONDS: Final = 6 * 3600.0

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """How to run a plan.

    Attributes:
        broken: The safeguard that is taken out; None: none.
        processes: Of each worker.
        settle_seconds: Within this time after all is back, every job is over and every viewer told.
        logs: Where logs are copied to; None: nowhere.
    """

    broken: str | None = None
    processes: int = 2
    settle_seconds: float = 240.0
    logs: Path | None = None


async def run(plan: Plan, options: Options, say: Say) -> tuple[Outcome, str]:
    """Carry out a plan; the outcome and its report."""
    broken = f", without its {options.broken}" if options.broken else ""
    title = f"Chaos of seed {plan.seed}, for {plan.seconds:g} s{broken}"
    outcome = Outcome(title)
    async with stage(options.broken, options.processes, options.logs) as on:
        use_environment(on.own_environment())
        database = Database(on.settings)
        token = sign_token(owner=OWNER, settings=on.settings, ttl_seconds=TOKEN_SECONDS)
        async with viewers(on.url, token) as watching:
            driver = Driver(on, watching, token)
            try:
                return await _Run(plan, options, on, watching, driver, database, say).run(outcome)
            finally:
                await driver.close()
                database.close()


class _Run:
    """A run on its stage."""

    def __init__(
        self,
        plan: Plan,
        options: Options,
        on: Stage,
        watching: Viewers,
        driver: Driver,
        database: Database,
        say: Say,
    ) -> None:
        self._plan = plan
        self._options = options
        self._on = on
        self._viewers = watching
        self._driver = driver
        self._database = database
        self._say = say
        self._outcome: Outcome

    async def run(self, outcome: Outcome) -> tuple[Outcome, str]:
        """All of it."""
        self._outcome = outcome
        scenes = Scenes(self._on, self._driver, self._database, self._plan.seed)
        before = {name: await self._on.state(name) for name in (*SERVERS, QUIET_SERVER)}
        async with self._part("messages vanish"):
            await scenes.messages_vanish()
        async with self._part("a worker comes back"):
            await scenes.a_worker_comes_back_from_the_dead()
        async with self._part("faults"):
            await self._storm()
        async with self._part("settling"):
            settled = await self._settle()
        if settled:  # else there is enough to look at
            async with self._part("nobody is told"):
                await scenes.nobody_is_told()
            async with self._part("viewers come late"):
                await scenes.viewers_come_late()
            async with self._part("settling again"):
                await self._settle()
        evidence = await asyncio.to_thread(
            gather, self._database, self._on.witness, self._driver.account, self._viewers.seen
        )
        for check in CHECKS:
            outcome.found[check.__name__] = list(check(evidence))
        await self._viewers.close()
        await self._driver.close()
        outcome.found["servers hold nothing any more"] = await self._leftovers(before)
        outcome.notes += list(self._notes())
        return outcome, text(outcome, evidence, self._driver.account.struck)

    @contextlib.asynccontextmanager
    async def _part(self, name: str) -> AsyncIterator[None]:
        began = time.monotonic()
        self._say(name)
        yield
        self._outcome.seconds[name] = time.monotonic() - began

    async def _storm(self) -> None:
        """Faults and jobs, each at its time."""
        began = time.monotonic()

        async def strike(fault: Fault) -> None:
            await asyncio.sleep(max(0.0, began + fault.at - time.monotonic()))
            await self._driver.strike(fault)

        async def place(order: Order) -> None:
            await asyncio.sleep(max(0.0, began + order.at - time.monotonic()))
            await self._driver.place(order)

        async with asyncio.TaskGroup() as group:
            for fault in self._plan.faults:
                group.create_task(strike(fault))
            placing = [group.create_task(place(order)) for order in self._plan.orders]
            group.create_task(self._tell_how_it_goes(placing, began))
        await self._on.is_ready()

    async def _tell_how_it_goes(self, placing: list[asyncio.Task[None]], began: float) -> None:
        while not all(task.done() for task in placing):
            await asyncio.sleep(10.0)
            account = self._driver.account
            self._say(
                f"  {time.monotonic() - began:5.0f} s: {len(account.struck)} faults, "
                f"{len(account.accepted)} jobs accepted, {len(self._viewers.waiting)} viewers wait"
            )

    async def _settle(self) -> bool:
        """Wait until every job is over and every viewer has been told; False: not in time."""
        deadline = time.monotonic() + self._options.settle_seconds
        while time.monotonic() < deadline:
            left = await asyncio.to_thread(open_jobs, self._database)
            if not left and not self._viewers.waiting:
                return True
            await asyncio.sleep(LOOK_SECONDS)
        self._say(f"  {len(left)} jobs and {len(self._viewers.waiting)} viewers are left")
        return False

    async def _leftovers(self, before: dict[str, dict[str, int]]) -> list[str]:
        """What the servers still hold of viewers that have gone."""
        deadline = time.monotonic() + GONE_SECONDS
        found, now = ["they were not asked"], dict[str, dict[str, int]]()
        while found and time.monotonic() < deadline:
            found = []
            for name, first in before.items():
                now[name] = await self._on.state(name)
                found += _grown(name, first, now[name])
            await asyncio.sleep(LOOK_SECONDS if found else 0.0)
        for name, first in before.items():
            told = ", ".join(f"{what} {first[what]} → {now[name][what]}" for what in first)
            self._outcome.notes.append(f"{name}, at the beginning and at the end: {told}")
        return found

    def _notes(self) -> Iterator[str]:
        account = self._driver.account
        gave_up = {name: self._on.parts[name].gave_up for name in PARTS}
        told = ", ".join(f"{name} {times}" for name, times in gave_up.items() if times)
        yield f"Ended by themselves and were started again: {told or 'none'}"
        told = ", ".join(f"{reason} {times}" for reason, times in sorted(account.refused.items()))
        yield f"Requests that had to be made again: {told or 'none'}"


def _grown(name: str, first: dict[str, int], now: dict[str, int]) -> Iterator[str]:
    for what in ("viewers", "topics", "lagging", "feeds"):
        if now[what]:
            yield f"{name} still has {now[what]} {what}"
    most = {
        "tasks": first["tasks"] + SPARE_TASKS,
        **MOST_CONNECTIONS,
        "kilobytes": first["kilobytes"] + MOST_GROWN_KILOBYTES,
    }
    for what, allowed in most.items():
        if now[what] > allowed:
            yield f"{name} has {now[what]} {what}, and began with {first[what]}"
