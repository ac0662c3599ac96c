"""Usage that is recorded and flushed, and time that passes."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import func, select, update

from livejobs import record_usage
from livejobs.database import Database
from livejobs.usage import batches, usage
from livejobs_worker.usage import flush

from .stripe_server import StripeServer


def used(customer: str = "cus_1", value: int = 1, *, meter: str = "tokens", **options: Any) -> None:
    """Record usage under a key of its own."""
    assert record_usage(customer, meter, value, key=uuid4().hex, **options)


def flushed() -> dict[str, Any]:
    """A flush in this process; its result."""
    result: dict[str, Any] = flush.run()
    return result


def pass_time(database: Database, stripe: StripeServer, seconds: float) -> None:
    """Let time pass for all batches, and for what Stripe remembers."""
    shift = timedelta(seconds=seconds)
    stripe.pass_time(seconds)
    with database.begin() as connection:
        for row in connection.execute(select(batches).where(batches.c.status == "open")).all():
            since = row.in_doubt_since
            connection.execute(
                update(batches)
                .where(batches.c.id == row.id)
                .values(
                    due_at=row.due_at - shift,
                    in_doubt_since=None if since is None else since - shift,
                )
            )


def batch_rows(database: Database) -> list[Any]:
    """All batches, the oldest first."""
    with database.begin() as connection:
        return list(connection.execute(select(batches).order_by(batches.c.created_at)).all())


def recorded(database: Database) -> Counter[tuple[str, str]]:
    """What was recorded for each customer and meter."""
    query = select(usage.c.customer, usage.c.meter, func.sum(usage.c.value).label("value"))
    with database.begin() as connection:
        rows = connection.execute(query.group_by(usage.c.customer, usage.c.meter))
        return Counter({(row.customer, row.meter): int(row.value) for row in rows})
