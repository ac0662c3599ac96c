"""Forgets a person: everything of an owner is removed, at once and for good."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

from sqlalchemy import Table, Text, cast, delete, select, update
from sqlalchemy.sql.base import Executable

from .cleanup import BATCH, Counts, delete_some, forget_jobs, in_batches, remove_jobs, remove_mails
from .database import Database
from .documents import documents
from .live import Live
from .mails import mails
from .models import SCHEMA_TOKEN, Answer, ApiKey, SessionRow, Ticket
from .settings import Settings
from .statements import Batch, Rows, deletions, jobs, webhooks
from .uploads import remove_files, uploads
from .usage import batches, usage

Steps = Generator[Executable | Batch, Rows, Any]


def _table(model: type[Any]) -> Table:
    table: Table = model.metadata.tables[f"{SCHEMA_TOKEN}.{model.__tablename__}"]
    return table


_keys: Final = _table(ApiKey)
_answers: Final = _table(Answer)
_people: Final = {"sessions": _table(SessionRow), "tickets": _table(Ticket)}


def purge(database: Database, live: Live, settings: Settings, owner: str) -> Counts:
    """Remove all that is an owner's: credentials, jobs, mails, documents and uploads.

    What was used is kept, without the person. Jobs that still run are removed too: their workers
    are told that they have lost them. Credentials go first, so that nothing new is made meanwhile.

    Args:
        owner: Not empty: jobs of nobody are not a person's.

    Returns:
        How many of each kind were removed.

    Raises:
        ValueError: The owner is empty.
        DatabaseUnavailable: The database is away; what is left is for another call.
    """
    if not owner:
        raise ValueError("an owner is needed: jobs without one are nobody's")

    def rows_of(table: Table) -> int:
        batches = in_batches(database, lambda: delete_some(table, table.c.owner == owner))
        return sum(map(len, batches))

    counts = {"keys": rows_of(_keys)}
    for kind, table in _people.items():
        counts[kind] = _remove_people(database, table, owner)
    # Before their jobs, so that nobody is told of the ends of those that still run.
    counts["webhooks"] = rows_of(webhooks)
    counts["jobs"] = 0
    for rows, names in in_batches(database, lambda: remove_jobs(jobs.c.owner == owner)):
        forget_jobs(rows, names, live, settings)
        counts["jobs"] += len(rows)
    counts["mails"] = remove_mails(database, mails.c.owner == owner, settings)
    counts["documents"] = rows_of(documents)
    counts["uploads"] = 0
    for rows in in_batches(database, lambda: delete_some(uploads, uploads.c.owner == owner)):
        remove_files([row.name for row in rows], settings)
        counts["uploads"] += len(rows)
    counts["answers"] = rows_of(_answers)
    counts["usage_made_nobodys"] = database.run(_keep_usage(owner))
    rows_of(deletions)
    return counts


def _keep_usage(owner: str) -> Steps:
    """What was used is kept, and paid for, but nobody is named; an owner has each key once."""
    nobody = "forgotten:" + cast(usage.c.id, Text)
    # The batches first, as who decides about one does, so that neither waits for the other.
    yield update(batches).where(batches.c.owner == owner).values(owner="")
    kept = yield (
        update(usage).where(usage.c.owner == owner).values(owner="", key=nobody)
    ).returning(usage.c.id)
    return len(kept)


def _remove_people(database: Database, table: Table, owner: str) -> int:
    """Rows whose `viewer` is the owner; it is JSON text, so it is read here."""
    removed, after = 0, ""
    while rows := database.read(_viewers_after(table, after)):
        after = rows[-1].hash
        found = [row.hash for row in rows if row.viewer.get("owner") == owner]
        if found:
            database.run(_steps(delete(table).where(table.c.hash.in_(found))))
            removed += len(found)
    return removed


def _viewers_after(table: Table, after: str) -> Steps:
    statement = select(table.c.hash, table.c.viewer).where(table.c.hash > after)
    return (yield statement.order_by(table.c.hash).limit(BATCH))


def _steps(statement: Executable) -> Steps:
    return (yield statement)
