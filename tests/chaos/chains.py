"""Chains, started by Celery from this process. Importing this needs the app's environment."""

from __future__ import annotations

import logging

from celery import chain
from kombu.exceptions import KombuError

from livejobs import reads
from livejobs.database import get_database
from livejobs.errors import LivejobsError

from .tasks import link

_log = logging.getLogger("chaos")


def start_chain(steps: int) -> list[str] | None:
    """Start a chain; the ids of its steps, or None where it was not accepted for certain.

    Where the database does not answer the broker alone takes a job, and what the broker has is lost
    when it is emptied; nobody is promised more. So only what has a row counts.
    """
    signature = chain(*(link.s(number=number) for number in range(steps)))
    try:
        result = signature.apply_async()
        ids = [result.id]
        while result.parent is not None:
            result = result.parent
            ids.insert(0, result.id)
        row = get_database().read(reads.job(ids[0]))
    except (LivejobsError, KombuError, OSError) as error:
        _log.info("a chain was not started: %s", error)
        return None
    return None if row is None else ids
