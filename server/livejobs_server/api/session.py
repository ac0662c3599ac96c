"""Signing in to the pages by an API key, and signing out."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final

from fastapi import APIRouter, Request, Response
from pydantic import Field, StringConstraints

from ..keys import find_key, key_id_of
from ..problems import ApiProblem
from ..services import Services
from ..sessions import (
    SignIn,
    close_session,
    cookie_header,
    expired_cookie_header,
    open_session,
    session_of,
)
from .answers import Session
from .fields import Body, Server

router = APIRouter(prefix="/v1/session", tags=["credentials"])

MAX_KEY_CHARACTERS: Final = 256
Key = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_KEY_CHARACTERS)
]


class SignInBody(Body):
    """Somebody wants in."""

    key: Key = Field(description="An API key.")


@router.post("", status_code=201, response_model=Session)
async def sign_in(
    body: SignInBody, request: Request, response: Response, server: Server
) -> Session:
    """Sign in to the pages: the answer sets a cookie that counts as credentials from then on.

    Not where the endpoints are part of an app with a sign-in of its own.
    """
    _check_origin(server, request)
    if server.access.own is not None:
        raise ApiProblem("not_found", "Sign in to the app that these endpoints are part of.")
    viewer = await server.database.read(find_key(body.key))
    if viewer is None:
        raise ApiProblem("unauthenticated", "This is no API key, or one that has ended.")
    known = SignIn(viewer, key_id_of(body.key))
    session = await server.database.run(open_session(known, server.settings.session_ttl))
    response.headers["Set-Cookie"] = cookie_header(request, session)
    response.headers["Cache-Control"] = "no-store"
    return Session(
        owner=viewer.owner,
        scopes=sorted(viewer.scopes),
        expires_at=datetime.fromtimestamp(session.viewer.expires_at or 0.0, UTC),
    )


@router.delete("", status_code=204, response_class=Response)
async def sign_out(request: Request, server: Server) -> Response:
    """Sign out of the pages; the session ends, and the browser forgets its cookie."""
    _check_origin(server, request)
    secret = session_of(request)
    if secret is not None:
        await server.database.run(close_session(secret))
    headers = {"Set-Cookie": expired_cookie_header(request), "Cache-Control": "no-store"}
    return Response(status_code=204, headers=headers)


def _check_origin(server: Services, request: Request) -> None:
    """A page of another origin signs nobody in or out.

    Raises:
        ApiProblem: It is one.
    """
    if not server.access.origin_allowed(request):
        raise ApiProblem("origin_not_allowed")
