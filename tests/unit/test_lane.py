"""Which requests go straight to what serves viewers; all others take the framework's way."""

from __future__ import annotations

from typing import Any

import pytest

from livejobs.settings import Settings
from livejobs_server.endpoints import build_endpoints
from livejobs_server.lane import Lane


@pytest.fixture(scope="module")
def lane() -> Lane:
    """The lane of an app without CORS."""
    return Lane(build_endpoints(Settings(), documented=False), [])


def takes(lane: Lane, path: str, **scope: Any) -> bool:
    """Whether a request, a plain GET if nothing else is said, is served by the lane."""
    plain = {"type": "http", "method": "GET", "query_string": b"", "headers": []}
    return lane.find(plain | scope, path) is not None


@pytest.mark.parametrize("path", ["/v1/ws", "/v1/jobs/a/ws", "/v1/jobs/a%20b ü/ws"])
def test_websockets_take_the_lane(lane: Lane, path: str) -> None:
    assert takes(lane, path, type="websocket")
    assert not takes(lane, path)


@pytest.mark.parametrize(
    "path", ["/v1/wss", "/v1/jobs/ws", "/v1/jobs/a/b/ws", "/x/v1/ws", "/v1/ws/"]
)
def test_other_websockets_do_not(lane: Lane, path: str) -> None:
    assert not takes(lane, path, type="websocket")


@pytest.mark.parametrize(
    "scope",
    [
        {},
        {"query_string": b"after=1-57"},
        {"query_string": b"ticket=t&after="},
        {"headers": [(b"last-event-id", b"1-57-end")]},
    ],
)
def test_event_stream_takes_the_lane(lane: Lane, scope: dict[str, Any]) -> None:
    assert takes(lane, "/v1/jobs/a/events", **scope)


@pytest.mark.parametrize(
    "scope",
    [
        {"method": "HEAD"},
        {"method": "OPTIONS"},
        {"method": "POST"},
        {"type": "websocket"},
        {"query_string": b"entries=none"},
        {"query_string": b"after=" + b"1" * 65},
        {"headers": [(b"last-event-id", b"1" * 65)]},
    ],
)
def test_event_stream_that_is_not_plain_does_not(lane: Lane, scope: dict[str, Any]) -> None:
    assert not takes(lane, "/v1/jobs/a/events", **scope)


@pytest.mark.parametrize("path", ["/v1/events", "/v1/jobs/a", "/v1/jobs//events", "/"])
def test_other_requests_do_not(lane: Lane, path: str) -> None:
    assert not takes(lane, path)
