"""Ends children at random, against others that do the same: ``python -m`` this module.

Arguments: the parent's id, a seed, and how many things to do.
"""

from __future__ import annotations

import random
import sys
import uuid

from sqlalchemy import select

from livejobs import attempts, children, transitions
from livejobs.database import Database, get_database
from livejobs.statements import JobRow, jobs

ERROR = {"type": "ValueError", "message": "it broke"}


def end(database: Database, child: JobRow, dice: random.Random) -> None:
    """Do one of the things that may be done to a child in its state."""
    if child.status == "pending":
        if dice.random() < 0.1:
            database.run(transitions.cancel(child.id))
        else:
            database.run(attempts.claim(child.id, child.attempt, uuid.uuid4().hex, 30.0))
    elif child.status == "processing":
        ends = (
            attempts.complete(child.id, child.attempt, 1),
            attempts.fail(child.id, child.attempt, ERROR),
            attempts.retry(child.id, child.attempt, delay=0.0, error=ERROR, message=None),
            attempts.cancelled(child.id, child.attempt),
        )
        database.run(dice.choice(ends))
    elif child.status != "completed":
        database.run(transitions.requeue(child.id))
    elif dice.random() < 0.05:
        database.run(transitions.remove(child.id))


def main() -> None:
    """Do so many things."""
    parent, seed, things = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    database, dice = get_database(), random.Random(seed)
    for _ in range(things):
        if dice.random() < 0.2:
            database.run(children.count(parent, at_once=dice.random() < 0.5))
            continue
        with database.engine.connect() as connection:
            mine = select(jobs).where(jobs.c.parent_id == parent)
            found = connection.execute(mine.order_by(jobs.c.ordinal)).all()
        if found:
            end(database, dice.choice(found), dice)


if __name__ == "__main__":
    main()
