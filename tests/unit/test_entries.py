"""Cursors, keys and published messages."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from livejobs.entries import (
    START,
    Cursor,
    Entry,
    ProgressReport,
    channel,
    deleted_owner,
    deletion_messages,
    entries_key,
    feed_channels,
    head_key,
    job_of,
    parse_published,
    parse_told,
    script_arguments,
    script_keys,
    view_report,
)
from livejobs.errors import InvalidCursor
from livejobs.views import JobView, Progress, Status


def test_cursor_is_read_and_written() -> None:
    assert str(Cursor(2, 57)) == "2-57"
    assert Cursor.parse("2-57") == Cursor(2, 57)
    assert Cursor.parse("2-57-end") == Cursor(2, 57)
    assert START < Cursor(1, 0) < Cursor(1, 9) < Cursor(2, 1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "1-",
        "-1",
        "a-b",
        "1-2-3",
        "1 -2",
        "+1-2",
        "1--2",
        "1-2-end-end",
        "\u0663-\u0661",
        "1-" + "9" * 40,
    ],
)
def test_cursor_refuses_what_is_none(text: str) -> None:
    with pytest.raises(InvalidCursor) as refused:
        Cursor.parse(text)
    assert refused.value.text == text


def test_keys_of_a_job_share_a_cluster_slot() -> None:
    assert script_keys("a b") == [head_key("a b"), entries_key("a b"), channel("a b")]
    assert all("{a b}" in key for key in script_keys("a b"))


def test_published_message_is_taken_apart() -> None:
    message = parse_published(b'1 2 57 9 12 log\n{"type":"log"}\n')
    assert message[:5] == (2, 57, 9, 12, "log")
    assert message.payload == b'{"type":"log"}\n'


@pytest.mark.parametrize(
    "data",
    [b"", b"1 2 3\n{}", b"2 1 1 1 1 log\n{}", b"1 a 1 1 1 log\n{}", b"1 1 1 1 1 log", b"hello"],
)
def test_published_rubbish_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_published(data)


def test_view_is_cut_around_its_progress() -> None:
    now = datetime.now(UTC)
    view = JobView(
        job_id='quote"',
        task="t",
        queue="q",
        status=Status.PROCESSING,
        version=7,
        progress=Progress(current=1, total=2),
        attempt=1,
        max_attempts=None,
        owner="",
        created_at=now,
        updated_at=now,
    )
    report = view_report(view, 3)
    assert json.loads(report.before + report.progress + report.after) == view.model_dump(
        mode="json"
    )
    assert json.loads(report.before + "null" + report.after)["progress"] is None
    assert (report.version, report.final, report.seq) == (7, False, 3)


def test_arguments_say_what_is_missing() -> None:
    arguments = script_arguments('"a"', 1, 0, ttl=60, keep=10, sharded=True)
    assert arguments == [1, '"a"', 1, 0, 60, 10, "SPUBLISH", 0, "", "", "", "0", "", "", 0, ""]


# -- feeds -----------------------------------------------------------------------------------------


def test_job_is_published_for_all_for_its_owner_and_for_its_parent() -> None:
    assert feed_channels("alice", None) == ["lj:feed", "lj:feed:{alice}"]
    assert feed_channels("", "p") == ["lj:feed", "lj:feed:{}", "lj:children:{p}"]


@pytest.mark.parametrize("owner", ["", "alice", "{}", "}", "a b", "é", "feed"])
def test_channels_of_feeds_are_no_jobs(owner: str) -> None:
    assert [job_of(name) for name in feed_channels(owner, owner)] == [None] * 3
    assert job_of(channel(owner)) == owner


def test_message_for_feeds_is_taken_apart() -> None:
    job_id, message = parse_told(b'1 2 57 9 12 job\n"a\\nb"\n{"type":"job"}')
    assert job_id == "a\nb"
    assert message == parse_published(b'1 2 57 9 12 job\n{"type":"job"}')


@pytest.mark.parametrize(
    "data", [b"", b"1 2 57 9 12 job\n{}", b"1 2 57 9 12 job\n7\n{}", b'2 1 1 1 1 job\n"a"\n{}']
)
def test_rubbish_for_feeds_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_told(data)


def test_deletion_is_told_on_all_channels_of_the_job() -> None:
    messages = dict(deletion_messages("j", "alice", "p"))
    assert parse_published(messages[channel("j")]).kind == "gone"
    for name in feed_channels("alice", "p"):
        job_id, message = parse_told(messages[name])
        assert (job_id, message.kind, deleted_owner(message.payload)) == ("j", "gone", "alice")
    for payload in (b"{}", b'{"owner":7}', b"x"):
        with pytest.raises(ValueError, match=r".+"):
            deleted_owner(payload)


def test_entries_alone_are_not_published_for_feeds() -> None:
    feeds = feed_channels("alice", None)
    known: dict[str, Any] = {"ttl": 1, "keep": 1, "sharded": False, "feeds": feeds}
    log = script_arguments('"j"', 1, 1, entries=[Entry(1, "log", "}")], **known)
    progress = script_arguments('"j"', 1, 1, progress=ProgressReport(1, "{}"), **known)
    assert feeds[1] not in log
    assert progress[-2:] == feeds
