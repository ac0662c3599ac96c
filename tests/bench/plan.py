"""What a run does: the full one, or the short one for CI."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from .contenders import Contender
from .fanout import Load
from .publisher import Publisher
from .results import Results
from .stage import Stage


@dataclass(frozen=True)
class Plan:
    """Sizes.

    Attributes:
        load: For one job with many viewers.
        crowd: Viewers that reconnect at once.
        jobs: Jobs with one viewer each.
        curve: Numbers of viewers for the cost against viewers.
        calls: Of `progress()` in a loop.
        enqueued: Jobs enqueued one by one, and at once.
        compared: Measure the limit and what people use instead too.
        judged: See whether targets are met; small sizes say nothing about that.
    """

    load: Load = field(default_factory=Load)
    crowd: int = 10_000
    jobs: int = 10_000
    curve: tuple[int, ...] = (1, 10, 100, 1_000, 10_000)
    calls: int = 1_000_000
    enqueued: int = 1_000
    compared: bool = True
    judged: bool = True


FULL = Plan()
SHORT = Plan(
    load=Load(viewers=50, rate=50, seconds=0.5, repeats=1, search=False),
    crowd=100,
    jobs=50,
    curve=(1, 10),
    calls=20_000,
    enqueued=50,
    compared=False,
    judged=False,
)


@dataclass(frozen=True)
class Bench:
    """What a section works with.

    Attributes:
        contenders: Those that can be measured here.
        say: Takes a line about what is going on.
    """

    plan: Plan
    stage: Stage
    publisher: Publisher
    contenders: list[Contender]
    results: Results
    say: Callable[[str], None]

    def contender(self, name: str, transport: str) -> Contender | None:
        """One of them."""
        wanted = (name, transport)
        return next((it for it in self.contenders if (it.name, it.transport) == wanted), None)


Section = Callable[[Bench], None]
