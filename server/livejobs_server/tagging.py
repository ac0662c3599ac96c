"""Finding jobs by their tags, on both databases."""

from __future__ import annotations

from typing import Final

from sqlalchemy import TableValuedAlias, func, literal, select
from sqlalchemy.sql.expression import ColumnElement

from livejobs.statements import jobs

_EACH_TAG: Final = {"postgresql": "jsonb_each_text", "sqlite": "json_each"}


def tags_of_job(dialect: str) -> TableValuedAlias:
    """A job's tags as rows of `key` and `value`."""
    each = getattr(func, _EACH_TAG[dialect])
    tags: TableValuedAlias = each(jobs.c.tags).table_valued("key", "value").alias("tags")
    return tags


def has_tag(key: str, value: str, dialect: str) -> ColumnElement[bool]:
    """The condition that a job has a tag."""
    tags = tags_of_job(dialect)
    found = select(literal(1)).select_from(tags).where(tags.c.key == key, tags.c.value == value)
    return found.correlate(jobs).exists()
