"""The wire's models, and making data storable."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from livejobs.views import (
    JobError,
    Status,
    client_op,
    format_time,
    server_message,
    storable,
    storable_text,
)


def test_times_are_utc_with_milliseconds() -> None:
    moment = datetime(2024, 11, 15, 11, 30, 0, 123999, timezone(timedelta(hours=1)))
    assert format_time(moment) == "2024-11-15T10:30:00.123Z"


def test_final_statuses() -> None:
    assert [status for status in Status if status.is_final] == ["completed", "failed", "cancelled"]


def test_error_shows_code_and_traceback_only_where_there_is_one() -> None:
    assert json.loads(JobError(type="T", message="m").model_dump_json()) == {
        "type": "T",
        "message": "m",
    }


def test_unknown_fields_are_ignored() -> None:
    message = server_message.validate_python({"type": "ping", "later": 1})
    assert message.model_dump(mode="json") == {"type": "ping"}


@pytest.mark.parametrize(
    "op",
    [
        {},
        {"op": "dance"},
        {"op": "subscribe"},
        {"op": "subscribe", "job_id": ""},
        {"op": "subscribe", "job_id": 5},
        {"op": "subscribe", "job_id": "a", "entries": "some"},
        {"op": "subscribe", "job_id": "a", "ref": "x"},
        {"op": "auth"},
    ],
)
def test_ops_that_are_none_are_refused(op: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        client_op.validate_python(op)


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (None, None),
        (True, True),
        (1.5, 1.5),
        (float("nan"), None),
        (float("inf"), None),
        ("a\0b", "a�b"),
        ("\ud800", "�"),
        ((1, (2,)), [1, [2]]),
        ({1: {"a"}}, {"1": ["a"]}),
        (date(2024, 1, 2), "2024-01-02"),
        (datetime(2024, 1, 2, tzinfo=UTC), "2024-01-02T00:00:00.000Z"),
        (Decimal("1.50"), "1.50"),
        (uuid.UUID(int=0), "00000000-0000-0000-0000-000000000000"),
        (Path("/a"), "/a"),
        (JobError(type="T", message="m"), {"type": "T", "message": "m"}),
    ],
)
def test_storable_is_plain_json(value: Any, stored: Any) -> None:
    assert storable(value) == stored
    json.dumps(storable(value), allow_nan=False).encode()


def test_storable_refuses_what_has_no_json_form() -> None:
    with pytest.raises(TypeError, match="object"):
        storable({"a": object()})
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(ValueError, match="nested"):
        storable(endless)


def test_storable_text_leaves_good_text_alone() -> None:
    for text in ("plain", "Grüße 🎉", ""):
        assert storable_text(text) is text or storable_text(text) == text
