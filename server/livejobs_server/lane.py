"""The short way to what crowds of viewers ask for when all of them come back at once.

The way by the framework looks through all routes, and converts one parameter after the other. Here
a WebSocket, or a browser's request for the event stream of one job, goes straight to what serves
it. A request that is not quite plain takes the usual way; both give the same answers.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Final

from fastapi import FastAPI
from starlette.datastructures import Headers, QueryParams
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from livejobs.errors import LivejobsError

from .api.events import stream
from .problems import handle_mistake, respond
from .push.websocket import serve
from .services import services

_WEBSOCKET: Final = re.compile(r"/v1/(?:ws|jobs/([^/]+)/ws)")
_EVENTS: Final = re.compile(r"/v1/jobs/([^/]+)/events")
_KNOWN: Final = "livejobs.known"
_CURSOR_CHARACTERS: Final = 64
"""A longer cursor is refused, by the usual way."""


class Lane:
    """Serves some requests in place of an app's own routes.

    Args:
        app: The app whose state has the services.
        middleware: Stands around the answers, as around the app's own.
    """

    def __init__(self, app: FastAPI, middleware: Sequence[Middleware]) -> None:
        self._app = app
        self._answer: ASGIApp = _answer
        for cls, args, options in reversed(middleware):
            self._answer = cls(self._answer, *args, **options)

    def find(self, scope: Scope, path: str) -> ASGIApp | None:
        """What serves a request; None: the usual way.

        Args:
            path: Of the request, below the app's own.
        """
        if scope["type"] == "websocket":
            found = _WEBSOCKET.fullmatch(path)
            return None if found is None else functools.partial(self._watch, found[1])
        if scope["type"] != "http" or scope["method"] != "GET":
            return None
        found = _EVENTS.fullmatch(path)
        if found is None or (known := _known(scope)) is None:
            return None
        return functools.partial(self._stream, found[1], known)

    async def _watch(self, job_id: str | None, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self._app
        await serve(WebSocket(scope, receive, send), job_id)

    async def _stream(
        self, job_id: str, known: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        scope["app"] = self._app
        scope["path_params"] = {"job_id": job_id, _KNOWN: known}
        await self._answer(scope, receive, send)


def _known(scope: Scope) -> str | None:
    """The cursor up to which a client knows its job, or ""; None: the request is not plain."""
    query = scope["query_string"]
    given = QueryParams(query) if query else {}
    last, after = Headers(scope=scope).get("last-event-id", ""), given.get("after", "")
    plain = "entries" not in given and max(len(last), len(after)) <= _CURSOR_CHARACTERS
    return (last or after) if plain else None


async def _answer(scope: Scope, receive: Receive, send: Send) -> None:
    request = Request(scope, receive)
    given = scope["path_params"]
    try:
        response = await stream(services(request), request, given["job_id"], given[_KNOWN] or None)
    except (HTTPException, LivejobsError) as expected:
        response = respond(expected)
    except Exception as error:
        response = await handle_mistake(request, error)
    await response(scope, receive, send)
