"""What happens in a run, and when: faults and jobs, all of it made from the seed alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

SERVERS: Final = ("server-1", "server-2")
WORKERS: Final = ("worker-1", "worker-2", "worker-3")
VALKEY: Final = "valkey"
POSTGRES: Final = "postgres"
PARTS: Final = (VALKEY, POSTGRES, *SERVERS, *WORKERS)

VIEWERS: Final = "viewers"
"""Everybody who talks HTTP to a server: viewers of both clients, and whoever starts jobs."""
LINKS: Final = (
    *(f"{part}:{store}" for part in (*SERVERS, *WORKERS) for store in (VALKEY, POSTGRES)),
    *(f"{VIEWERS}:{server}" for server in SERVERS),
)

OWNER: Final = "chaos"
"""Whose jobs all of them are."""

TRANSPORTS: Final = ("websocket", "sse", "polling")
CLIENTS: Final = ("python", "javascript")

LEASE_SECONDS: Final = 3.0
FAULT_PAUSE: Final = (1.5, 4.0)
"""Seconds between two faults; many last longer, so that they meet."""
REST_SECONDS: Final = 3.0
"""A part or link that is back has so long until its next fault, so that some work gets done."""
JOBS_A_SECOND: Final = 5.0


@dataclass(frozen=True)
class Fault:
    """Something that breaks.

    Attributes:
        at: When, in seconds from the beginning.
        kind: For parts kill, restart, freeze, child, flush; for links cut, slow, half-open, late.
        target: A part or a link.
        seconds: How long it lasts.
    """

    at: float
    kind: str
    target: str
    seconds: float


@dataclass(frozen=True)
class Watching:
    """Somebody who watches a job to its end.

    Attributes:
        after: When it comes, in seconds after the job was accepted.
        client: Of `CLIENTS`.
        transport: Of `TRANSPORTS`.
        server: Which one it asks, of `SERVERS`.
    """

    after: float
    client: str
    transport: str
    server: str


@dataclass(frozen=True)
class Order:
    """A job to be started.

    Attributes:
        key: Its idempotency key, unique in a run.
        at: When, in seconds from the beginning.
        kind: Name of a task of `tasks`, or chain.
        args: The task's arguments.
        server: Which one is asked first.
        cancel_after: Seconds after which it is to be cancelled; None: never.
        watching: Its viewers.
    """

    key: str
    at: float
    kind: str
    args: tuple[float, ...]
    server: str
    cancel_after: float | None = None
    watching: tuple[Watching, ...] = ()


@dataclass(frozen=True)
class Plan:
    """All of a run that chance decides.

    Attributes:
        seconds: How long faults and new jobs go on.
    """

    seed: int
    seconds: float
    faults: tuple[Fault, ...]
    orders: tuple[Order, ...]


def plan(seed: int, seconds: float, jobs_a_second: float = JOBS_A_SECOND) -> Plan:
    """The plan of a seed."""
    faults = tuple(_faults(random.Random(f"faults {seed}"), seconds))
    orders = tuple(_orders(random.Random(f"jobs {seed}"), seconds, jobs_a_second))
    return Plan(seed, seconds, faults, orders)


# -- faults ----------------------------------------------------------------------------------------

_ON_PARTS: Final[dict[str, tuple[Sequence[str], tuple[float, float]]]] = {
    "kill": (PARTS, (0.5, 4.0)),
    "restart": (PARTS, (0.0, 0.0)),
    # For longer than a lease, often: what comes back is a zombie then.
    "freeze": (PARTS, (1.0, 9.0)),
    "child": (WORKERS, (0.0, 0.0)),
    "flush": ((VALKEY,), (0.0, 0.0)),
}
_ON_LINKS: Final[dict[str, tuple[float, float]]] = {
    "cut": (0.3, 6.0),
    "slow": (2.0, 8.0),
    "half-open": (1.0, 8.0),
    "late": (1.0, 8.0),
}
_STORES: Final = (VALKEY, POSTGRES)


def _deck() -> list[tuple[str, str]]:
    """Faults with their targets, the more important ones more than once."""
    deck = [
        *((kind, part) for part in SERVERS for kind in ("kill", "restart", "freeze")),
        *((kind, part) for part in WORKERS for kind in ("kill", "kill", "freeze", "child")),
        *(("restart", part) for part in WORKERS),
        *((kind, part) for part in _STORES for kind in ("kill", "kill", "freeze", "restart")),
        *[("flush", VALKEY)] * 3,
    ]
    deck += [(kind, link) for link in LINKS for kind in _ON_LINKS]
    return deck


def _faults(chance: random.Random, seconds: float) -> Iterator[Fault]:
    """One card after the other, each when its target has rested; what cannot be now is put back."""
    free_at: dict[str, float] = {}
    at, hand = chance.uniform(*FAULT_PAUSE), _shuffled(chance)
    while at < seconds:
        if len(hand) < len(LINKS):
            hand += _shuffled(chance)
        number = next(n for n, card in enumerate(hand) if free_at.get(card[1], 0.0) <= at)
        kind, target = hand.pop(number)
        least, most = _ON_PARTS[kind][1] if kind in _ON_PARTS else _ON_LINKS[kind]
        fault = Fault(round(at, 3), kind, target, round(chance.uniform(least, most), 3))
        free_at[target] = at + fault.seconds + REST_SECONDS
        yield fault
        at += chance.uniform(*FAULT_PAUSE)


def _shuffled(chance: random.Random) -> list[tuple[str, str]]:
    """All cards; those of parts as often as those of links, which are many."""
    parts = [card for card in _deck() if card[1] in PARTS]
    links = [card for card in _deck() if card[1] not in PARTS]
    chance.shuffle(links)
    cards = parts + links[: len(parts)]
    chance.shuffle(cards)
    return cards


# -- jobs ------------------------------------------------------------------------------------------

_Args = Callable[[random.Random], tuple[float, ...]]
_KINDS: Final[dict[str, tuple[int, _Args]]] = {
    # How many in a hundred, and with which arguments.
    "quick": (51, lambda chance: ()),
    "talk": (9, lambda chance: (chance.randint(1, 60),)),
    "slow": (8, lambda chance: (chance.randint(5, 40), 0.1)),
    "silent": (4, lambda chance: (round(chance.uniform(2.0, 7.0), 2),)),
    "fail": (5, lambda chance: ()),
    "flaky": (5, lambda chance: (chance.randint(1, 3), chance.choice([0, 0, 1]))),
    "automatic": (4, lambda chance: (chance.randint(1, 3),)),
    "once": (5, lambda chance: (round(chance.uniform(0.0, 1.5), 2),)),
    "stubborn": (1, lambda chance: (6.0,)),
    "family": (2, lambda chance: (chance.randint(1, 12), chance.choice([0, 1, 1]))),
    "chain": (6, lambda chance: (chance.randint(2, 4),)),
}
CANCELLED: Final = 0.06
"""So many of all jobs are cancelled, sooner or later."""
WATCHED: Final = 0.45
"""So many of the quick ones are watched, and all others."""


def _orders(chance: random.Random, seconds: float, rate: float) -> Iterator[Order]:
    names, weights = list(_KINDS), [weight for weight, _ in _KINDS.values()]
    at, number = 0.0, 0
    while (at := at + chance.expovariate(rate)) < seconds:
        number += 1
        kind = chance.choices(names, weights)[0]
        cancelled = kind == "stubborn" or (kind != "chain" and chance.random() < CANCELLED)
        watched = kind not in ("quick", "chain") or chance.random() < WATCHED
        yield Order(
            key=f"order-{number}",
            at=round(at, 3),
            kind=kind,
            args=_KINDS[kind][1](chance),
            server=chance.choice(SERVERS),
            cancel_after=round(chance.uniform(0.0, 3.0), 3) if cancelled else None,
            watching=tuple(_watching(chance, chance.choice([1, 1, 1, 2])) if watched else ()),
        )


def _watching(chance: random.Random, count: int) -> Iterator[Watching]:
    for _ in range(count):
        yield Watching(
            after=round(chance.choice([0.0, chance.uniform(0.0, 4.0)]), 3),
            client=chance.choice(CLIENTS),
            transport=chance.choice(TRANSPORTS),
            server=chance.choice(SERVERS),
        )
