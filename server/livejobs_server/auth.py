"""Credentials of a request or a WebSocket, and the viewer they stand for.

They are, in this order: a ticket in the URL (redeemed, it works once), a bearer token or API key
in ``Authorization``, an API key in ``X-API-Key``, on an event stream its own cookie, and where
there is nothing of all that the session of somebody signed in to the pages. Where `mount` was given
a function of the user's, that function takes the place of API keys and sessions; tickets, tokens
and the cookies of streams, which are only ever handed to a viewer that it let in, stay good.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from livejobs.database import AsyncDatabase, get_database
from livejobs.settings import Settings, get_settings

from .keys import KEY_PREFIX, find_key
from .sessions import find_session, session_of
from .tickets import MAX_TICKET_CHARACTERS, find_ticket, redeem_ticket
from .tokens import STREAM_AUDIENCE, sign_viewer, verify_token
from .viewer import READ, Viewer

__all__ = ["Access", "Authenticate", "Viewer", "ask_headers", "is_async"]

Authenticate = Callable[[HTTPConnection], Viewer | Awaitable[Viewer | None] | None]
"""A user's own function; sync ones run in a thread."""

STREAM_COOKIE: Final = "livejobs_stream"
STREAM_COOKIE_SECONDS: Final = 12 * 3600.0
"""How long a page may reconnect to an event stream without a new ticket."""

_KNOWN_BY: Final = "livejobs.known_by"
_OWN: Final = "own"
_SESSION: Final = "session"
_TICKET: Final = "ticket"
"""Kept in the connection's scope: how its viewer was known."""

_DEFAULT_PORTS: Final = {"http": 80, "ws": 80, "https": 443, "wss": 443}


class Access:
    """Decides who is asking.

    Args:
        settings: Secrets and allowed origins.
        database: Keys and tickets.
        authenticate: The user's own function in place of API keys.
    """

    def __init__(
        self,
        settings: Settings,
        database: AsyncDatabase,
        authenticate: Authenticate | None = None,
    ) -> None:
        self.settings = settings
        self.database = database
        self.own = authenticate

    async def authenticate(
        self, connection: HTTPConnection, *, job_id: str | None = None
    ) -> Viewer | None:
        """The viewer a connection's credentials stand for; None: there are none, or wrong ones.

        Args:
            connection: A request or a WebSocket.
            job_id: The job whose event stream is asked for, whose cookie then counts too.

        Raises:
            DatabaseUnavailable: The database is away, and the credentials need it.
        """
        # The cookie first: it needs no database, and a browser that reconnects to an event stream
        # sends the used ticket again.
        viewer = None if job_id is None else self._from_cookie(connection, job_id)
        if viewer is None:
            viewer = await self._presented(connection)
        if viewer is None and self.own is not None:
            viewer = await _ask(self.own, connection)
            connection.scope[_KNOWN_BY] = _OWN
        elif viewer is None and not self.has_credentials(connection):
            viewer = await self._from_session(connection)
            connection.scope[_KNOWN_BY] = _SESSION
        return viewer

    def is_ambient(self, connection: HTTPConnection) -> bool:
        """Whether a browser may have authenticated by itself, for whatever page sent the request.

        That is so for a session, and for all that a user's own function knew the viewer by: it may
        be a cookie.
        """
        return connection.scope.get(_KNOWN_BY) in (_OWN, _SESSION)

    def is_by_ticket(self, connection: HTTPConnection) -> bool:
        """Whether a ticket of its URL authenticated a connection."""
        return connection.scope.get(_KNOWN_BY) == _TICKET

    async def _presented(self, connection: HTTPConnection) -> Viewer | None:
        """The viewer of what a connection shows by itself; the first of its credentials counts."""
        if ticket := connection.query_params.get("ticket"):
            viewer = await self._redeem(ticket)
            if viewer is not None:
                connection.scope[_KNOWN_BY] = _TICKET
            return viewer
        if token := _bearer(connection):
            return await self.authenticate_token(token)
        if key := connection.headers.get("x-api-key"):
            return await self._from_key(key)
        return None

    async def authenticate_token(self, token: str) -> Viewer | None:
        """The viewer a signed token or an API key stands for.

        Raises:
            DatabaseUnavailable: It is an API key, and the database is away.
        """
        if token.startswith(KEY_PREFIX):
            return await self._from_key(token)
        return verify_token(token, self.settings)

    def has_credentials(self, connection: HTTPConnection) -> bool:
        """Whether a connection carries credentials, right or wrong, of a kind known here."""
        return (
            "authorization" in connection.headers
            or "x-api-key" in connection.headers
            or "ticket" in connection.query_params
        )

    def origin_allowed(self, connection: HTTPConnection) -> bool:
        """Whether the page that opened a connection may; programs send no Origin and may."""
        origin = connection.headers.get("origin")
        if origin is None:
            # What a browser sends for a page of another origin without naming it.
            return connection.headers.get("sec-fetch-site") not in ("cross-site", "same-site")
        return "*" in self.settings.allowed_origins or self._is_named(origin, connection)

    def _is_named(self, origin: str, connection: HTTPConnection) -> bool:
        """Whether an origin is the server's own, or one that the settings name."""
        host = connection.headers.get("host", "")
        return origin in self.settings.allowed_origins or _same_origin(origin, host)

    def stream_cookie(
        self, viewer: Viewer, job_id: str, path: str, *, secure: bool = False
    ) -> str | None:
        """The cookie by which an event stream that a ticket opened may reconnect.

        Args:
            viewer: Whom the ticket stood for; the cookie ends when their credentials do.
            job_id: The job watched; the cookie is good for nothing else.
            path: Path of the stream's URL, as the browser sees it.
            secure: The stream came over https.

        Returns:
            A value for ``Set-Cookie``, or None where no secret is set to sign it with.
        """
        if not self.settings.secrets:
            return None
        now = time.time()
        ends = min(viewer.expires_at or float("inf"), now + STREAM_COOKIE_SECONDS)
        limited = Viewer(viewer.owner, frozenset({READ}), frozenset({job_id}), None, ends)
        value = sign_viewer(limited, self.settings, STREAM_AUDIENCE)
        attributes = f"Path={path}; Max-Age={int(ends - now)}; HttpOnly; SameSite=Lax"
        return f"{STREAM_COOKIE}={value}; {attributes}{'; Secure' if secure else ''}"

    async def _from_key(self, key: str) -> Viewer | None:
        if self.own is not None or not key.startswith(KEY_PREFIX):
            return None
        return await self.database.read(find_key(key))

    async def _from_session(self, connection: HTTPConnection) -> Viewer | None:
        secret = session_of(connection)
        if secret is None:
            return None
        origin = connection.headers.get("origin")
        # "*" lets any page in, but not with the cookie of somebody who happens to be signed in.
        if "*" in self.settings.allowed_origins and origin is not None:
            secret = secret if self._is_named(origin, connection) else None
        return None if secret is None else await self.database.read(find_session(secret))

    async def _redeem(self, ticket: str) -> Viewer | None:
        if len(ticket) > MAX_TICKET_CHARACTERS:
            return None
        if not await self.database.read(find_ticket(ticket)):
            return None
        viewer = await self.database.run(redeem_ticket(ticket))
        if viewer is None or (viewer.expires_at or float("inf")) <= time.time():
            return None
        return viewer

    def _from_cookie(self, connection: HTTPConnection, job_id: str) -> Viewer | None:
        cookie = connection.cookies.get(STREAM_COOKIE)
        if not cookie:
            return None
        viewer = verify_token(cookie, self.settings, STREAM_AUDIENCE)
        return viewer if viewer is not None and viewer.jobs == frozenset({job_id}) else None


