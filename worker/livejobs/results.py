"""How a task ended, its result or its error, as the job's row keeps it."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded

from .errors import LivejobsError
from .settings import Settings
from .views import storable, storable_text, to_json

MAX_ERROR_CHARACTERS = 2000
MAX_TRACEBACK_CHARACTERS = 20_000


class ResultNotStorable(LivejobsError, TypeError):
    """The task returned something that cannot be kept as its result."""


def storable_result(result: Any, settings: Settings) -> Any:
    """A result as plain JSON data.

    Raises:
        ResultNotStorable: It has no JSON form, or is too large.
    """
    try:
        plain = storable(result)
        size = len(to_json(plain).encode())
    except (TypeError, ValueError) as error:
        raise ResultNotStorable(
            f"The result cannot be stored: {error}. Return JSON data."
        ) from error
    if size > settings.max_result_bytes:
        raise ResultNotStorable(
            f"The result has {size} bytes, more than the {settings.max_result_bytes} of "
            "LIVEJOBS_MAX_RESULT_BYTES: store it elsewhere and return where it is."
        )
    return plain


def error_of(error: BaseException) -> dict[str, Any]:
    """An exception as a job's error: type, message in words, code where it has one, traceback."""
    name = type(error).__name__
    try:
        code = getattr(error, "code", None)
        message = str(error) or repr(error)
        lines = "".join(traceback.format_exception(error))
    except Exception:  # an exception that cannot even say what it is
        code, message, lines = None, f"a {name} without a message", ""
    if isinstance(error, SoftTimeLimitExceeded):
        name, code, message = "TimeLimitExceeded", "time_limit", "It ran longer than it may."
    shown = {
        "type": storable_text(name),
        "message": storable_text(message[:MAX_ERROR_CHARACTERS]),
        "traceback": storable_text(lines[-MAX_TRACEBACK_CHARACTERS:]),
    }
    if isinstance(code, str):
        shown["code"] = storable_text(code[:100])
    return shown


def declared_message(meta: Any) -> str:
    """The message of a failure that a task declared by `update_state`."""
    if isinstance(meta, Mapping):
        meta = meta.get("exc_message") or meta.get("message") or meta.get("error") or ""
    if isinstance(meta, list | tuple):
        meta = " ".join(str(part) for part in meta)
    return storable_text(str(meta)[:MAX_ERROR_CHARACTERS]) or "The task declared that it failed."
