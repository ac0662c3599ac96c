"""Telling published messages to the live viewers of jobs, in slices where there are very many."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

from . import wire
from .counts import Counts
from .exchange import Viewer
from .position import Position
from .topic import Subscription, Topic
from .wire import Frame

SLICE: Final = 1000
"""Deliveries between two looks at what else there is to do."""
QUEUED: Final = 400
"""Of those for what is queued; others' messages wait for so many at most."""
SHARE: Final = 100
"""Of those for one job, while others wait for theirs."""

logger = logging.getLogger("livejobs.hub")


class Fanout:
    """Hands messages to viewers.

    Args:
        counts: Where it counts what it does.
        lag: Called with a viewer that refused a message.
        remove: Called with a viewer that failed.
        drop: Called with a subscription that has been told all there is.
    """

    def __init__(
        self,
        counts: Counts,
        lag: Callable[[Viewer], None],
        remove: Callable[[Viewer], None],
        drop: Callable[[Subscription], None],
    ) -> None:
        self._counts = counts
        self._lag = lag
        self._remove = remove
        self._drop = drop
        # Deliveries that may be made before the next `proceed`, and jobs with more to tell.
        self._room = SLICE
        self._behind: dict[Topic, None] = {}

    def tell(self, topic: Topic, frame: Frame) -> bool:
        """Tell the live ones of a topic what comes next; soon, where they are many.

        Returns:
            False: Too much is queued for them.
        """
        self._counts.fanouts += 1
        live = topic.live
        if live.queue or len(live.all) > self._room:
            self._behind[topic] = None
            return all(live.add(told) for told in _with_end(frame))
        began = time.perf_counter()
        self._room -= len(live.all)
        for told in _with_end(frame):
            self._part_with(*self._hand_over(live.all, told))
            live.at.took(told)
        if frame.kind == wire.FINAL:
            while live.all:
                self._drop(live.all[-1])
        self._counts.fanout_seconds += time.perf_counter() - began
        return True

    def tell_joiners(
        self, group: list[Subscription], at: Position, frame: Frame
    ) -> list[Subscription]:
        """Tell a message to joiners who stand at `at`, and move it; returns who is left of them."""
        for told in _with_end(frame):
            refused, broken = self._hand_over(group, told)
            for sub in refused:
                sub.stand(at)
            if refused or broken:
                parted = {*refused, *broken}
                group = [sub for sub in group if sub not in parted]
                self._part_with(refused, broken)
            at.took(told)
        if frame.kind != wire.FINAL:
            return group
        for sub in group:
            self._drop(sub)
        return []

    def proceed(self) -> bool:
        """Go on with what is queued; whether there is more, for another call."""
        left = QUEUED
        while self._behind and left > 0:
            topic = next(iter(self._behind))
            del self._behind[topic]
            left -= self._catch_up(topic, min(SHARE, left))
            if topic.live.queue:
                self._behind[topic] = None
        self._room = SLICE - (QUEUED - left)
        return bool(self._behind)

    def forget(self, topic: Topic) -> None:
        """Nobody watches a topic any more."""
        self._behind.pop(topic, None)

    def _catch_up(self, topic: Topic, most: int) -> int:
        """Bring so many of the live ones to where all are to be; how many messages that took."""
        began, done, live = time.perf_counter(), 0, topic.live
        while live.queue and done < most:
            place = min(live.turn, len(live.all))
            while place and done < most:
                place -= 1
                sub = live.all[place]
                if sub.told != live.number:
                    done += self._bring_up(topic, sub)
                    place = min(place, len(live.all))
            live.turn = place
            if not place:
                live.end_pass()
        self._counts.fanout_seconds += time.perf_counter() - began
        return done

    def _bring_up(self, topic: Topic, sub: Subscription) -> int:
        """Tell one of the live ones all that it lacks; how many messages that took."""
        missed, viewer = topic.live.missed(sub), sub.viewer
        for frame in missed:
            try:
                if not (sub.muted and frame.kind in wire.ENTRIES) and not viewer.deliver(frame):
                    self._lag(viewer)
                    break
            except Exception:
                logger.exception("A viewer failed and was removed.")
                self._remove(viewer)
                break
            sub.told += 1
            if frame.kind == wire.END:
                self._drop(sub)
                break
        return len(missed)

    def _hand_over(
        self, subs: Sequence[Subscription], frame: Frame
    ) -> tuple[Sequence[Subscription], Sequence[Subscription]]:
        """Deliver one frame; returns those who refused it, and those who failed."""
        refused: list[Subscription] = []
        broken: list[Subscription] = []
        if frame.kind in wire.ENTRIES:
            subs = [sub for sub in subs if not sub.muted]
        for sub in subs:
            try:
                if not sub.viewer.deliver(frame):
                    refused.append(sub)
            except Exception:
                logger.exception("A viewer failed and was removed.")
                broken.append(sub)
        return refused, broken

    def _part_with(self, refused: Sequence[Subscription], broken: Sequence[Subscription]) -> None:
        """Who refused a frame lags from now on; who failed is removed."""
        for sub in refused:
            self._lag(sub.viewer)
        for sub in broken:
            self._remove(sub.viewer)


def _with_end(frame: Frame) -> tuple[Frame, ...]:
    """A published message, and the end of the job where it is the last one."""
    if frame.kind != wire.FINAL:
        return (frame,)
    return frame, wire.end_frame(frame.job_id, frame.attempt, frame.n)
