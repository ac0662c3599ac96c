"""The wire: what a viewer is told, as one set of models.

`docs/reference/protocol.md` explains them; `openapi.json`, `asyncapi.yaml` and the fixtures of the
JavaScript client are made from these classes. A message is the same JSON on every transport.
"""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, TypeAdapter, model_validator

MAX_PROGRESS_DATA_BYTES = 4096
"""Largest `Progress.data`, as JSON, in bytes."""


class Status(StrEnum):
    """Where a job stands."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether a job in this status is over."""
        return self in FINAL


FINAL = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED})


def format_time(moment: datetime) -> str:
    """A UTC time as in every message: ISO 8601 with milliseconds and Z."""
    moment = moment.astimezone(UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def _is_none(value: object) -> bool:
    return value is None


Time = Annotated[datetime, PlainSerializer(format_time, return_type=str, when_used="json")]


Ref = Annotated[
    int | None, Field(exclude_if=_is_none, description="The number the request carried.")
]


class Wire(BaseModel):
    """Root of everything on the wire: clients and servers ignore fields they don't know."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Progress(Wire):
    """How far a job is."""

    current: float | int = Field(description="Items done.")
    total: float | int | None = Field(None, description="Items in all; null while unknown.")
    fraction: float | None = Field(None, description="current / total, from 0 to 1.")
    stage: str | None = Field(None, description="What the job is doing, one word.")
    message: str | None = Field(None, description="The same for people, one line.")
    rate: float | None = Field(None, description="Items per second.")
    eta_seconds: float | None = Field(None, description="Expected time left, in seconds.")
    data: dict[str, Any] = Field(default_factory=dict, description="Whatever else the job tells.")


class JobError(Wire):
    """Why a job, or its last attempt, failed, in words for people."""

    type: str = Field(description="Name of the exception's class.")
    message: str = Field(description="Its message.")
    code: str | None = Field(
        None,
        exclude_if=_is_none,
        description="A stable word for programs, where there is one.",
    )
    traceback: str | None = Field(
        None,
        exclude_if=_is_none,
        description="Only in REST answers to scope admin, never pushed.",
    )


class Children(Wire):
    """How the children of a job that fans out are doing."""

    total: int
    completed: int
    failed: int
    cancelled: int


class JobView(Wire):
    """A job as a viewer sees it."""

    job_id: str
    task: str = Field(description="The Celery task's name.")
    queue: str
    status: Status
    version: int = Field(description="Grows with every change; a client keeps the larger.")
    progress: Progress | None = Field(None, description="Null before the first report.")
    result: Any = None
    error: JobError | None = None
    attempt: int = Field(description="Executions begun so far.")
    max_attempts: int | None = Field(description="Null: no limit.")
    run_at: Time | None = Field(None, description="When a waiting job is due, if that is later.")
    cancel_requested: bool = False
    stalled: bool = Field(False, description="Running, but silent for a long time.")
    owner: str = Field(description="Empty: nobody's.")
    tags: dict[str, str] = Field(default_factory=dict)
    parent_id: str | None = None
    children: Children | None = None
    created_at: Time
    started_at: Time | None = None
    updated_at: Time
    completed_at: Time | None = None


class LogLine(Wire):
    """One line of a job's log."""

    at: Time
    level: str = "info"
    text: str


class SubscribedMessage(Wire):
    """The answer to a subscription; of a feed also to each reading anew."""

    type: Literal["subscribed"] = "subscribed"
    job_id: str | None = Field(None, exclude_if=_is_none)
    feed: str | None = Field(None, exclude_if=_is_none)
    recovered: bool = Field(
        description="False: some entries after the cursor are gone for good, or a feed leaves out "
        "some of its jobs."
    )
    since: str | None = Field(
        None, exclude_if=_is_none, description="Where to resume a feed: hand it back as it is."
    )
    ref: Ref = None


class JobMessage(Wire):
    """The view: at every subscription, then at every change of status."""

    type: Literal["job"] = "job"
    id: str
    job: JobView


class ProgressMessage(Wire):
    """Progress between changes of status; the larger seq wins."""

    type: Literal["progress"] = "progress"
    id: str
    job_id: str
    attempt: int
    seq: int
    progress: Progress


class LogMessage(Wire):
    """An entry of log lines."""

    type: Literal["log"] = "log"
    id: str
    job_id: str
    lines: list[LogLine]


class OutputMessage(Wire):
    """An entry of partial result."""

    type: Literal["output"] = "output"
    id: str
    job_id: str
    stream: str | None = Field(None, exclude_if=_is_none)
    text: str


class EndMessage(Wire):
    """The job is over and everything about it has been sent."""

    type: Literal["end"] = "end"
    id: str
    job_id: str


class DegradedMessage(Wire):
    """Live updates come from the database for now, about one a second; or no more."""

    type: Literal["degraded"] = "degraded"
    degraded: bool


class DrainMessage(Wire):
    """This server goes away: come back after the delay, which differs from viewer to viewer."""

    type: Literal["drain"] = "drain"
    reconnect_after_ms: int = Field(description="Milliseconds from now.")


class PingMessage(Wire):
    """Sent after a time of silence."""

    type: Literal["ping"] = "ping"


class PongMessage(Wire):
    """The answer to the op ping."""

    type: Literal["pong"] = "pong"
    ref: Ref = None


class AuthenticatedMessage(Wire):
    """The answer to the op auth."""

    type: Literal["authenticated"] = "authenticated"
    ref: Ref = None


class UnsubscribedMessage(Wire):
    """The answer to the op unsubscribe."""

    type: Literal["unsubscribed"] = "unsubscribed"
    job_id: str | None = Field(None, exclude_if=_is_none)
    feed: str | None = Field(None, exclude_if=_is_none)
    ref: Ref = None


class ProblemMessage(Wire):
    """A request could not be served; the connection stays."""

    type: Literal["problem"] = "problem"
    code: str
    message: str
    job_id: str | None = Field(None, exclude_if=_is_none)
    feed: str | None = Field(None, exclude_if=_is_none)
    ref: Ref = None


ServerMessage = Annotated[
    SubscribedMessage
    | JobMessage
    | ProgressMessage
    | LogMessage
    | OutputMessage
    | EndMessage
    | DegradedMessage
    | DrainMessage
    | PingMessage
    | PongMessage
    | AuthenticatedMessage
    | UnsubscribedMessage
    | ProblemMessage,
    Field(discriminator="type"),
]
server_message: TypeAdapter[ServerMessage] = TypeAdapter(ServerMessage)

JobId = Annotated[str, Field(min_length=1, max_length=255)]
FeedName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=512,
        description="`mine`, `all`, `tag:key=value` or `children:<job id>`.",
        examples=["mine"],
    ),
]
Since = Annotated[
    str,
    Field(
        max_length=8192,
        description="Resume a feed here: the `since` that the server said last.",
        examples=["2024-11-15T10:30:07.123456Z"],
    ),
]


