"""Requests of a WebSocket client, read and checked; pure."""

from __future__ import annotations

import json
from typing import Any, Final

from pydantic import ValidationError

from livejobs.views import ClientOp, client_op

from .scope import MAX_FEED_CHARACTERS
from .subscriptions import INVALID_REQUEST, Refusal

OPS: Final = ("auth", "subscribe", "unsubscribe", "ping")
UNKNOWN_OP: Final = "unknown_op"

_MAX_ID_CHARACTERS: Final = 255


class NotAMessage(ValueError):
    """What came is no message of the protocol at all; the text says why."""


class Request:
    """One message of a client, not yet checked beyond being a JSON object.

    Attributes:
        fields: The object.
        ref: Its number for the answer, None where it has none that can be echoed.
        job_id: The job it names, "" where it names none that can be echoed.
        feed: The same for a feed.
    """

    def __init__(self, fields: dict[str, Any]) -> None:
        self.fields = fields
        ref = fields.get("ref")
        self.ref: int | None = ref if type(ref) is int else None
        self.job_id = _short(fields.get("job_id"), _MAX_ID_CHARACTERS)
        self.feed = _short(fields.get("feed"), MAX_FEED_CHARACTERS)

    def op(self) -> ClientOp:
        """The operation asked for.

        Raises:
            Refusal: There is no such operation, or a field is missing or wrong.
        """
        name = self.fields.get("op")
        if name is None:
            raise Refusal(INVALID_REQUEST, f"op is missing: use one of {', '.join(OPS)}.")
        if name not in OPS:
            raise Refusal(UNKNOWN_OP, f"There is no such op: use one of {', '.join(OPS)}.")
        try:
            return client_op.validate_python(self.fields)
        except ValidationError as error:
            raise Refusal(INVALID_REQUEST, _readable(error)) from None


def read_request(text: str | None, max_bytes: int) -> Request:
    """A message as it came in.

    Args:
        text: Its text; None: it was binary.
        max_bytes: Longer ones are not read.

    Raises:
        NotAMessage: It is binary, too long, no JSON, or no object.
    """
    if text is None:
        raise NotAMessage("binary messages are not understood")
    if len(text) > max_bytes or len(text.encode("utf-8", "surrogatepass")) > max_bytes:
        raise NotAMessage(f"the message is longer than {max_bytes} bytes")
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        raise NotAMessage("the message is no JSON") from None
    if not isinstance(fields, dict):
        raise NotAMessage("the message is no JSON object")
    return Request(fields)


def _short(value: Any, most: int) -> str:
    return value if isinstance(value, str) and len(value) <= most else ""


def _readable(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_input=False)[0]
    # The first part of the place is the op.
    field = ".".join(str(part) for part in problem["loc"][1:])
    message: str = problem["msg"].removeprefix("Value error, ")
    return f"{field}: {message}" if field else message
