"""Idempotency keys: a creating request that is repeated gets the first one's answer.

The first request with a key writes a row "in flight" and fills in the answer when it is done. A
server that dies in between leaves that row; after a minute the next repetition takes it over, with
the `nonce` of the first. What a request creates is named after the nonce, so that what the dead
server did create is found again and not made twice.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
from collections.abc import AsyncIterator, Generator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, TypeVar
from uuid import uuid4

from fastapi import Depends, Header
from sqlalchemy import Table, delete, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql.base import Executable

from livejobs.database import AsyncDatabase
from livejobs.errors import DatabaseUnavailable
from livejobs.models import SCHEMA_TOKEN, Answer, db_now
from livejobs.statements import Batch, Rows

from .problems import ApiProblem

T = TypeVar("T")
Steps = Generator[Executable | Batch, Rows, T]

KEPT_SECONDS: Final = 24 * 3600.0
IN_FLIGHT_SECONDS: Final = 60.0
"""A request that took longer than this is taken for dead, and its repetition does the work."""

_answers: Final[Table] = Answer.metadata.tables[f"{SCHEMA_TOKEN}.livejobs_answers"]
_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")
_log = logging.getLogger("livejobs.api")


@dataclass(slots=True)
class Once:
    """A creating request.

    Attributes:
        nonce: Names what it creates; the same in each execution of the same request.
        answer: The first request's answer, to be given again; None: this one does the work.
        made: The answer to keep, set by who did the work.
    """

    nonce: str = field(default_factory=lambda: uuid4().hex)
    answer: dict[str, Any] | None = None
    made: dict[str, Any] | None = None


def fingerprint(*parts: Any) -> str:
    """SHA-256, hex, of what tells one request from another; `parts` are JSON data."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _header_key(
    key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            description="Text of the client's own, up to 255 visible ASCII characters. A repeated "
            "request with the same key and content gets the first answer, for 24 hours.",
        ),
    ] = None,
) -> str | None:
    if key is not None and not _KEY.fullmatch(key):
        raise ApiProblem(
            "invalid_request",
            "Idempotency-Key: up to 255 visible ASCII characters without spaces",
            errors=[{"field": "Idempotency-Key", "message": "not visible ASCII, or too long"}],
        )
    return key


IdempotencyKey = Annotated[str | None, Depends(_header_key)]


@contextlib.asynccontextmanager
async def once(
    database: AsyncDatabase, owner: str, key: str | None, request_hash: str
) -> AsyncIterator[Once]:
    """Serve a creating request at most once: ``async with once(…) as request``.

    Where `answer` is set, it is given again. Else the body does the work and sets `made`. An error
    in the body lets the next repetition do the work at once.

    Args:
        owner: Whose key it is.
        key: The `Idempotency-Key`; None: the request is not to be told from others.
        request_hash: `fingerprint` of the request.

    Raises:
        ApiProblem: The key came with something else, or its first request is still in flight.
        DatabaseUnavailable: The database is away.
    """
    if key is None:
        yield Once()
        return
    request = await database.run(_begin(owner, key, request_hash))
    if request.answer is not None:
        yield request
        return
    try:
        yield request
    except BaseException:
        await _quietly(database, _release(owner, key, request.nonce))
        raise
    if request.made is not None:
        await _quietly(database, _finish(owner, key, request.made))


async def _quietly(database: AsyncDatabase, program: Steps[None]) -> None:
    """Run a program whose failure must not hide what the request came to."""
    try:
        await database.run(program)
    except DatabaseUnavailable as error:
        _log.warning("an idempotency key stays in flight for a minute: %s", error)


def _begin(owner: str, key: str, request_hash: str) -> Steps[Once]:
    yield delete(_answers).where(_answers.c.created_at <= db_now(-KEPT_SECONDS))
    new = Once()
    rows = yield (
        insert(_answers)
        .values(
            owner=owner,
            key=key,
            request_hash=request_hash,
            headers={"nonce": new.nonce},
            created_at=db_now(),
        )
        .on_conflict_do_nothing()
        .returning(_answers.c.key)
    )
    if rows:
        return new
    mine = (_answers.c.owner == owner, _answers.c.key == key)
    rows = yield (
        update(_answers)
        .where(
            *mine,
            _answers.c.request_hash == request_hash,
            _answers.c.status.is_(None),
            _answers.c.created_at <= db_now(-IN_FLIGHT_SECONDS),
        )
        .values(created_at=db_now())
        .returning(_answers.c.headers)
    )
    if rows:
        return Once(nonce=rows[0].headers["nonce"])
    rows = yield select(_answers).where(*mine)
    if not rows or (rows[0].request_hash == request_hash and rows[0].status is None):
        raise ApiProblem("request_in_flight", headers={"Retry-After": "1"})
    if rows[0].request_hash != request_hash:
        raise ApiProblem("idempotency_mismatch")
    return Once(answer=json.loads(rows[0].body))


def _finish(owner: str, key: str, answer: Mapping[str, Any]) -> Steps[None]:
    yield (
        update(_answers)
        .where(_answers.c.owner == owner, _answers.c.key == key)
        .values(status=202, headers=None, body=json.dumps(answer))
    )


def _release(owner: str, key: str, nonce: str) -> Steps[None]:
    """Let the next repetition take over at once, under the same nonce.

    The row is not deleted: what failed may have been committed all the same.
    """
    yield (
        update(_answers)
        .where(_answers.c.owner == owner, _answers.c.key == key, _answers.c.status.is_(None))
        .values(created_at=db_now(-IN_FLIGHT_SECONDS), headers={"nonce": nonce})
    )