class Op(Wire):
    """What a WebSocket client sends."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class AuthOp(Op):
    """Credentials, first or anew."""

    op: Literal["auth"]
    token: Annotated[str, Field(min_length=1, max_length=8192)]
    ref: Ref = None


class _OnOneThing(Op):
    """An op that is about a job or a feed."""

    job_id: JobId | None = None
    feed: FeedName | None = None

    @model_validator(mode="after")
    def _names_one_thing(self) -> Self:
        if (self.job_id is None) == (self.feed is None):
            raise ValueError("give either job_id or feed")
        return self


class SubscribeOp(_OnOneThing):
    """Watch a job, or follow a feed."""

    op: Literal["subscribe"]
    since: Since | None = None
    after: Annotated[str | None, Field(max_length=64)] = None
    entries: Annotated[str, Field(pattern=r"^(all|none|tail:\d{1,6})$")] = "all"
    ref: Ref = None


class UnsubscribeOp(_OnOneThing):
    """Stop watching a job, or following a feed."""

    op: Literal["unsubscribe"]
    ref: Ref = None


class PingOp(Op):
    """Ask for a pong."""

    op: Literal["ping"]
    ref: Ref = None


ClientOp = Annotated[AuthOp | SubscribeOp | UnsubscribeOp | PingOp, Field(discriminator="op")]
client_op: TypeAdapter[ClientOp] = TypeAdapter(ClientOp)


# What jobs hand in: made storable before it is stored or sent.

_UNSTORABLE = {0: "\N{REPLACEMENT CHARACTER}"} | dict.fromkeys(
    range(0xD800, 0xE000), "\N{REPLACEMENT CHARACTER}"
)


def storable_text(text: str) -> str:
    """`text` with NUL and lone surrogates, which no database or socket takes, replaced."""
    if text.isascii():
        return text.replace("\0", "\N{REPLACEMENT CHARACTER}") if "\0" in text else text
    return text.translate(_UNSTORABLE)


def storable(value: Any) -> Any:
    """`value` as plain JSON data; NaN and infinities become null, tuples lists, keys text.

    Raises:
        TypeError: Something in it has no JSON form.
        ValueError: It contains itself, or is nested too deep.
    """
    try:
        return _storable(value, 0)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _storable(value: Any, depth: int) -> Any:
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return storable_text(str(value))
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if depth > 100:
        raise ValueError("it is nested too deep, or contains itself")
    if isinstance(value, dict):
        return {storable_text(str(key)): _storable(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_storable(item, depth + 1) for item in value]
    if isinstance(value, BaseModel):
        return _storable(value.model_dump(mode="json"), depth + 1)
    return _storable(_plain(value), depth + 1)


def _plain(value: Any) -> Any:
    """What Celery's own JSON serializer knows beyond JSON: dates, UUIDs, decimals and the like."""
    if isinstance(value, datetime):
        return format_time(value) if value.tzinfo else value.isoformat()
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if type(value).__name__ in {"UUID", "Decimal", "PosixPath", "WindowsPath"}:
        return str(value)
    if hasattr(value, "__json__"):
        return value.__json__()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def to_json(value: Any) -> str:
    """Compact JSON text; the caller has made the value storable."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
