"""Where the pages, their assets and the client are served."""

from __future__ import annotations

from typing import Annotated, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from starlette.responses import RedirectResponse

from ..api.fields import Server
from ..services import Services
from ..sessions import cookie_header, open_session
from ..tickets import MAX_TICKET_CHARACTERS, redeem_sign_in
from ..viewer import Viewer
from .assets import ASK_AGAIN, CLIENT, ENTRY, FOREVER, assets
from .pages import SIGNED_OUT_OF_APP, Page, context_of, render

client = APIRouter(include_in_schema=False)
"""The client's modules, for everybody's pages."""
pages = APIRouter(include_in_schema=False)
"""The pages of livejobs' own, and what they load."""

HOME: Final = Page("home", "Jobs")
JOB: Final = Page("job", "Job")
SIGN_IN: Final = Page("sign-in", "Sign in", has_top=False)

_READ: Final = ["GET", "HEAD"]
Ticket = Annotated[str | None, Query(max_length=MAX_TICKET_CHARACTERS)]


@client.api_route(f"/{ENTRY}", methods=_READ)
async def client_entry(request: Request) -> Response:
    """What pages import: ``import { JobClient } from "/client.js"``."""
    return assets().respond(request, ENTRY, ASK_AGAIN)


@client.api_route(f"/{CLIENT}{{name:path}}", methods=_READ)
async def client_module(name: str, request: Request) -> Response:
    """A module of the client."""
    return assets().respond(request, CLIENT + name, ASK_AGAIN)


@pages.api_route("/assets/{digest}/{name:path}", methods=_READ)
async def page_asset(digest: str, name: str, request: Request) -> Response:
    """A script or style of the pages; of another release's path only until the next load."""
    found = assets()
    return found.respond(request, name, FOREVER if digest == found.digest else ASK_AGAIN)


@pages.api_route("/", methods=_READ)
async def home(request: Request, server: Server, ticket: Ticket = None) -> Response:
    """The list of jobs, and where they are started."""
    return await _show(HOME, request, server, ticket)


@pages.api_route("/jobs/{job_id}", methods=_READ)
async def job(job_id: str, request: Request, server: Server, ticket: Ticket = None) -> Response:
    """One job's own page; whether there is such a job, it asks by itself."""
    return await _show(JOB, request, server, ticket, job=job_id)


@pages.api_route("/sign-in", methods=_READ)
async def sign_in(request: Request, server: Server) -> Response:
    """Where an API key is pasted."""
    if server.access.own is not None or await server.access.authenticate(request) is not None:
        return _go(request, "/")
    return render(SIGN_IN, request, {"base": _base(request)})


async def _show(
    page: Page, request: Request, server: Services, ticket: str | None, **more: str
) -> Response:
    """A page for whoever is signed in; others are asked to sign in, or signed in by a ticket."""
    if ticket is not None and server.access.own is None:
        return await _redeem(request, server, ticket)
    viewer = await server.access.authenticate(request)
    if viewer is not None:
        return render(page, request, context_of(viewer, server, _base(request)) | more)
    if server.access.own is not None:
        return render(SIGNED_OUT_OF_APP, request, {"base": _base(request)}, status=401)
    return _ask_to_sign_in(request)


async def _redeem(request: Request, server: Services, ticket: str) -> Response:
    """Sign in by a ticket, and go on without it in the URL."""
    if request.method == "HEAD":
        return Response()
    known = await server.database.run(redeem_sign_in(ticket))
    if known is None:
        viewer: Viewer | None = await server.access.authenticate(_without_query(request))
        # Who is signed in already, and opens the link a second time, just goes on.
        return _go(request, _path(request)) if viewer else _ask_to_sign_in(request, used=True)
    session = await server.database.run(open_session(known, server.settings.session_ttl))
    response = _go(request, _path(request))
    response.headers["Set-Cookie"] = cookie_header(request, session)
    return response


def _without_query(request: Request) -> Request:
    return Request({**request.scope, "query_string": b""})


def _ask_to_sign_in(request: Request, *, used: bool = False) -> Response:
    query = {"next": _path(request)} | ({"used": "1"} if used else {})
    return _go(request, f"/sign-in?{urlencode(query)}")


def _go(request: Request, path: str) -> Response:
    """A redirect to one of these pages, which no cache keeps."""
    headers = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    return RedirectResponse(_base(request) + path, status_code=303, headers=headers)


def _base(request: Request) -> str:
    """Path under which the endpoints lie, without a slash at its end."""
    base: str = request.scope.get("root_path", "")
    return base.rstrip("/")


def _path(request: Request) -> str:
    """The page's own path below `_base`."""
    return request.url.path.removeprefix(_base(request)) or "/"
