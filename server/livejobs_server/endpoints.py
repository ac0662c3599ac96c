"""All endpoints as one app, and its OpenAPI document."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response

from livejobs import __version__
from livejobs.errors import LivejobsError
from livejobs.settings import Settings

from .api import (
    asking,
    credentials,
    documents,
    emails,
    events,
    health,
    history,
    jobs,
    listing,
    llm,
    metrics,
    poll,
    rag,
    results,
    schedule,
    session,
    stripe_webhook,
    usage,
    webhooks,
)
from .isolation import BodyLimit, Mistakes
from .problems import MEDIA_TYPE, ProblemDocument, handle_problem, respond
from .push import websocket
from .web import routes

ROUTERS: Final = (
    # They are looked through in this order, and crowds come to this one.
    websocket.router,
    listing.router,
    jobs.router,
    history.router,
    asking.router,
    events.router,
    poll.router,
    credentials.router,
    session.router,
    rag.router,
    emails.router,
    llm.router,
    results.router,
    usage.router,
    stripe_webhook.router,
    documents.router,
    webhooks.router,
    schedule.router,
    health.router,
    routes.client,
)
UPLOAD_PATHS: Final = ("/v1/rag/ingest", "/v1/documents", "/v1/llm/batch")

_ABOUT: Final = """Every background job, live.

Credentials go into `Authorization: Bearer` or `X-API-Key`. A job of another owner looks as if it
did not exist. Errors are RFC 9457 problem documents, with a `code` that stays the same.
"""
_PROBLEM: Final[dict[str, Any]] = {
    "description": "A problem.",
    "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
}
_PROBLEM_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {"4XX": _PROBLEM, "5XX": _PROBLEM}
_EXPOSED: Final = ["ETag", "Link", "Location", "Retry-After"]


def build_endpoints(
    settings: Settings, *, documented: bool, pages: bool = True, numbers: bool = True
) -> FastAPI:
    """All endpoints as an app of their own, with its own errors, limits and CORS.

    Args:
        documented: Serve ``/docs`` and ``/openapi.json``.
        pages: Serve the pages.
        numbers: Serve ``/metrics``.
    """
    endpoints = _Endpoints(
        title="livejobs",
        version=__version__,
        description=_ABOUT,
        responses=_PROBLEM_RESPONSES,
        # Operations are called what their functions are, for generated clients.
        generate_unique_id_function=_name_of,
        openapi_url="/openapi.json" if documented else None,
        docs_url="/docs" if documented else None,
        redoc_url=None,
        middleware=[
            *cors(settings),
            Middleware(Mistakes),
            Middleware(BodyLimit, limit=settings.max_payload_bytes, exempt=UPLOAD_PATHS),
        ],
    )
    endpoints.add_exception_handler(405, _handle_method)
    for expected in (HTTPException, RequestValidationError, LivejobsError):
        endpoints.add_exception_handler(expected, handle_problem)
    for router in ROUTERS:
        endpoints.include_router(router)
    if numbers:
        endpoints.include_router(metrics.router)
    if pages:
        endpoints.include_router(routes.pages)
    return endpoints


def _name_of(route: APIRoute) -> str:
    return route.name


async def _handle_method(request: Request, error: Exception) -> Response:
    """A 405 that names all methods of the path; the framework names those of one route."""
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    allowed = {
        method
        for route in iter_route_contexts(request.app.routes)
        if route.methods and route.path_regex.match(path)
        for method in route.methods
    }
    return respond(HTTPException(405, headers={"Allow": ", ".join(sorted(allowed))}))


def cors(settings: Settings) -> list[Middleware]:
    """What lets pages of other origins read the answers, where the settings name some."""
    origins = settings.allowed_origins
    if not origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["*"],
            # Any page at all must not come with the user's cookies.
            allow_credentials="*" not in origins,
            expose_headers=_EXPOSED,
        )
    ]


class _Endpoints(FastAPI):
    """The app of the endpoints."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, with schemas that no endpoint takes or returns by itself."""
        document = super().openapi()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        for name, model in (("Problem", ProblemDocument), ("BatchBody", llm.BatchBody)):
            schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(schema.pop("$defs", {}), **{name: schema})
        return document
