"""The log lines that programs of livejobs write."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from livejobs.logs import configure_logging, formatter, redact


def record(message: str, *arguments: object, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("livejobs.hub", logging.INFO, "f.py", 1, message, arguments, None)
    made.__dict__.update(fields)
    made.created = 1731666600.1239
    return made


@pytest.mark.parametrize(
    ("line", "safe"),
    [
        ("redis://:hunter2@127.0.0.1:6379/0", "redis://:***@127.0.0.1:6379/0"),
        ("postgresql://me:pw@db/x?a=b", "postgresql://me:***@db/x?a=b"),
        ("GET /v1/ws?ticket=abc123&x=1", "GET /v1/ws?ticket=***&x=1"),
        ("Authorization: Bearer abc.def-ghi", "Authorization: Bearer ***"),
        ("X-API-Key: lj_0123456789", "X-API-Key: ***"),
        ('{"api_key": "lj_1", "n": 2}', '{"api_key": "***", "n": 2}'),
        ("LIVEJOBS_SECRETS=aaaa,bbbb", "LIVEJOBS_SECRETS=***"),
        ("got eyJhbGciOi.eyJzdWIi.c2lnbmF0dXJl here", "got *** here"),
        ("job rag.ingest-7 at http://127.0.0.1:8000/v1", None),
        ("tokens: the reader splits text into tokens", None),
        ("12 secret sauces; no keyboards harmed", None),
    ],
)
def test_credentials_in_a_line_are_blanked(line: str, safe: str | None) -> None:
    assert redact(line) == (line if safe is None else safe)


def test_json_line_has_time_level_logger_message_and_fields() -> None:
    line = formatter("json").format(record("subscribed %s", "j1", job_id="j1", viewers=3))
    assert json.loads(line) == {
        "ts": "2024-11-15T10:30:00.123Z",
        "level": "info",
        "logger": "livejobs.hub",
        "message": "subscribed j1",
        "job_id": "j1",
        "viewers": 3,
    }


def test_json_line_blanks_fields_by_name_and_nested() -> None:
    fields = {"api_key": "k", "request": {"token": 'a"b', "path": "/x?ticket=t"}}
    line = json.loads(formatter("json").format(record("x", **fields)))
    assert line["api_key"] == "***"
    assert line["request"] == {"token": "***", "path": "/x?ticket=***"}


def test_json_line_with_exception_stays_one_line() -> None:
    try:
        raise ValueError("redis://:pw@h\nsecond line")
    except ValueError:
        made = record("failed")
        made.exc_info = sys.exc_info()
    line = formatter("json").format(made)
    assert "\n" not in line
    assert "redis://:***@h" in json.loads(line)["exception"]


def test_text_line_ends_with_fields() -> None:
    line = formatter("text").format(record("gone", job_id="j1"))
    assert line == "2024-11-15T10:30:00.123Z info  livejobs.hub: gone job_id=j1"


def test_configure_logging_twice_leaves_one_handler(
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    try:
        configure_logging("text", "info")
        configure_logging("json", "warning")
        logging.getLogger("livejobs.test").info("quiet")
        logging.getLogger("livejobs.test").warning("loud")
        lines = capsys.readouterr().err.splitlines()
    finally:
        for handler in set(root.handlers) - set(before):
            root.removeHandler(handler)
        root.setLevel(level)
        logging.captureWarnings(capture=False)
    assert [json.loads(line)["message"] for line in lines] == ["loud"]
