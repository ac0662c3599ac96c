"""Sessions: people signed in to the pages, each by a random cookie of which a hash is kept.

A session is opened by an API key, or by a ticket for signing in, which `livejobs up` prints. It
ends by itself, by signing out, and with the API key behind it.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Generator
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, TypeVar

from sqlalchemy import Row, Select, Table, and_, delete, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql.base import Executable
from starlette.requests import HTTPConnection

from livejobs.models import SCHEMA_TOKEN, SessionRow, db_now
from livejobs.statements import Batch, Rows, unlocked

from .keys import hash_secret, key_works, keys
from .viewer import Viewer

T = TypeVar("T")
Steps = Generator[Executable | Batch, Rows, T]

SESSION_COOKIE: Final = "livejobs_session"
MAX_SESSION_CHARACTERS: Final = 128
_sessions: Final[Table] = SessionRow.metadata.tables[f"{SCHEMA_TOKEN}.livejobs_sessions"]


class SignIn(NamedTuple):
    """Somebody who may open a session.

    Attributes:
        viewer: Who they are; not limited to certain jobs.
        key_id: The API key by which they are known; None: it is none.
    """

    viewer: Viewer
    key_id: str | None


class NewSession(NamedTuple):
    """A session just opened.

    Attributes:
        secret: What goes into the cookie; this is the only time that it is seen.
        viewer: Who is signed in, and until when.
    """

    secret: str
    viewer: Viewer


def open_session(sign_in: SignIn, ttl_seconds: float) -> Steps[NewSession]:
    """A program that opens a session; it clears away those that have ended."""
    secret = secrets.token_urlsafe(32)
    ended = unlocked(_sessions.c.hash, _sessions.c.expires_at < db_now())
    yield delete(_sessions).where(ended)
    yield insert(_sessions).values(
        hash=hash_secret(secret),
        viewer=dataclasses.replace(sign_in.viewer, expires_at=None).to_json(),
        key_id=sign_in.key_id,
        created_at=db_now(),
        expires_at=db_now(ttl_seconds),
    )
    rows = yield _select(secret)
    if not rows:
        # The key ended in this moment: the session is as good as signed out.
        return NewSession(secret, dataclasses.replace(sign_in.viewer, expires_at=0.0))
    return NewSession(secret, _viewer(rows[0]))


def find_session(secret: str) -> Steps[Viewer | None]:
    """A program that reads who is signed in by a cookie; None: nobody, or not any more."""
    rows = yield _select(secret)
    return _viewer(rows[0]) if rows else None


def close_session(secret: str) -> Steps[bool]:
    """A program that signs out; False where nobody was signed in by this cookie."""
    rows = yield (
        delete(_sessions).where(_sessions.c.hash == hash_secret(secret)).returning(_sessions.c.hash)
    )
    return bool(rows)


def _select(secret: str) -> Select[Any]:
    """The row of a session that is good, with the end of the key behind it."""
    key_is_good = and_(keys.c.id.is_not(None), key_works())
    return (
        select(
            _sessions.c.viewer, _sessions.c.expires_at, keys.c.expires_at.label("key_expires_at")
        )
        .select_from(_sessions.outerjoin(keys, keys.c.id == _sessions.c.key_id))
        .where(
            _sessions.c.hash == hash_secret(secret),
            _sessions.c.expires_at > db_now(),
            or_(_sessions.c.key_id.is_(None), key_is_good),
        )
    )


def _viewer(row: Row[Any]) -> Viewer:
    ends: datetime = row.expires_at
    if row.key_expires_at is not None:
        ends = min(ends, row.key_expires_at)
    return dataclasses.replace(Viewer.from_json(row.viewer), expires_at=ends.timestamp())


# -- the cookie ------------------------------------------------------------------------------------


def cookie_name(connection: HTTPConnection) -> str:
    """Name of the cookie: with the port of the URL where it has one.

    Browsers do not tell cookies of one host's ports apart, and two servers on one machine shall not
    sign each other's people out.
    """
    port = connection.headers.get("host", "").rpartition(":")[2]
    return f"{SESSION_COOKIE}_{port}" if port.isascii() and port.isdigit() else SESSION_COOKIE


def session_of(connection: HTTPConnection) -> str | None:
    """The secret of a connection's session cookie; None where there is none."""
    secret = connection.cookies.get(cookie_name(connection), "")
    return secret if 0 < len(secret) <= MAX_SESSION_CHARACTERS else None


def cookie_header(connection: HTTPConnection, session: NewSession) -> str:
    """The value for ``Set-Cookie`` that signs in."""
    ends = datetime.fromtimestamp(session.viewer.expires_at or 0.0, UTC)
    seconds = max(0, int((ends - datetime.now(UTC)).total_seconds()))
    return _cookie(connection, session.secret, seconds)


def expired_cookie_header(connection: HTTPConnection) -> str:
    """The value for ``Set-Cookie`` by which a browser forgets the session."""
    return _cookie(connection, "", 0)


def _cookie(connection: HTTPConnection, value: str, seconds: int) -> str:
    path = connection.scope.get("root_path", "").rstrip("/") + "/"
    secure = "; Secure" if connection.url.scheme in ("https", "wss") else ""
    attributes = f"Path={path}; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}"
    return f"{cookie_name(connection)}={value}; {attributes}"
