"""Requests of a WebSocket client: what is understood, what is refused, what ends a connection."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from livejobs.entries import Cursor
from livejobs.views import AuthOp, PingOp, SubscribeOp, UnsubscribeOp
from livejobs_server.push.allowance import Allowance
from livejobs_server.push.ops import NotAMessage, Request, read_request
from livejobs_server.push.subscriptions import (
    Refusal,
    SubscriptionItem,
    WantedFeed,
    cursor_of,
    entries_of,
    wanted_of,
)


def refusal(fields: dict[str, Any]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        Request(fields).op()
    return caught.value


@pytest.mark.parametrize(
    ("fields", "op"),
    [
        ({"op": "auth", "token": "t", "ref": 4}, AuthOp(op="auth", token="t", ref=4)),
        ({"op": "ping"}, PingOp(op="ping")),
        ({"op": "unsubscribe", "job_id": "j"}, UnsubscribeOp(op="unsubscribe", job_id="j")),
        (
            {"op": "subscribe", "job_id": "j", "after": "1-2", "entries": "tail:5", "new": True},
            SubscribeOp(op="subscribe", job_id="j", after="1-2", entries="tail:5"),
        ),
    ],
)
def test_request_is_read(fields: dict[str, Any], op: Any) -> None:
    request = read_request(json.dumps(fields), 1000)
    assert request.op() == op
    assert request.ref == fields.get("ref")


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, "invalid_request"),
        ({"op": None}, "invalid_request"),
        ({"op": "dance"}, "unknown_op"),
        ({"op": ["subscribe"]}, "unknown_op"),
        ({"op": {}}, "unknown_op"),
        ({"op": "subscribe"}, "invalid_request"),
        ({"op": "subscribe", "job_id": 7}, "invalid_request"),
        ({"op": "subscribe", "job_id": ""}, "invalid_request"),
        ({"op": "subscribe", "job_id": "x" * 256}, "invalid_request"),
        ({"op": "subscribe", "job_id": "\ud800"}, "invalid_request"),
        ({"op": "subscribe", "job_id": "j", "entries": "tail:"}, "invalid_request"),
        ({"op": "subscribe", "job_id": "j", "entries": "tail:-1"}, "invalid_request"),
        ({"op": "subscribe", "job_id": "j", "entries": 3}, "invalid_request"),
        ({"op": "subscribe", "job_id": "j", "after": 3}, "invalid_request"),
        ({"op": "subscribe", "job_id": "j", "ref": "one"}, "invalid_request"),
        ({"op": "subscribe", "job_id": "j", "ref": float("nan")}, "invalid_request"),
        ({"op": "unsubscribe"}, "invalid_request"),
        ({"op": "auth"}, "invalid_request"),
        ({"op": "auth", "token": ""}, "invalid_request"),
        ({"op": "auth", "token": "x" * 9000}, "invalid_request"),
    ],
)
def test_request_that_cannot_be_served_is_refused(fields: dict[str, Any], code: str) -> None:
    assert refusal(fields).code == code


def test_refusal_names_the_field_and_tells_nothing_of_its_value() -> None:
    refused = refusal({"op": "auth", "token": "secret" * 2000})
    assert refused.message.startswith("token: ")
    assert "secret" not in refused.message
    assert refusal({"op": "subscribe"}).message == "give either job_id or feed"


def test_request_echoes_only_what_can_be_echoed() -> None:
    assert Request({"ref": 3, "job_id": "j"}).ref == 3
    assert Request({"ref": True}).ref is None
    assert Request({"ref": "3"}).ref is None
    assert Request({"job_id": "x" * 256}).job_id == ""
    assert Request({"job_id": ["j"]}).job_id == ""
    assert Request({"feed": "x" * 512}).feed == "x" * 512
    assert Request({"feed": "x" * 513}).feed == ""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "binary"),
        ("", "no JSON"),
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("1" * 5000, "no JSON"),
        ("[]", "no JSON object"),
        ('"subscribe"', "no JSON object"),
        ("null", "no JSON object"),
        (json.dumps({"op": "x" * 6000}), "longer than 6000 bytes"),
        ("é" * 3001, "longer than 6000 bytes"),
    ],
)
def test_what_is_no_message_says_why(text: str | None, reason: str) -> None:
    with pytest.raises(NotAMessage, match=reason):
        read_request(text, 6000 if reason.startswith("longer") else 200_000)


@pytest.mark.parametrize(
    "text", ["1", "1-", "-1", "1-2-3", "a-b", "1-2 ", "\u0661-\u0662", "1-" + "9" * 40]
)
def test_cursor_that_no_message_carried_is_refused(text: str) -> None:
    with pytest.raises(Refusal) as caught:
        cursor_of(text)
    assert caught.value.code == "invalid_cursor"


def test_cursor_may_be_that_of_an_end() -> None:
    assert cursor_of("3-17-end") == Cursor(3, 17)
    assert cursor_of("") is None
    assert cursor_of("0-0") is None
    assert cursor_of(None) is None


def test_entries_are_told_apart() -> None:
    assert [entries_of(text) for text in ("all", "none", "tail:0", "tail:12")] == [
        "all", "none", 0, 12,
    ]  # fmt: skip


def test_item_becomes_what_the_hub_takes() -> None:
    item = SubscriptionItem(job_id="j", after="2-3", entries="tail:4", version=5, seq=6)
    wanted = wanted_of(item)
    assert (wanted.job_id, wanted.after, wanted.entries) == ("j", Cursor(2, 3), 4)
    assert (wanted.version, wanted.seq) == (5, 6)


def test_item_for_a_feed_is_read() -> None:
    item = SubscriptionItem(feed="mine", since="2024-11-15T10:30:00.000001Z")
    wanted = wanted_of(item)
    assert wanted == WantedFeed("mine", 1_731_666_600_000_001)
    assert wanted_of(SubscriptionItem(feed="mine", since="")) == WantedFeed("mine")


@pytest.mark.parametrize("since", ["now", "2024-11-15T10:30:00", "0001-01-01", "-", "~", "1-2"])
def test_since_that_no_server_gave_is_refused(since: str) -> None:
    with pytest.raises(Refusal) as caught:
        wanted_of(SubscriptionItem(feed="mine", since=since))
    assert caught.value.code == "invalid_cursor"


@pytest.mark.parametrize("fields", [{}, {"job_id": "j", "feed": "mine"}, {"job_id": ""}])
def test_item_names_exactly_one_thing(fields: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        SubscriptionItem.model_validate(fields)


def test_allowance_ends_and_grows_again_with_time() -> None:
    now = 0.0
    allowance = Allowance(3, 2.0, clock=lambda: now)
    assert [allowance.take() for _ in range(4)] == [True, True, True, False]
    now = 0.4
    assert not allowance.take()
    now = 1.0
    assert [allowance.take() for _ in range(3)] == [True, True, False]
    now = 1000.0
    assert [allowance.take() for _ in range(4)] == [True, True, True, False]
