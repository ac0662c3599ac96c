"""One timer for many viewers."""

from __future__ import annotations

from livejobs_server.push.wheel import Wheel


class Clock:
    """Time that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Viewer:
    """Wants to be looked at after so many seconds, again and again."""

    def __init__(self, *pauses: float) -> None:
        self.pauses = list(pauses)
        self.looks: list[float] = []

    def look(self, now: float) -> float | None:
        self.looks.append(now)
        return now + self.pauses.pop(0) if self.pauses else None


def turned(wheel: Wheel, clock: Clock, seconds: float, step: float = 1.0) -> None:
    for _ in range(int(seconds / step)):
        clock.now += step
        wheel.turn()


def test_viewers_are_looked_at_when_they_want_it_and_not_again_after_they_are_done() -> None:
    clock = Clock()
    wheel = Wheel(clock)
    soon, late = Viewer(), Viewer(15.0, 2.5)
    wheel.add(soon, 101.5)
    wheel.add(late, 105.0)
    turned(wheel, clock, 60)
    assert soon.looks == [102.0]
    assert late.looks == [105.0, 120.0, 123.0]


def test_viewer_that_wants_it_at_once_gets_it_with_the_next_turn() -> None:
    clock = Clock()
    wheel = Wheel(clock)
    eager = Viewer(0.0, -5.0)
    wheel.add(eager, 100.0)
    turned(wheel, clock, 5)
    assert eager.looks == [101.0, 102.0, 103.0]


def test_wheel_that_was_held_up_looks_once_at_each() -> None:
    clock = Clock()
    wheel = Wheel(clock)
    viewers = [Viewer(1.0) for _ in range(10)]
    for number, viewer in enumerate(viewers):
        wheel.add(viewer, 101.0 + number)
    turned(wheel, clock, 50, step=50)
    assert [viewer.looks for viewer in viewers] == [[150.0]] * 10


def test_viewer_that_breaks_does_not_stop_the_others() -> None:
    class Broken:
        def look(self, now: float) -> float | None:
            raise RuntimeError("broken")

    clock = Clock()
    wheel = Wheel(clock)
    whole = Viewer()
    wheel.add(Broken(), 101.0)
    wheel.add(whole, 101.0)
    turned(wheel, clock, 3)
    assert whole.looks == [101.0]
