"""What keeps these endpoints and the app they are mounted in out of each other's way.

The endpoints are an app of their own, with its own errors, limits and CORS, which takes only the
requests for one of its paths. Around the user's endpoints stands nothing but `RequestOwner`.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any, Final

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection, Request
from starlette.routing import Match, Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from livejobs.owners import request_owner

from .auth import Authenticate, is_async
from .problems import ApiProblem, handle_mistake, respond

_log = logging.getLogger("livejobs.server")


Find = Callable[[Scope, str], ASGIApp | None]
"""What serves a request, with its path below the mount, in place of the app; None: the app does."""

_MATCHED: Final = "livejobs.matched"
_INSTEAD: Final = "livejobs.instead"
"""Kept in a scope: what was found out about it, and what serves it in place of the app."""


class OwnPaths(Mount):
    """A mounted app that takes no request but those for one of its own paths.

    The user's routes go on behind it, whatever the prefix.

    Args:
        find: Finds what serves some requests in place of the app.
    """

    def __init__(self, path: str, app: ASGIApp, name: str, find: Find) -> None:
        super().__init__(path, app, name=name)
        self._find = find

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether one of the app's routes is for this path, in whatever method."""
        # It is asked by `RequestOwner`, and by the router; that asks for other paths too.
        asked = self, scope["type"], scope.get("root_path", ""), scope.get("path")
        known = scope.get(_MATCHED)
        if known is None or known[0] != asked:
            known = scope[_MATCHED] = asked, self._match(scope)
        matched: tuple[Match, Scope] = known[1]
        return matched

    def _match(self, scope: Scope) -> tuple[Match, Scope]:
        match, child_scope = super().matches(scope)
        if match is Match.NONE:
            return match, child_scope
        path = scope["path"].removeprefix(child_scope["root_path"])
        instead = self._find(scope, path)
        if instead is not None:
            return match, {**child_scope, _INSTEAD: instead}
        inner = {**scope, **child_scope}
        if any(route.matches(inner)[0] is not Match.NONE for route in self.routes):
            return match, child_scope
        return Match.NONE, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request that matches."""
        await scope.get(_INSTEAD, self.app)(scope, receive, send)


class Mistakes:
    """Answers what no handler expected with a 500 that tells nothing, and logs it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        except Exception as error:
            if started:
                raise
            response = await handle_mistake(Request(scope), error)
            await response(scope, receive, send)


class BodyLimit:
    """Refuses bodies that are too large, at the latest at the first byte too many.

    Args:
        limit: Largest body, in bytes.
        exempt: Paths, below the mount, of endpoints that count for themselves.
    """

    def __init__(self, app: ASGIApp, limit: int, exempt: tuple[str, ...]) -> None:
        self._app = app
        self._limit = limit
        self._exempt = exempt

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].endswith(self._exempt):
            await self._app(scope, receive, send)
            return
        problem = ApiProblem(
            "body_too_large", f"The body may have {self._limit} bytes.", max_bytes=self._limit
        )
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdecimal() and int(declared) > self._limit:
            await respond(problem)(scope, receive, send)
            return
        received = 0

        async def counted_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit:
                raise problem
            return message

        await self._app(scope, counted_receive, send)


class RequestOwner:
    """Tells `livejobs.owners` whose request is served: `.delay()` in it makes their job.

    A sync function of the user's is asked only when a job is enqueued; an async one before each
    request that is not for these endpoints, as there is no waiting inside ``.delay()``. What it
    raises is logged, and the job is nobody's.

    Args:
        own: Where these endpoints are mounted; they name the owner themselves.
        authenticate: The user's function.
    """

    def __init__(self, app: ASGIApp, own: OwnPaths, authenticate: Authenticate) -> None:
        self._app = app
        self._own = own
        self._authenticate = authenticate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or self._is_own(scope):
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        owner: Callable[[], str | None]
        if is_async(self._authenticate):
            known = await self._ask_now(connection)

            def owner() -> str | None:
                return known
        else:
            owner = _Lazily(self._authenticate, connection)
        token = request_owner.set(owner)
        try:
            await self._app(scope, receive, send)
        finally:
            request_owner.reset(token)

    def _is_own(self, scope: Scope) -> bool:
        return self._own.matches(scope)[0] is not Match.NONE

    async def _ask_now(self, connection: HTTPConnection) -> str | None:
        try:
            answer = self._authenticate(connection)
            return _owner_of(await answer if inspect.isawaitable(answer) else answer)
        except Exception as error:
            _log_unknown(error)
            return None


_UNASKED: Final = object()


class _Lazily:
    """The owner of a request, found out when somebody asks for it first."""

    def __init__(self, authenticate: Authenticate, connection: HTTPConnection) -> None:
        self._authenticate = authenticate
        self._connection = connection
        self._owner: Any = _UNASKED

    def __call__(self) -> str | None:
        if self._owner is _UNASKED:
            try:
                self._owner = _owner_of(self._authenticate(self._connection))
            except Exception as error:
                _log_unknown(error)
                self._owner = None
        owner: str | None = self._owner
        return owner


def _owner_of(viewer: Any) -> str | None:
    return getattr(viewer, "owner", None) or None


def _log_unknown(error: Exception) -> None:
    # It may be a 401 for a page that needs no login, so it is no alarm.
    _log.info("the owner of a request is not known: %s", type(error).__name__)
