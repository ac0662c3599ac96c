"""When a keeper may judge leases."""

from __future__ import annotations

from livejobs.steadiness import Steadiness, now

LEASE = 30.0


def seen(*moments: float) -> Steadiness:
    steadiness = Steadiness(LEASE)
    for moment in moments:
        steadiness.good(moment)
    return steadiness


def test_nothing_seen_is_not_enough() -> None:
    assert not Steadiness(LEASE).may_judge
    assert not seen(1000.0).may_judge


def test_whole_lease_is_enough_and_less_is_not() -> None:
    assert not seen(0.0, 10.0, 20.0, 29.9).may_judge
    assert seen(0.0, 10.0, 20.0, 30.0).may_judge


def test_break_that_costs_no_worker_its_lease_does_not_count() -> None:
    assert seen(0.0, 15.0, 30.0).may_judge


def test_longer_break_begins_the_time_anew() -> None:
    steadiness = seen(0.0, 10.0, 20.0, 30.0, 45.5)
    assert not steadiness.may_judge
    for moment in (55.0, 65.0, 75.0):
        steadiness.good(moment)
    assert not steadiness.may_judge
    steadiness.good(75.5)
    assert steadiness.may_judge


def test_round_that_failed_begins_the_time_anew() -> None:
    steadiness = seen(0.0, 10.0, 20.0, 30.0)
    steadiness.broken()
    assert not steadiness.may_judge
    steadiness.good(31.0)
    assert not steadiness.may_judge


def test_clock_goes_on() -> None:
    assert now() <= now()
