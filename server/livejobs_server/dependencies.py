"""FastAPI dependencies that name the viewer of a request, for these endpoints and users' own."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Security
from fastapi.openapi.models import APIKey, APIKeyIn, HTTPBearer
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from livejobs.errors import DatabaseUnavailable

from .problems import ApiProblem
from .services import services
from .viewer import READ, WRITE, Viewer


class _Documented(SecurityBase):
    """Names a way to authenticate in the OpenAPI document; `Access` does the work."""

    def __init__(self, name: str, model: Any) -> None:
        self.scheme_name = name
        self.model = model

    async def __call__(self, connection: HTTPConnection) -> None:
        """Nothing to do; a request or a WebSocket is welcome."""


_bearer = _Documented(
    "bearer", HTTPBearer(description="A signed token from `POST /v1/tokens`, or an API key.")
)
_api_key = _Documented(
    "api_key",
    APIKey.model_validate(
        {"in": APIKeyIn.header, "name": "X-API-Key", "description": "An API key."}
    ),
)

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


async def get_viewer(
    connection: HTTPConnection,
    _token: Annotated[None, Security(_bearer)] = None,
    _key: Annotated[None, Security(_api_key)] = None,
) -> Viewer:
    """The viewer of a request, whatever they may see: their credentials can be a job's token.

    Raises:
        ApiProblem: 401 without valid credentials; 403 for a page of another origin that would
            change something by the user's own cookies; 503 while the database is away.
    """
    access = services(connection).access
    try:
        viewer = await access.authenticate(connection)
    except DatabaseUnavailable as error:
        # In a user's own endpoint this would be their unknown error.
        raise ApiProblem("database_unavailable") from error
    if viewer is None:
        raise ApiProblem("unauthenticated")
    changes = connection.scope.get("method", "GET") not in _SAFE_METHODS
    if changes and access.is_ambient(connection) and not access.origin_allowed(connection):
        raise ApiProblem("origin_not_allowed")
    if changes and access.is_by_ticket(connection):
        # A URL ends in logs and histories: what it carries opens streams and shows, no more.
        raise ApiProblem("unauthenticated", "A ticket is good for reading only.")
    return viewer


async def get_api_key(viewer: Annotated[Viewer, Depends(get_viewer)]) -> Viewer:
    """The viewer of a request, for users' own endpoints: ``viewer = Depends(get_api_key)``.

    A token that was made for certain jobs opens nothing else.

    Raises:
        ApiProblem: 401 without valid credentials, 403 with those of certain jobs.
    """
    if viewer.is_limited:
        raise ApiProblem("limited_token")
    return viewer


async def get_reader(viewer: Annotated[Viewer, Depends(get_viewer)]) -> Viewer:
    """The viewer of a request that reads."""
    return _with_scope(viewer, READ)


async def get_writer(viewer: Annotated[Viewer, Depends(get_viewer)]) -> Viewer:
    """The viewer of a request that changes something."""
    return _with_scope(viewer, WRITE)


async def get_lister(viewer: Annotated[Viewer, Depends(get_reader)]) -> Viewer:
    """The viewer of a request that looks through everything of theirs."""
    return await get_api_key(viewer)


async def get_creator(viewer: Annotated[Viewer, Depends(get_writer)]) -> Viewer:
    """The viewer of a request that creates something of their own."""
    return await get_api_key(viewer)


async def get_admin(viewer: Annotated[Viewer, Depends(get_viewer)]) -> Viewer:
    """The viewer of a request about the insides of the program."""
    if not viewer.is_admin:
        raise ApiProblem("scope_missing", "These credentials lack the scope admin.")
    return viewer


def _with_scope(viewer: Viewer, scope: str) -> Viewer:
    if not viewer.has_scope(scope):
        raise ApiProblem("scope_missing", f"These credentials lack the scope {scope}.")
    return viewer


Reader = Annotated[Viewer, Depends(get_reader)]
Writer = Annotated[Viewer, Depends(get_writer)]
Lister = Annotated[Viewer, Depends(get_lister)]
Creator = Annotated[Viewer, Depends(get_creator)]
Admin = Annotated[Viewer, Depends(get_admin)]