def ask_headers(connection: HTTPConnection) -> Viewer | None:
    """The viewer of the credentials in a request's headers; sync, it may read the database.

    For code that cannot wait: it tells whose job a ``.delay()`` in a request makes. Where `mount`
    was given a function of the user's, that is asked instead.
    """
    credentials = _bearer(connection) or connection.headers.get("x-api-key", "")
    if credentials.startswith(KEY_PREFIX):
        return get_database().read(find_key(credentials))
    if not credentials and (secret := session_of(connection)) is not None:
        return get_database().read(find_session(secret))
    return verify_token(credentials, get_settings())


def is_async(authenticate: Authenticate) -> bool:
    """Whether a user's function, or callable object, is a coroutine function."""
    called = authenticate if inspect.isroutine(authenticate) else type(authenticate).__call__
    return inspect.iscoroutinefunction(called)


async def _ask(authenticate: Authenticate, connection: HTTPConnection) -> Viewer | None:
    """Call the user's function; one that refuses by 401 or 403 knows no viewer."""
    try:
        if is_async(authenticate):
            answer = authenticate(connection)
        else:
            answer = await run_in_threadpool(authenticate, connection)
        viewer = await answer if inspect.isawaitable(answer) else answer
    except HTTPException as error:
        if error.status_code in (401, 403):
            return None
        raise
    if viewer is not None and not isinstance(viewer, Viewer):
        raise TypeError(
            "The function given to mount(authenticate=…) must return a livejobs_server.Viewer or "
            f"None, not {type(viewer).__name__}."
        )
    if viewer is not None and not (viewer.owner or viewer.is_limited or viewer.is_admin):
        return None  # nobody; jobs that are nobody's are not theirs
    return viewer


def _bearer(connection: HTTPConnection) -> str | None:
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def _same_origin(origin: str, host: str) -> bool:
    try:
        page = urlsplit(origin)
        server = urlsplit(f"//{host}")
        page_port = page.port or _DEFAULT_PORTS.get(page.scheme)
        # The scheme is not compared: behind a proxy the server does not see the browser's.
        server_port = server.port or _DEFAULT_PORTS.get(page.scheme)
    except ValueError:
        return False
    return (
        page.hostname is not None and page.hostname == server.hostname and page_port == server_port
    )
