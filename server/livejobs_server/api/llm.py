"""Batches of prompts for a language model."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Request, Response
from pydantic import Field, TypeAdapter
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.types import Message, Receive

from livejobs.dispatch import enqueue
from livejobs.settings import Settings
from livejobs.uploads import add_upload
from livejobs.views import Status

from ..dependencies import Creator
from ..idempotency import IdempotencyKey, Once, fingerprint, once
from ..job_files import execute_in, with_files
from ..problems import ApiProblem
from ..prompts import MAX_PROMPTS, AnyPrompt, Kept, Words, invalid_requests, lines_of
from ..services import Services
from ..tokens import job_token
from ..uploads import BATCH_TASK
from .answers import AcceptedBatch
from .fields import Body, Name, Server

router = APIRouter(prefix="/v1/llm", tags=["language models"])

_FORM_BYTES: Final = 64 * 1024  # what stands around the file


class BatchOptions(Body):
    """How the prompts of a batch are asked."""

    model: Name | None = Field(None, description="By default the server's `LIVEJOBS_LLM_MODEL`.")
    system: Words | None = Field(None, description="What the model is told before each prompt.")
    max_tokens: Annotated[int, Field(ge=1, le=65_536)] = Field(
        512, description="Longest answer, in tokens."
    )
    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(
        None, description="By default the endpoint's own."
    )
    concurrency: Annotated[int, Field(ge=1, le=1000)] = Field(
        4,
        description="How many prompts are asked at a time; no more than workers have processes.",
    )


class BatchBody(BatchOptions):
    """A batch of prompts."""

    prompts: list[AnyPrompt] = Field(
        min_length=1, max_length=MAX_PROMPTS, description="Each a text, or an object."
    )


_OPTIONS: Final = TypeAdapter(BatchOptions)
_BODY: Final = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/BatchBody"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {
                            "type": "string",
                            "contentMediaType": "application/jsonl",
                            "description": "On each line a string, or an object with a `prompt`.",
                        },
                        "model": {"type": "string"},
                        "system": {"type": "string"},
                        "max_tokens": {"type": "integer"},
                        "temperature": {"type": "number"},
                        "concurrency": {"type": "integer"},
                    },
                }
            },
        },
    }
}


@router.post("/batch", status_code=202, response_model=AcceptedBatch, openapi_extra=_BODY)
async def create_batch(
    request: Request, response: Response, server: Server, viewer: Creator, key: IdempotencyKey
) -> AcceptedBatch:
    """Have prompts answered: one job for all, with a child for each prompt."""
    settings = server.settings
    if settings.llm_base_url is None:
        raise ApiProblem("llm_unavailable")
    async with _received(request, settings) as (options, prompts):
        if (model := options.model or settings.llm_model) is None:
            message = "name one, or set LIVEJOBS_LLM_MODEL"
            error = {"field": "model", "message": message}
            raise ApiProblem("invalid_request", f"model: {message}", errors=[error])
        asked = options.model_dump(exclude_none=True) | {"model": model}
        wanted = fingerprint("batch", asked, prompts.sha256)
        async with once(server.database, viewer.owner, key, wanted) as this:
            if this.answer is None:
                await server.quotas.take(viewer.owner)
                this.made = await _create(server, viewer.owner, asked, prompts, this)
            answer = this.answer or this.made or {}
    # It carries a token.
    response.headers["Cache-Control"] = "no-store"
    token = job_token(viewer, answer["job_id"], settings)
    return AcceptedBatch(**answer, token=token)


async def _create(
    server: Services, owner: str, options: dict[str, Any], prompts: Kept, this: Once
) -> dict[str, Any]:
    """Keep the file and create its job, in one transaction."""
    name = f"{this.nonce}.jsonl"
    await run_in_threadpool(prompts.keep, name)
    concurrency = options.pop("concurrency")
    async with with_files(server, prompts.take_back) as session:
        job = await enqueue(
            BATCH_TASK,
            [name, prompts.total, concurrency, options],
            app=server.celery,
            owner=owner,
            # Unique to the request, also where that is executed a second time.
            idempotency_key=name,
            session=session,
        )
        await execute_in(session, add_upload(name, owner, job.job_id, prompts.size), server)
    return {"job_id": job.job_id, "status": Status.PENDING, "prompts": prompts.total}


@contextlib.asynccontextmanager
async def _received(
    request: Request, settings: Settings
) -> AsyncIterator[tuple[BatchOptions, Kept]]:
    """The options and the prompts of a request; on leaving, prompts that were not kept are gone."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    read = _read_form if kind == "multipart/form-data" else _read_json
    options, prompts = await read(request, settings)
    try:
        yield options, prompts
    finally:
        await run_in_threadpool(prompts.discard)


async def _read_json(request: Request, settings: Settings) -> tuple[BatchOptions, Kept]:
    limit = settings.max_payload_bytes
    problem = ApiProblem("body_too_large", f"The body may have {limit} bytes: send a file.")
    text = await Request(request.scope, _limited(request.receive, limit, problem)).body()
    with invalid_requests():
        body = BatchBody.model_validate_json(text)
    options = BatchOptions(**body.model_dump(exclude={"prompts"}))
    return options, await run_in_threadpool(Kept, body.prompts, settings)


async def _read_form(request: Request, settings: Settings) -> tuple[BatchOptions, Kept]:
    limit = settings.max_upload_bytes
    problem = ApiProblem("file_too_large", f"The file may have {limit} bytes.")
    receive = _limited(request.receive, limit + _FORM_BYTES, problem)
    async with Request(request.scope, receive).form(max_files=1, max_fields=20) as form:
        fields = dict(form)
        file = fields.pop("file", None)
        if not isinstance(file, UploadFile):
            error = {"field": "file", "message": "send a JSONL file"}
            raise ApiProblem("invalid_request", "file: send a JSONL file", errors=[error])
        with invalid_requests():
            options = _OPTIONS.validate_python(fields)
        return options, await run_in_threadpool(lambda: Kept(lines_of(file.file), settings))


def _limited(receive: Receive, limit: int, problem: ApiProblem) -> Receive:
    """`receive`, up to so many bytes of the body."""
    received = 0

    async def counted() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise problem
        return message

    return counted
