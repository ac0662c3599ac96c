"""Carries a plan out: starts jobs until they are accepted, cancels some, breaks and mends."""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from .parts import Process
from .plan import SERVERS, Fault, Order, Watching
from .stage import TASKS, Stage
from .viewers import Viewers

ASK_SECONDS: Final = 15.0
"""After which a request that is not answered is made again, to the other server …"""
ASK_AGAIN_SECONDS: Final = (0.5, 8.0)
"""… and what is waited before, at first and at most: who asks all the time makes it worse."""
CUT, SLOW, HALF_OPEN, LATE = "cut", "slow", "half-open", "late"
SLOW_BY_SECONDS: Final = 0.2


@dataclass
class Accepted:
    """A job that was accepted.

    Attributes:
        order: What was ordered.
        ids: All job ids that were ever answered for its key; of a chain, those of its steps.
        steps: Of a chain: how many; else 1.
        cancelled: Its cancel was accepted.
    """

    order: Order
    ids: list[str]
    steps: int = 1
    cancelled: bool = False


@dataclass
class Struck:
    """A fault that took place, with monotonic times."""

    fault: Fault
    began: float
    ended: float


@dataclass
class Account:
    """What came of a plan.

    Attributes:
        accepted: By key.
        struck: Faults, in the order of their ends.
        skipped: Faults that met nothing, such as the child of a worker that has none.
        refused: Requests for which no server had an answer other than "later", by their reasons.
    """

    accepted: dict[str, Accepted] = field(default_factory=dict)
    struck: list[Struck] = field(default_factory=list)
    skipped: list[Fault] = field(default_factory=list)
    refused: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))


class Driver:
    """Starts jobs and breaks things on a stage."""

    def __init__(self, on: Stage, viewers: Viewers, token: str) -> None:
        self.account = Account()
        self._on = on
        self._viewers = viewers
        headers = {"Authorization": f"Bearer {token}"}
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
        self._client = httpx.AsyncClient(
            headers=headers, timeout=ASK_SECONDS, limits=limits, trust_env=False
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    # -- jobs ------------------------------------------------------------------------------------

    async def place(self, order: Order) -> Accepted:
        """Have an order accepted, however long it takes, and send its viewers."""
        if order.kind == "chain":
            accepted = await self._place_chain(order)
        else:
            accepted = Accepted(order, [await self._post_until_accepted(order)])
        self.account.accepted[order.key] = accepted
        async with asyncio.TaskGroup() as group:
            for watching in order.watching:
                group.create_task(self.watch(accepted.ids[0], watching))
            if order.cancel_after is not None:
                group.create_task(self._cancel_later(accepted, order.cancel_after))
            if order.key.endswith("7"):
                group.create_task(self._place_again(accepted))
        return accepted

    async def watch(self, job_id: str, watching: Watching) -> None:
        """Let somebody watch a job when it is time."""
        await asyncio.sleep(watching.after)
        self._viewers.watch(job_id, watching)

    async def _post_until_accepted(self, order: Order) -> str:
        body = {
            "task": f"{TASKS}.{order.kind}",
            "args": list(order.args),
            "tags": {"kind": order.kind},
        }
        answer = await self._insist("/v1/jobs", order.server, body, order.key)
        job_id: str = answer["job_id"]
        return job_id

    async def _place_again(self, accepted: Accepted) -> None:
        """Whoever got no answer asks again; so does this one, though it got one."""
        if accepted.order.kind != "chain":
            accepted.ids.append(await self._post_until_accepted(accepted.order))

    async def _cancel_later(self, accepted: Accepted, after: float) -> None:
        await asyncio.sleep(after)
        path = f"/v1/jobs/{accepted.ids[0]}/cancel"
        answer = await self._insist(path, accepted.order.server, {}, None)
        accepted.cancelled = "job_id" in answer  # else it was over already

    async def _insist(
        self, path: str, server: str, body: dict[str, Any], key: str | None
    ) -> dict[str, Any]:
        """Ask one server, then the other, until there is an answer that is not "later"."""
        headers = {} if key is None else {"Idempotency-Key": key}
        turn, pause = SERVERS.index(server), ASK_AGAIN_SECONDS[0]
        while True:
            url = self._on.url(SERVERS[turn % len(SERVERS)])
            try:
                response = await self._client.post(f"{url}{path}", json=body, headers=headers)
            except httpx.HTTPError as error:
                self.account.refused[type(error).__name__] += 1
            else:
                final = response.status_code not in (409, 429) or key is None
                if response.status_code < 500 and final:
                    if response.status_code not in (200, 202, 409):
                        raise RuntimeError(f"{path}: {response.status_code} {response.text}")
                    answer: dict[str, Any] = response.json()
                    return answer
                self.account.refused[str(response.status_code)] += 1
            turn += 1
            await asyncio.sleep(random.uniform(pause / 2, pause))
            pause = min(2 * pause, ASK_AGAIN_SECONDS[1])

    async def _place_chain(self, order: Order) -> Accepted:
        """A chain is started by Celery itself, in this process."""
        from .chains import start_chain

        steps = int(order.args[0])
        while True:
            ids = await asyncio.to_thread(start_chain, steps)
            if ids is not None:
                return Accepted(order, ids, steps)
            self.account.refused["chain"] += 1
            await asyncio.sleep(random.uniform(*ASK_AGAIN_SECONDS))

    # -- faults ----------------------------------------------------------------------------------

    async def strike(self, fault: Fault) -> None:
        """Let a fault begin and end."""
        began = time.monotonic()
        part = self._on.parts.get(fault.target)
        if fault.kind == "flush":
            await self._on.flush()
        elif fault.kind == "child":
            assert isinstance(part, Process)
            if not part.kill_child(int(fault.at * 1000)):
                self.account.skipped.append(fault)
                return
        elif part is None:
            await self._strike_link(fault)
        elif fault.kind == "freeze":
            part.freeze()
            await _last(fault, began)
            part.thaw()
        else:
            await (part.kill() if fault.kind == "kill" else part.stop())
            await _last(fault, began)
            await part.start()
        self.account.struck.append(Struck(fault, began, time.monotonic()))

    async def _strike_link(self, fault: Fault) -> None:
        link, began = self._on.links[fault.target], time.monotonic()
        if fault.kind == CUT:
            link.cut()
        elif fault.kind == SLOW:
            link.slow_down(SLOW_BY_SECONDS)
        else:
            link.hold()
        await _last(fault, began)
        link.heal(broken=fault.kind == HALF_OPEN)


def _last(fault: Fault, began: float) -> Awaitable[None]:
    return asyncio.sleep(max(0.0, began + fault.seconds - time.monotonic()))
