"""API keys: ``lj_<id>_<secret>``, of which the database keeps the id and a hash.

Each function takes the sync `Database` of the command line, and answers, or the `AsyncDatabase` of
a server, and is awaited; both run the same program.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Awaitable, Generator, Iterable, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeVar, overload

from sqlalchemy import Row, Table, and_, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql.base import Executable
from sqlalchemy.sql.expression import ColumnElement

from livejobs.database import AsyncDatabase, Database
from livejobs.models import SCHEMA_TOKEN, ApiKey, db_now
from livejobs.statements import Batch, Rows

from .viewer import SCOPES, Viewer

T = TypeVar("T")
Steps = Generator[Executable | Batch, Rows, T]

KEY_PREFIX: Final = "lj_"
_KEY: Final = re.compile(rf"{KEY_PREFIX}([0-9a-f]{{12}})_([A-Za-z0-9_-]{{43}})")
keys: Final[Table] = ApiKey.metadata.tables[f"{SCHEMA_TOKEN}.livejobs_api_keys"]
_NO_SECRET: Final = hashlib.sha256(secrets.token_bytes(32)).hexdigest()


class NewKey(NamedTuple):
    """A key just made.

    Attributes:
        key: The key itself; this is the only time that it is seen.
        key_id: Its id, to list and revoke it by.
    """

    key: str
    key_id: str


class KeyRow(NamedTuple):
    """A key as it is listed; the key itself is not known any more."""

    key_id: str
    owner: str
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


@overload
def create_key(
    database: Database, owner: str, scopes: Iterable[str], expires: datetime | None = None
) -> NewKey: ...
@overload
def create_key(
    database: AsyncDatabase, owner: str, scopes: Iterable[str], expires: datetime | None = None
) -> Awaitable[NewKey]: ...
def create_key(
    database: Database | AsyncDatabase,
    owner: str,
    scopes: Iterable[str],
    expires: datetime | None = None,
) -> NewKey | Awaitable[NewKey]:
    """Make a key.

    Args:
        owner: Whose jobs it is good for.
        scopes: Some of read, write and admin.
        expires: When it ends; None: it does not.

    Raises:
        ValueError: An empty owner, no scope or an unknown one.
        DatabaseUnavailable: The database is away.
    """
    wanted = sorted(set(scopes))
    if not owner:
        raise ValueError("a key needs an owner")
    if not wanted or not SCOPES.issuperset(wanted):
        raise ValueError(f"a key needs some of the scopes {', '.join(sorted(SCOPES))}")
    return database.run(_create(owner, wanted, expires))


@overload
def list_keys(database: Database, owner: str | None = None) -> list[KeyRow]: ...
@overload
def list_keys(database: AsyncDatabase, owner: str | None = None) -> Awaitable[list[KeyRow]]: ...
def list_keys(
    database: Database | AsyncDatabase, owner: str | None = None
) -> list[KeyRow] | Awaitable[list[KeyRow]]:
    """All keys, the newest first; with `owner` only theirs.

    Raises:
        DatabaseUnavailable: The database is away.
    """
    return database.read(_list(owner))


@overload
def revoke_key(database: Database, key_id: str) -> bool: ...
@overload
def revoke_key(database: AsyncDatabase, key_id: str) -> Awaitable[bool]: ...
def revoke_key(database: Database | AsyncDatabase, key_id: str) -> bool | Awaitable[bool]:
    """End a key now; False where there is none of this id that still works.

    Raises:
        DatabaseUnavailable: The database is away.
    """
    return database.run(_revoke(key_id))


def find_key(key: str) -> Steps[Viewer | None]:
    """A program that reads the viewer a key stands for; None where it is wrong or has ended."""
    parts = _KEY.fullmatch(key)
    if parts is None:
        return None
    key_id, secret = parts.groups()
    rows = yield select(keys).where(keys.c.id == key_id, key_works())
    # An unknown id is compared too, so that the time taken tells nothing about ids.
    known = rows[0].hash if rows else _NO_SECRET
    if not hmac.compare_digest(hash_secret(secret), known) or not rows:
        return None
    return _viewer(rows[0])


def key_works() -> ColumnElement[bool]:
    """The condition that a row of `keys` has neither been revoked nor run out."""
    return and_(
        keys.c.revoked_at.is_(None),
        or_(keys.c.expires_at.is_(None), keys.c.expires_at > db_now()),
    )


def key_id_of(key: str) -> str | None:
    """The id that a key names; None: it is no key."""
    parts = _KEY.fullmatch(key)
    return None if parts is None else parts.group(1)


def hash_secret(secret: str) -> str:
    """What the database keeps of a secret: SHA-256, hex.

    The secrets are 256 random bits, so nothing slower is needed to keep them from being guessed.
    """
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _create(owner: str, scopes: Sequence[str], expires: datetime | None) -> Steps[NewKey]:
    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    yield insert(keys).values(
        id=key_id,
        hash=hash_secret(secret),
        owner=owner,
        scopes=list(scopes),
        created_at=db_now(),
        expires_at=expires,
    )
    return NewKey(f"{KEY_PREFIX}{key_id}_{secret}", key_id)


def _list(owner: str | None) -> Steps[list[KeyRow]]:
    statement = select(keys).order_by(keys.c.created_at.desc(), keys.c.id)
    if owner is not None:
        statement = statement.where(keys.c.owner == owner)
    rows = yield statement
    return [
        KeyRow(row.id, row.owner, tuple(row.scopes), row.created_at, row.expires_at, row.revoked_at)
        for row in rows
    ]


def _revoke(key_id: str) -> Steps[bool]:
    rows = yield (
        update(keys)
        .where(keys.c.id == key_id, keys.c.revoked_at.is_(None))
        .values(revoked_at=db_now())
        .returning(keys.c.id)
    )
    return bool(rows)


def _viewer(row: Row[Any]) -> Viewer:
    return Viewer(
        owner=row.owner,
        scopes=frozenset(row.scopes),
        expires_at=None if row.expires_at is None else row.expires_at.timestamp(),
    )
