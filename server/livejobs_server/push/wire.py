"""Messages on their way to viewers: each is turned into bytes once, whoever receives it.

A `Frame` wraps the finished JSON of one message. The hub hands the same object to every viewer;
a WebSocket takes its `text`, an event stream its `sse`, and both are made at first use and kept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from livejobs.entries import Published

JOB: Final = "job"
FINAL: Final = "final"
PROGRESS: Final = "progress"
LOG: Final = "log"
OUTPUT: Final = "output"
SUBSCRIBED: Final = "subscribed"
END: Final = "end"
MISSING: Final = "missing"
PROBLEM: Final = "problem"
UNSUBSCRIBED: Final = "unsubscribed"
PING: Final = "ping"
GONE: Final = "gone"
DEGRADED: Final = "degraded"
DRAIN: Final = "drain"

VIEWS: Final = frozenset({JOB, FINAL})
ENTRIES: Final = frozenset({LOG, OUTPUT})
PUBLISHED: Final = VIEWS | ENTRIES | {PROGRESS, GONE}
"""Kinds that arrive on a job's channel; those of feeds bring no entries."""
_ENDS: Final = frozenset({END, MISSING})
_WITH_CURSOR: Final = VIEWS | ENTRIES | {PROGRESS, END}

UNKNOWN_JOB: Final = "unknown_job"
"""The problem code of a job that does not exist or is somebody else's."""
UNKNOWN_JOB_TEXT: Final = "There is no such job, or it is not yours."


class Frame:
    """One message, encoded once for all its viewers.

    Attributes:
        kind: What it is: a kind of a published message, or subscribed, end, missing, problem,
            unsubscribed, ping, degraded, drain. `final` is the view of a job that is over,
            `missing` the answer to a subscription to a job that the viewer may not see or that does
            not exist, `gone` says that a job was deleted.
        job_id: The job it is about; "" if none.
        attempt: Attempt it belongs to; 0 without cursor.
        n: Last entry up to and including this message; 0 without cursor.
        version: The view's version; 0 where the message holds no view.
        seq: Newest progress contained.
        payload: The message, UTF-8 JSON in one line.
        ends: Nothing more comes to a viewer about its job.
        websocket: The message as a whole WebSocket frame of a server.
        chunk: The message as an event, in a chunk of an HTTP response.
    """

    __slots__ = (
        "_sse", "_text", "attempt", "chunk", "ends", "job_id", "kind", "n", "payload", "seq",
        "version", "websocket",
    )  # fmt: skip

    # Made when they are first asked for: for each viewer it is then no more than a look.
    websocket: bytes
    chunk: bytes

    def __init__(
        self,
        kind: str,
        job_id: str,
        payload: bytes,
        attempt: int = 0,
        n: int = 0,
        version: int = 0,
        seq: int = 0,
    ) -> None:
        self.kind = kind
        self.job_id = job_id
        self.payload = payload
        self.attempt = attempt
        self.n = n
        self.version = version
        self.seq = seq
        self.ends = kind in _ENDS
        self._text: str | None = None
        self._sse: bytes | None = None

    def __getattr__(self, name: str) -> bytes:
        if name == "websocket":
            self.websocket = _websocket_frame(self.text.encode())
            return self.websocket
        if name == "chunk":
            self.chunk = http_chunk(self.sse)
            return self.chunk
        raise AttributeError(name)

    @property
    def size(self) -> int:
        """Bytes of the message, for a viewer's account of what it has not sent yet."""
        return len(self.payload)

    @property
    def cursor(self) -> str | None:
        """The message's `id`, None for messages that carry none."""
        if self.kind not in _WITH_CURSOR:
            return None
        return f"{self.attempt}-{self.n}-end" if self.kind == END else f"{self.attempt}-{self.n}"

    @property
    def text(self) -> str:
        """The message as a WebSocket text frame takes it."""
        if self._text is None:
            # Bytes that are not UTF-8 must not cost every viewer its connection.
            self._text = self.payload.decode("utf-8", "replace")
        return self._text

    @property
    def sse(self) -> bytes:
        """The message as an event of an event stream; a ping is a comment there."""
        if self._sse is None:
            self._sse = self._event()
        return self._sse

    def _event(self) -> bytes:
        if self.kind == PING:
            return b": ping\n\n"
        if self.kind == DRAIN:
            # A browser's EventSource heeds this, and knows nothing of messages.
            after = json.loads(self.payload)["reconnect_after_ms"]
            return b"retry: %d\ndata: %b\n\n" % (after, self.payload)
        cursor = self.cursor
        head = b"" if cursor is None else b"id: %b\n" % cursor.encode("ascii")
        return b"%bdata: %b\n\n" % (head, self.payload)

    def __repr__(self) -> str:
        return (
            f"<Frame {self.kind} {self.job_id} {self.attempt}-{self.n}"
            f" version={self.version} seq={self.seq}>"
        )


