"""Problem documents, and the page that lists them."""

import json
import re
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from livejobs.errors import (
    DatabaseUnavailable,
    IdempotencyConflict,
    InvalidCursor,
    JobConflict,
    LivejobsError,
    MessageError,
    RedisUnavailable,
    SettingsError,
    UnknownJob,
)
from livejobs.file_kinds import IngestError
from livejobs_server.problems import PROBLEMS, ApiProblem, ProblemDocument, respond

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "problems.md"


def document(response: Response) -> dict[str, Any]:
    assert response.media_type == "application/problem+json"
    body: dict[str, Any] = json.loads(bytes(response.body))
    ProblemDocument.model_validate(body)
    assert body["status"] == response.status_code
    assert body["title"] == HTTPStatus(response.status_code).phrase
    assert body["code"] in PROBLEMS
    return body


def test_page_lists_every_problem_as_it_is() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (.+) \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert rows == [(code, str(kind.status), kind.meaning) for code, kind in PROBLEMS.items()]


@pytest.mark.parametrize("code", PROBLEMS)
def test_problem_of_each_code_is_a_document(code: str) -> None:
    assert document(respond(ApiProblem(code)))["code"] == code


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (UnknownJob("j"), 404, "unknown_job"),
        (JobConflict("j", "completed", "cancelled"), 409, "job_conflict"),
        (IdempotencyConflict("j"), 422, "idempotency_mismatch"),
        (InvalidCursor("x"), 422, "invalid_cursor"),
        (MessageError("x"), 422, "invalid_message"),
        (IngestError("unsupported_type", "x"), 415, "unsupported_type"),
        (IngestError("empty_file", "x"), 422, "empty_file"),
        (DatabaseUnavailable("x"), 503, "database_unavailable"),
        (RedisUnavailable("x"), 503, "redis_unavailable"),
        (SettingsError("x"), 501, "signing_unavailable"),
        (HTTPException(404), 404, "not_found"),
        (HTTPException(405), 405, "method_not_allowed"),
        (HTTPException(400), 400, "malformed_body"),
        (HTTPException(418), 418, "http_error"),
        (LivejobsError("x"), 500, "internal_error"),
        (ZeroDivisionError("x"), 500, "internal_error"),
    ],
)
def test_error_becomes_a_problem(error: Exception, status: int, code: str) -> None:
    shown = document(respond(error))
    assert (shown["status"], shown["code"]) == (status, code)


@pytest.mark.parametrize(
    "error",
    [
        DatabaseUnavailable("postgresql://me:hush@db.internal does not answer"),
        RedisUnavailable("redis://:hush@cache.internal does not answer"),
        ZeroDivisionError("hush"),
        LivejobsError("hush"),
    ],
)
def test_problem_tells_nothing_of_the_inside(error: Exception) -> None:
    body = bytes(respond(error).body).decode()
    assert "hush" not in body
    assert "internal." not in body


def test_problem_of_an_outage_says_when_to_come_back() -> None:
    assert int(respond(DatabaseUnavailable("x")).headers["retry-after"]) > 0


def test_problem_without_credentials_says_how_to_bring_some() -> None:
    assert respond(ApiProblem("unauthenticated")).headers["www-authenticate"].startswith("Bearer")


def test_problem_of_a_conflict_carries_the_status_of_the_job() -> None:
    shown = document(respond(JobConflict("j", "completed", "cancelled")))
    assert (shown["status"], shown["job_status"]) == (409, "completed")


def test_problem_keeps_the_headers_of_its_error() -> None:
    response = respond(HTTPException(405, headers={"Allow": "GET"}))
    assert response.headers["allow"] == "GET"


def test_invalid_request_names_its_fields() -> None:
    error = RequestValidationError(
        [
            {"type": "missing", "loc": ("body", "task"), "msg": "Field required"},
            {"type": "extra_forbidden", "loc": ("body", "tusk"), "msg": "Extra inputs …"},
            {"type": "string_type", "loc": ("body", "jobs", 0), "msg": "no text"},
            {"type": "int_parsing", "loc": ("query", "limit"), "msg": "no number"},
        ]
    )
    shown = document(respond(error))
    assert shown["errors"] == [
        {"field": "task", "message": "Field required"},
        {"field": "tusk", "message": "there is no such field"},
        {"field": "jobs[0]", "message": "no text"},
        {"field": "limit", "message": "no number"},
    ]
    assert shown["detail"] == "task: Field required (and 3 more)"


def test_invalid_request_with_thousands_of_mistakes_stays_short() -> None:
    many = [{"type": "x", "loc": ("body", "args", n), "msg": "no"} for n in range(5000)]
    assert len(respond(RequestValidationError(many)).body) < 2000
