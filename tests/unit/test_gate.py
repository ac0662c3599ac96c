"""Who is let in: limits for addresses and owners, and room for the server's own files."""

from __future__ import annotations

import logging
import os
from typing import Any

import pytest
from starlette.requests import HTTPConnection

from livejobs.settings import Settings
from livejobs_server.push.gate import ADDRESS, FILES, OWNER, Gate, Refused, client_address
from livejobs_server.push.open_files import NO_LIMIT, OpenFiles, lowest_free


def coming_from(host: str | None, headers: list[tuple[bytes, bytes]] | None = None) -> Any:
    client = None if host is None else (host, 50_000)
    return HTTPConnection({"type": "http", "client": client, "headers": headers or []})


def make_gate(files: OpenFiles | None = None, **limits: Any) -> Gate:
    return Gate(Settings(**limits), files or OpenFiles())


def test_gate_without_limits_lets_everybody_in_and_keeps_nothing() -> None:
    gate = make_gate()
    for number in range(100):
        gate.enter(number, coming_from("10.0.0.1"), "alice")
        gate.recognise(number, "alice")
        gate.leave(number)
    assert sum(gate.refused.values()) == 0


def test_address_has_so_many_connections_and_more_when_some_leave() -> None:
    gate = make_gate(max_address_connections=2)
    for who in ("a", "b"):
        gate.enter(who, coming_from("10.0.0.1"), "alice")
    with pytest.raises(Refused, match="from this address; come back in") as refused:
        gate.enter("c", coming_from("10.0.0.1"), "bob")
    assert (refused.value.code, refused.value.why) == ("too_many_connections", ADDRESS)
    gate.enter("d", coming_from("10.0.0.2"), "alice")
    gate.leave("a")
    gate.leave("a")
    gate.enter("c", coming_from("10.0.0.1"), "bob")
    assert gate.refused == {ADDRESS: 1, OWNER: 0, FILES: 0}


def test_owner_has_so_many_connections_also_where_it_is_known_later() -> None:
    gate = make_gate(max_owner_connections=2)
    gate.enter("a", coming_from("10.0.0.1"), "alice")
    for who in ("b", "c", "d"):
        gate.enter(who, coming_from("10.0.0.1"))
    gate.recognise("b", "alice")
    with pytest.raises(Refused, match="with these credentials"):
        gate.recognise("c", "alice")
    gate.recognise("d", "bob")
    gate.leave("b")
    gate.recognise("c", "alice")
    with pytest.raises(Refused):
        gate.enter("e", coming_from("10.0.0.1"), "alice")


def test_both_limits_hold_together() -> None:
    gate = make_gate(max_owner_connections=1, max_address_connections=1)
    gate.enter("a", coming_from("10.0.0.1"))
    gate.recognise("a", "alice")
    with pytest.raises(Refused):
        gate.enter("b", coming_from("10.0.0.1"), "bob")
    with pytest.raises(Refused):
        gate.enter("b", coming_from("10.0.0.2"), "alice")
    gate.leave("a")
    gate.enter("b", coming_from("10.0.0.1"), "alice")


def test_credentials_without_an_owner_count_for_their_address_only() -> None:
    gate = make_gate(max_owner_connections=1)
    for who in range(5):
        gate.enter(who, coming_from("10.0.0.1"), "")


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("testclient", "testclient"),
        (None, ""),
    ],
)
def test_client_counts_for_an_address_or_for_a_network_in_version_6(
    host: str | None, address: str
) -> None:
    assert client_address(coming_from(host)) == address


def test_address_is_not_what_a_header_says() -> None:
    forged = coming_from("10.0.0.1", [(b"x-forwarded-for", b"10.9.9.9")])
    assert client_address(forged) == "10.0.0.1"


def test_viewers_are_refused_while_there_is_room_for_the_servers_own_files(
    caplog: pytest.LogCaptureFixture,
) -> None:
    files = OpenFiles()
    gate = make_gate(files)
    files.limit = 1000
    files.for_viewers = lowest_free()
    with caplog.at_level(logging.WARNING, "livejobs.server"):
        for _ in range(3):
            with pytest.raises(Refused, match="no room") as refused:
                gate.enter("a", coming_from("10.0.0.1"))
        files.for_viewers = NO_LIMIT
        gate.enter("a", coming_from("10.0.0.1"))
    assert refused.value.code == "server_full"
    assert gate.refused[FILES] == 3
    # Once for each change, not for each viewer.
    assert [record.message[:24] for record in caplog.records] == [
        "new viewers are refused:",
        "new viewers are let in a",
    ]


def test_reserve_is_at_most_half_of_all_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("livejobs_server.push.open_files._limit", lambda: 100)
    files = OpenFiles()
    files.keep(256)
    assert (files.limit, files.for_viewers, files.for_anybody) == (100, 50, 75)
    files.keep(20)
    assert (files.for_viewers, files.for_anybody) == (80, 90)
    assert [files.turn_away(number) for number in (89, 90, 99)] == [False, True, True]
    assert files.turned_away == 2


def test_lowest_free_descriptor_tells_how_many_are_open() -> None:
    free = lowest_free()
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(3)]
    try:
        assert lowest_free() > free
    finally:
        for descriptor in opened:
            os.close(descriptor)
    assert lowest_free() == free
