"""What a client that polls hands back: read, written, and never believed beyond what it says."""

from __future__ import annotations

import json

import pytest

from livejobs_server.api import bookmark
from livejobs_server.api.bookmark import Bookmark, bookmark_text
from livejobs_server.push.wire import Frame, gone_frame, job_frame

SECOND = 1_000_000
AT = 1_731_666_600 * SECOND


def view(job_id: str = "a", version: int = 1, seq: int = 0, second: int = 0) -> Frame:
    """A view of a job that changed so many seconds after the reading."""
    text = json.dumps({"updated_at": f"2024-11-15T10:30:{second:02}.000Z"})
    return job_frame(job_id, text.encode(), 1, 0, version, seq, False)


def progress(job_id: str = "a", seq: int = 1) -> Frame:
    return Frame("progress", job_id, b"{}", 1, 0, 0, seq)


def test_what_was_told_is_known_afterwards() -> None:
    told = [view("a", 3, 7), view("b"), progress("c", 9), gone_frame("d")]
    text = bookmark_text(AT, told)
    assert text.startswith("2024-11-15T10:30:00.000000Z~")
    read = Bookmark.read(text)
    assert read.at == AT
    assert all(map(read.knows, told))
    news = [view("a", 4, 7), view("a", 3, 8), view("c"), progress("c", 10), gone_frame("a")]
    assert not any(map(read.knows, news))
    assert all(map(read.is_news, news))


def test_changes_that_no_reading_finds_again_are_left_out() -> None:
    text = bookmark_text(AT + 60 * SECOND, [view("old", second=49), view("new", second=50)])
    read = Bookmark.read(text)
    assert read.knows(view("new", second=50))
    assert not read.knows(view("old", second=49))
    assert bookmark_text(AT + 60 * SECOND, [view(second=3)]) == "2024-11-15T10:31:00.000000Z"


def test_too_many_changes_are_told_again_and_are_no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bookmark, "MAX_FACTS", 2)
    read = Bookmark.read(bookmark_text(AT + SECOND, [view(name) for name in "abc"]))
    assert [read.knows(view(name)) for name in "abc"] == [False, True, True]
    assert not read.is_news(view("a"))
    assert read.is_news(view("a", 2, second=2))
    assert read.is_news(progress("a"))


@pytest.mark.parametrize(
    "text", [None, "", "~", "now", "2024-11-15T10:30:00.000000Z~é", "~AAAAAAAA"]
)
def test_rubbish_begins_anew(text: str | None) -> None:
    read = Bookmark.read(text)
    assert (read.at, read.facts) == (None, frozenset())
    assert not read.knows(view())


def test_message_that_tells_nothing_of_a_job_always_counts() -> None:
    read = Bookmark.read(bookmark_text(AT, [view()]))
    assert not read.knows(Frame("subscribed", "", b"{}"))