def http_chunk(data: bytes) -> bytes:
    """Bytes as a chunk of a response with ``Transfer-Encoding: chunked``."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def _websocket_frame(payload: bytes) -> bytes:
    """A text message in one frame, as RFC 6455, 5.2 has it."""
    size = len(payload)
    if size < 126:
        return b"\x81%c%b" % (size, payload)
    if size < 2**16:
        return b"\x81\x7e%b%b" % (size.to_bytes(2, "big"), payload)
    return b"\x81\x7f%b%b" % (size.to_bytes(8, "big"), payload)


def published_frame(job_id: str, published: Published) -> Frame:
    """What arrived on the job's channel; the payload goes on as it is.

    Raises:
        ValueError: Its kind is not known here.
    """
    if published.kind not in PUBLISHED:
        raise ValueError(f"message kind {published.kind!r} is not known here")
    return Frame(
        published.kind,
        job_id,
        published.payload,
        published.attempt,
        published.n,
        published.version,
        published.seq,
    )


def job_frame(
    job_id: str, view: bytes, attempt: int, n: int, version: int, seq: int, final: bool
) -> Frame:
    """The view as a message.

    Args:
        view: JSON of the `JobView`, used as it is.
        n: The viewer's own position: the last entry before those that follow.
        final: Whether the job is over.
    """
    payload = b'{"type":"job","id":"%d-%d","job":%b}' % (attempt, n, view)
    return Frame(FINAL if final else JOB, job_id, payload, attempt, n, version, seq)


def entry_frame(job_id: str, attempt: int, n: int, kind: str, payload: bytes) -> Frame:
    """A stored entry; `payload` is its whole message."""
    return Frame(kind, job_id, payload, attempt, n)


def end_frame(job_id: str, attempt: int, n: int) -> Frame:
    """The job is over and everything about it has been sent."""
    message = {"type": "end", "id": f"{attempt}-{n}-end", "job_id": job_id}
    return Frame(END, job_id, _json(message), attempt, n)


def subscribed_frame(job_id: str, recovered: bool, ref: int | None = None) -> Frame:
    """The answer to a subscription.

    Args:
        recovered: False: some entries after the viewer's cursor are gone for good.
        ref: The number the request carried.
    """
    message = {"type": "subscribed", "job_id": job_id, "recovered": recovered}
    return Frame(SUBSCRIBED, job_id, _json(message, ref))


def feed_subscribed_frame(feed: str, since: str, recovered: bool, ref: int | None = None) -> Frame:
    """The answer to a subscription to a feed, and to each reading anew.

    Args:
        since: Where to resume.
        recovered: False: of what there is to be told, some is left out.
        ref: The number the request carried.
    """
    message = {"type": "subscribed", "feed": feed, "recovered": recovered, "since": since}
    return Frame(SUBSCRIBED, "", _json(message, ref))


def feed_missing_frame(feed: str, ref: int | None = None) -> Frame:
    """The feed's own job does not exist, or is not this viewer's."""
    return problem_frame(UNKNOWN_JOB, UNKNOWN_JOB_TEXT, feed=feed, ref=ref)


def gone_frame(job_id: str) -> Frame:
    """A job was deleted."""
    return _problem(GONE, UNKNOWN_JOB, UNKNOWN_JOB_TEXT, job_id, "", None)


def degraded_frame(degraded: bool) -> Frame:
    """Whether live updates come from the database for now."""
    return Frame(DEGRADED, "", _json({"type": "degraded", "degraded": degraded}))


def drain_frame(reconnect_after_ms: int) -> Frame:
    """The server goes away: when to come back, in milliseconds."""
    return Frame(DRAIN, "", _json({"type": DRAIN, "reconnect_after_ms": reconnect_after_ms}))


def missing_frame(job_id: str, ref: int | None = None) -> Frame:
    """No such job, or not this viewer's: the same bytes for both, so that nobody learns which."""
    return _problem(MISSING, UNKNOWN_JOB, UNKNOWN_JOB_TEXT, job_id, "", ref)


def problem_frame(
    code: str, message: str, job_id: str = "", feed: str = "", ref: int | None = None
) -> Frame:
    """A request could not be served; the connection stays.

    Args:
        code: A stable word for programs.
        message: The same for people.
        job_id: The job it is about; "" if none.
        feed: The feed it is about; "" if none.
        ref: The number the request carried.
    """
    return _problem(PROBLEM, code, message, job_id, feed, ref)


def ping_frame() -> Frame:
    """A sign of life after a time of silence."""
    return Frame(PING, "", b'{"type":"ping"}')


def _problem(kind: str, code: str, message: str, job_id: str, feed: str, ref: int | None) -> Frame:
    fields = {"type": "problem", "code": code, "message": message}
    if job_id:
        fields["job_id"] = job_id
    if feed:
        fields["feed"] = feed
    return Frame(kind, job_id, _json(fields, ref))


def _json(message: Mapping[str, object], ref: int | None = None) -> bytes:
    fields = message if ref is None else {**message, "ref": ref}
    # ASCII only: a job id out of a request may hold what UTF-8 cannot say.
    return json.dumps(fields, separators=(",", ":")).encode("ascii")
