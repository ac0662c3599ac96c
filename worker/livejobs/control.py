"""Commands of our own to all workers, over the broker: what is sent, and what comes back.

`commands` is the workers' side. Celery's revoke is never used: it leaves the id in every worker's
memory, and a job that a person runs again would be dropped there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celery import Celery

END = "livejobs_end"
STACK = "livejobs_stack"


def ask_to_end(app: Celery, claims: Mapping[str, str], over: bool) -> None:
    """Ask the workers to end the processes of jobs that do not end by themselves.

    Args:
        claims: Job ids, each with the claim that is meant.
        over: The jobs have failed, as they ran for too long; else they are to be cancelled.

    Raises:
        kombu.exceptions.KombuError, OSError: The broker did not take it.
    """
    with app.connection_for_write() as connection:
        arguments = {"claims": dict(claims), "over": over}
        app.control.broadcast(END, arguments=arguments, connection=connection)


def ask_for_stack(app: Celery, job_id: str, claim: str, seconds: float) -> dict[str, Any] | None:
    """Ask the workers where the code of a job stands, and wait for the answers.

    Returns:
        ``worker`` (its Celery name), ``pid`` and ``stack`` (text, None where it cannot be shown);
        None: no worker runs that claim, or none answered in time.

    Raises:
        kombu.exceptions.KombuError, OSError: The broker does not answer.
    """
    arguments = {"job_id": job_id, "claim": claim}
    with app.connection_for_write() as connection:
        answers = app.control.broadcast(
            STACK, arguments=arguments, connection=connection, reply=True, timeout=seconds
        )
    for answer in answers or ():
        for worker, found in answer.items():
            if isinstance(found, dict) and "pid" in found:
                return {"worker": worker, **found}
    return None


def ask_for_queues(app: Celery, seconds: float) -> dict[str, list[str]]:
    """Ask the workers which queues they take from.

    Returns:
        Names of workers, each with the names of its queues.

    Raises:
        kombu.exceptions.KombuError, OSError: The broker does not answer.
    """
    with app.connection_for_write() as connection:
        found = app.control.inspect(timeout=seconds, connection=connection).active_queues()
    return {worker: [queue["name"] for queue in queues] for worker, queues in (found or {}).items()}
