"""Logging for the programs of livejobs: lines for people, or one JSON object a line.

A library sets up no logging; the command line, the server and the worker call
`configure_logging` once at their start. Ids travel as fields (`extra={"job_id": …}`). What looks
like a credential is blanked out last of all, in the finished line, so that no message, field or
traceback gets one past it.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import IO, Any, Literal

BLANK = "***"

_SECRET_NAMES = (
    r"(?:[\w-]*(?:token|ticket|secret|secrets|password|passwd|api[_-]?key|authorization|cookie))"
)
# Each keeps group 1 and, where there is one, group 3; what stands between them is blanked out.
_CREDENTIALS = (
    # redis://user:password@host
    re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s/:@\"']*:)([^\s/@\"']+)(@)", re.IGNORECASE),
    re.compile(r"(\b(?:Bearer|Basic)\s+)([A-Za-z0-9._~+/=-]{6,})", re.IGNORECASE),
    # token=…, "api_key": "…", x-api-key: …
    re.compile(
        rf"(\b{_SECRET_NAMES}[\"']?\s*[=:]\s*[\"']?)((?!Bearer\b|Basic\b)[^\s\"'&;}}]+)",
        re.IGNORECASE,
    ),
    # A signed token, wherever it stands.
    re.compile(r"(\b)(eyJ[\w-]{5,}\.[\w-]{5,}\.[\w-]+)"),
)

_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {
    "message",
    "asctime",
    "taskName",
    # uvicorn's copy of the message with terminal colours in it.
    "color_message",
}

_CHATTY = ("alembic", "httpcore", "httpx")
"""Loggers whose info is about themselves; they are heard from warning on."""

_LEVELS = {"warning": "warn", "critical": "fatal"}


def redact(line: str) -> str:
    """`line` with passwords, tokens, tickets and keys blanked out."""
    for pattern in _CREDENTIALS:
        line = pattern.sub(_blank, line)
    return line


def _blank(match: re.Match[str]) -> str:
    closing = match.group(3) if match.re.groups == 3 else ""
    return f"{match.group(1)}{BLANK}{closing}"


def _extra_fields(record: logging.LogRecord) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(record).items()
        if name not in _STANDARD_FIELDS and not name.startswith("_")
    }


class TextFormatter(logging.Formatter):
    """`2024-11-15T10:30:00.123Z info  livejobs.hub  subscribed job_id=…`, tracebacks below."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-5s %(name)s: %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """The record's time in UTC, with milliseconds."""
        return _timestamp(record)

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line without its traceback, followed by the extra fields."""
        name = record.levelname.lower()
        record = logging.makeLogRecord(vars(record) | {"levelname": _LEVELS.get(name, name)})
        fields = "".join(f" {name}={value}" for name, value in _extra_fields(record).items())
        return super().formatMessage(record) + fields

    def format(self, record: logging.LogRecord) -> str:
        """The whole text of a record, credentials blanked out."""
        return redact(super().format(record))


class JsonFormatter(logging.Formatter):
    """One object a line: ts, level, logger, message, the extra fields, and exception."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record, credentials blanked out."""
        line: dict[str, Any] = {
            "ts": _timestamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(record.getMessage()),
        }
        for name, value in _extra_fields(record).items():
            line.setdefault(name, _redacted_field(name, value))
        if record.exc_info:
            line["exception"] = redact(self.formatException(record.exc_info))
        if record.stack_info:
            line["stack"] = redact(record.stack_info)
        return json.dumps(line, ensure_ascii=False, default=_as_text)


_SECRET_NAME = re.compile(_SECRET_NAMES, re.IGNORECASE)


def _redacted_field(name: str, value: Any) -> Any:
    # Redacted before the line becomes JSON: a quote inside a value would be escaped there.
    if _SECRET_NAME.fullmatch(name):
        return BLANK
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {str(key): _redacted_field(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted_field("", item) for item in value]
    return value


def _as_text(value: object) -> str:
    return redact(str(value))


def _timestamp(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


class _CurrentStderr(logging.StreamHandler[IO[str]]):
    """Writes to what `sys.stderr` is at that moment, which a test or a daemon may replace."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> IO[str]:
        return sys.stderr

    @stream.setter
    def stream(self, stream: IO[str]) -> None:
        raise AttributeError("this handler always writes to sys.stderr")


def formatter(log_format: Literal["text", "json"]) -> logging.Formatter:
    """The formatter of that name, for programs that bring their own handlers (Celery does)."""
    return JsonFormatter() if log_format == "json" else TextFormatter()


def configure_logging(
    log_format: Literal["text", "json"] = "text", level: str | int = "info"
) -> logging.Handler:
    """Send this process's log to stderr; calling it again replaces what it set up before.

    Args:
        log_format: `text` for people, `json` for collectors.
        level: debug, info, warning or error, or the number of a level.

    Returns:
        The handler on the root logger.

    Raises:
        ValueError: There is no such level.
    """
    root = logging.getLogger()
    root.setLevel(level.upper() if isinstance(level, str) else level)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(root.level, logging.WARNING))
    for handler in list(root.handlers):
        if isinstance(handler, _CurrentStderr):
            root.removeHandler(handler)
    handler = _CurrentStderr()
    handler.setFormatter(formatter(log_format))
    root.addHandler(handler)
    logging.captureWarnings(capture=True)
    return handler
