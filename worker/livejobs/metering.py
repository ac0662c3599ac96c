"""`record_usage`: what a customer has used, in a transaction of its own or in the caller's."""

from __future__ import annotations

import asyncio
from datetime import datetime

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session

from .database import execute, execute_async, get_database, schemas
from .owners import resolve_owner
from .settings import get_settings
from .usage import NewUsage, record


def record_usage(
    customer: str,
    meter: str,
    value: int,
    at: datetime | None = None,
    *,
    key: str,
    owner: str | None = None,
    session: Session | Connection | None = None,
) -> bool:
    """Record that a customer has used something; it is billed once, whatever happens.

    Args:
        customer: Stripe's id of the customer, ``cus_…``.
        meter: The event name of a meter of yours.
        value: A whole number; negative takes back what was too much.
        at: When, with a time zone; None: now.
        key: Names this usage: recorded again with the same key it counts once. An owner has each
            key once.
        owner: Whose it is in `GET /v1/usage`; by default found out as for jobs.
        session: It counts if this session's or connection's transaction is committed; None: a
            transaction of its own.

    Returns:
        False if it was recorded before.

    Raises:
        UsageConflict: The key came before with another usage.
        ValueError: The usage cannot be taken.
        DatabaseUnavailable: Without `session`: the database is away. Record it again with its key.
    """
    new = _new(customer, meter, value, at, key, owner)
    if session is None:
        return get_database().run(record(new))
    connection = session.connection() if isinstance(session, Session) else session
    return execute(connection, record(new), _options())


async def record_usage_async(
    customer: str,
    meter: str,
    value: int,
    at: datetime | None = None,
    *,
    key: str,
    owner: str | None = None,
    session: AsyncSession | AsyncConnection | None = None,
) -> bool:
    """`record_usage` for async code."""
    new = _new(customer, meter, value, at, key, owner)
    if session is None:
        return await asyncio.to_thread(get_database().run, record(new))
    connection = await session.connection() if isinstance(session, AsyncSession) else session
    return await execute_async(connection, record(new), _options())


def _new(
    customer: str, meter: str, value: int, at: datetime | None, key: str, owner: str | None
) -> NewUsage:
    whose = resolve_owner(owner)
    return NewUsage(customer=customer, meter=meter, value=value, at=at, key=key, owner=whose)


def _options() -> dict[str, object]:
    return {"schema_translate_map": schemas(get_settings())}
