"""Viewers as transports, together: who is slow, what waits for all, and who is closed for it."""

from __future__ import annotations

import logging

import pytest

from livejobs.settings import Settings
from livejobs_server.push.counts import Counts
from livejobs_server.push.fleet import STALLED_SECONDS, Fleet
from livejobs_server.push.outage import Outage
from livejobs_server.push.wheel import Wheel

MOST = 1024 * 1024
ONE = 64 * 1024


class Peer:
    """A viewer whose buffer is a number."""

    def __init__(self) -> None:
        self.waiting_bytes = 0
        self.lags = False
        self.woken = 0
        self.given_up: bool | None = None

    def wake(self) -> None:
        self.woken += 1

    def give_up(self, at_once: bool) -> None:
        self.given_up = at_once

    def look(self, now: float) -> float | None:
        return None


class Sea:
    """A fleet, its clock, and its numbers."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.wheel = Wheel(lambda: self.now)
        self.counts = Counts()
        self.outage = Outage()
        settings = Settings(viewer_buffer_bytes=ONE, buffer_bytes=MOST)
        self.fleet = Fleet(settings, self.wheel, self.counts, self.outage)

    def peer(self, waiting: int = 0) -> Peer:
        """A viewer for whom so much waits."""
        peer = Peer()
        self.fleet.add(peer, self.now + 15)
        if waiting:
            peer.waiting_bytes = waiting
            self.fleet.fell_behind(peer)
        return peer

    def pass_by(self, seconds: float) -> None:
        """Let the wheel turn so long."""
        for _ in range(round(seconds)):
            self.now += 1
            self.wheel.turn()


def test_bytes_that_wait_for_slow_viewers_are_counted() -> None:
    sea = Sea()
    sea.peer()
    one, two = sea.peer(1000), sea.peer(500)
    assert sea.counts.buffered_bytes == 1500
    one.waiting_bytes = 3000
    sea.fleet.note(one)
    assert sea.counts.buffered_bytes == 3500
    two.waiting_bytes = 0
    sea.fleet.recovered(two)
    sea.fleet.discard(one)
    assert sea.counts.buffered_bytes == 0


def test_slow_viewer_has_room_up_to_its_limit() -> None:
    sea = Sea()
    peer = sea.peer(ONE - 1)
    assert sea.fleet.has_room(peer)
    peer.waiting_bytes = ONE
    assert not sea.fleet.has_room(peer)


def test_nobody_slow_has_room_where_all_together_have_too_much() -> None:
    sea = Sea()
    peers = [sea.peer(ONE - 1) for _ in range(16)]
    late = sea.peer(16)
    assert not sea.fleet.has_room(late)
    peers[0].waiting_bytes = 0  # Taken by its peer, which is not noticed at once.
    assert sea.fleet.has_room(late)


def test_those_for_whom_most_waits_are_closed_until_all_have_room(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sea = Sea()
    small = [sea.peer(1000) for _ in range(5)]
    large = [sea.peer(300_000) for _ in range(3)]
    with caplog.at_level(logging.WARNING, "livejobs.viewers"):
        last = sea.peer(200_000)
    assert [peer.given_up for peer in small] == [None] * 5
    assert sorted(str(peer.given_up) for peer in large) == ["None", "None", "True"]
    assert last.given_up is None
    assert sea.counts.buffered_bytes == 5000 + 600_000 + 200_000
    assert sea.counts.crowded_out == 1
    assert "LIVEJOBS_BUFFER_BYTES" in caplog.text


def test_viewer_whose_peer_takes_nothing_is_given_up() -> None:
    sea = Sea()
    stuck, slow = sea.peer(5000), sea.peer(50_000)
    for _ in range(round(STALLED_SECONDS)):
        slow.waiting_bytes -= 100
        sea.pass_by(1)
    sea.pass_by(1)
    assert stuck.given_up is False
    assert slow.given_up is None
    sea.pass_by(5)
    assert sea.counts.stalled == 1


def test_viewer_that_lags_has_to_take_all_of_it_in_time() -> None:
    sea = Sea()
    lagging = sea.peer(50_000)
    lagging.lags = True
    for _ in range(round(STALLED_SECONDS) + 1):
        lagging.waiting_bytes -= 100
        sea.pass_by(1)
    assert lagging.given_up is False


def test_viewer_that_recovered_in_time_is_left_alone() -> None:
    sea = Sea()
    peer = sea.peer(5000)
    sea.pass_by(STALLED_SECONDS - 2)
    sea.fleet.recovered(peer)
    sea.pass_by(5)
    sea.fleet.fell_behind(peer)
    sea.pass_by(5)
    assert peer.given_up is None


def test_all_are_woken_when_an_outage_begins_and_ends() -> None:
    sea = Sea()
    peers = [sea.peer(), sea.peer(2000)]
    sea.outage.begin()
    sea.outage.end()
    assert [peer.woken for peer in peers] == [2, 2]
    for peer in peers:
        sea.fleet.discard(peer)
    sea.outage.begin()
    assert [peer.woken for peer in peers] == [2, 2]
