"""The messages as bytes."""

from __future__ import annotations

import json

import pytest

from livejobs import views
from livejobs.entries import Published
from livejobs_server.push import wire


def test_published_frame_passes_the_payload_on() -> None:
    payload = '{"type":"log","id":"1-3","job_id":"j","lines":[{"text":"é"}]}'.encode()
    frame = wire.published_frame("j", Published(1, 3, 0, 7, "log", payload))
    assert frame.payload is payload
    assert (frame.kind, frame.job_id) == ("log", "j")
    assert (frame.attempt, frame.n, frame.version, frame.seq) == (1, 3, 0, 7)
    assert frame.text == payload.decode()
    assert frame.sse == b"id: 1-3\ndata: " + payload + b"\n\n"
    assert frame.size == len(payload)


def test_published_frame_of_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="rumour"):
        wire.published_frame("j", Published(1, 0, 0, 0, "rumour", b"{}"))


def test_frame_encodes_once() -> None:
    frame = wire.end_frame("j", 1, 2)
    assert frame.text is frame.text
    assert frame.sse is frame.sse


def test_frame_text_survives_bytes_that_are_not_utf8() -> None:
    frame = wire.published_frame("j", Published(1, 1, 0, 0, "log", b'{"text":"\xff"}'))
    assert frame.text == '{"text":"\N{REPLACEMENT CHARACTER}"}'


@pytest.mark.parametrize("final", [False, True])
def test_job_frame_puts_the_view_in_unparsed(final: bool) -> None:
    frame = wire.job_frame("j", b'{"any":"thing"}', 2, 5, 9, 4, final)
    assert frame.payload == b'{"type":"job","id":"2-5","job":{"any":"thing"}}'
    assert frame.sse.startswith(b"id: 2-5\ndata: {")
    assert frame.kind == ("final" if final else "job")
    assert (frame.version, frame.seq) == (9, 4)


def test_end_frame_carries_the_end_cursor() -> None:
    frame = wire.end_frame("j", 1, 57)
    assert views.server_message.validate_json(frame.payload) == views.EndMessage(
        id="1-57-end", job_id="j"
    )
    assert frame.sse == b"id: 1-57-end\ndata: " + frame.payload + b"\n\n"


@pytest.mark.parametrize("ref", [None, 0, 7])
def test_subscribed_frame_has_no_cursor(ref: int | None) -> None:
    frame = wire.subscribed_frame("j", False, ref)
    assert views.server_message.validate_json(frame.payload) == views.SubscribedMessage(
        job_id="j", recovered=False, ref=ref
    )
    assert ("ref" in json.loads(frame.payload)) == (ref is not None)
    assert frame.cursor is None
    assert frame.sse == b"data: " + frame.payload + b"\n\n"


def test_problem_frames_are_problems_on_the_wire() -> None:
    missing = wire.missing_frame("j", 3)
    assert missing.kind == "missing"
    assert views.server_message.validate_json(missing.payload) == views.ProblemMessage(
        code=wire.UNKNOWN_JOB,
        message="There is no such job, or it is not yours.",
        job_id="j",
        ref=3,
    )
    problem = wire.problem_frame("too_many", "Too many subscriptions.")
    assert problem.kind == "problem"
    assert views.server_message.validate_json(problem.payload) == views.ProblemMessage(
        code="too_many", message="Too many subscriptions."
    )
    assert problem.sse.startswith(b"data: ")


def test_frames_take_any_job_id() -> None:
    frame = wire.missing_frame('\ud800"é\n')
    assert json.loads(frame.payload)["job_id"] == '\ud800"é\n'
    assert b"\n" not in frame.payload


def test_ping_frame_is_a_comment_in_an_event_stream() -> None:
    frame = wire.ping_frame()
    assert views.server_message.validate_json(frame.payload) == views.PingMessage()
    assert frame.sse == b": ping\n\n"


def test_frame_repr_names_what_matters() -> None:
    assert repr(wire.job_frame("j", b"{}", 2, 5, 9, 4, False)) == (
        "<Frame job j 2-5 version=9 seq=4>"
    )
