"""`usage.flush`: what customers have used goes to Stripe, each usage exactly once.

A batch is committed under its identifier before Stripe is called, and marked after its answer.
Whatever dies or breaks in between, a later flush sends the same identifier again, and Stripe
refuses what it has already. Of errors there are three kinds: Stripe has it, Stripe will never take
it, and all others, after which the batch is tried again.
"""

from __future__ import annotations

import logging
from typing import Any, Final

import stripe
from celery import Task
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from livejobs import current_job
from livejobs.database import get_database
from livejobs.errors import DatabaseUnavailable
from livejobs.settings import Settings, get_settings
from livejobs.usage_batches import (
    Batch,
    Outlook,
    delivered,
    outlook,
    postponed,
    refused,
    take,
)
from livejobs_worker.app import app

CALL_SECONDS: Final = 30.0
"""Longest wait for an answer; less than `usage_batches.LEASE_SECONDS`."""
ALREADY_THERE: Final = ("resource_already_exists", "duplicate_meter_event")

_log = logging.getLogger("livejobs.usage")


@app.task(name="usage.flush", bind=True, autoretry_for=(DatabaseUnavailable,), retry_backoff=True)
def flush(self: Task) -> dict[str, Any]:
    """Send the usage that is new to Stripe; beat calls it every five minutes.

    Two at once share the work. Without ``STRIPE_API_KEY`` nothing is sent, and the result says so.

    Returns:
        `batches` and `usages` that Stripe has now, what is `pending`, `too_old`, `failed` and
        `held`, and where not all was sent, `why`.

    Raises:
        DatabaseUnavailable: The database is away; the task tries again.
    """
    settings, database = get_settings(), get_database()
    sent = usages = 0
    if settings.stripe_api_key is not None:
        client = stripe_client(settings)
        while (batch := database.run(take())) is not None:
            if not batch.expired and send(client, batch):
                sent += 1
                usages += batch.events
                current_job().progress(sent, message=f"{batch.customer}: {batch.meter}")
            # Here, where nothing is in doubt.
            current_job().check()
    return _result(sent, usages, database.read(outlook()), settings)


def stripe_client(settings: Settings) -> stripe.StripeClient:
    """Stripe's own client, with nothing of it global: the rest of the process may have another."""
    assert settings.stripe_api_key is not None
    return stripe.StripeClient(
        settings.stripe_api_key.get_secret_value(),
        base_addresses={"api": settings.stripe_api_base.rstrip("/")},
        http_client=stripe.RequestsClient(timeout=CALL_SECONDS),
        # None by itself: of several calls the last answer does not say what became of the first.
        max_network_retries=0,
    )


def send(client: stripe.StripeClient, batch: Batch) -> bool:
    """Send a batch and mark what became of it; whether Stripe has it now."""
    database = get_database()
    try:
        create(client, batch)
    except stripe.InvalidRequestError as error:
        if not is_there_already(error, batch):
            _log.warning("Stripe refuses batch %s of usage: %s", batch.id, said_by(error))
            database.run(refused(batch, said_by(error)))
            return False
    except stripe.StripeError as error:
        _log.info("batch %s of usage waits: %s", batch.id, said_by(error))
        program = postponed(
            batch, said_by(error), seconds=pause_of(error), doubtful=may_have_arrived(error)
        )
        database.run(program)
        return False
    database.run(delivered(batch))
    return True


def create(client: stripe.StripeClient, batch: Batch) -> None:
    """One meter event for the batch."""
    client.v1.billing.meter_events.create(
        {
            "event_name": batch.meter,
            "payload": {"stripe_customer_id": batch.customer, "value": str(batch.value)},
            "identifier": batch.id,
            "timestamp": int(batch.at.timestamp()),
        },
        # Another one for each call: by the same one Stripe repeats its answer, a 500 too. That the
        # event counts once is the identifier's part.
        {"idempotency_key": f"{batch.id}.{batch.tries}"},
    )


def is_there_already(error: stripe.InvalidRequestError, batch: Batch) -> bool:
    """Whether Stripe refuses the batch because an earlier call has brought it."""
    if error.code in ALREADY_THERE:
        return True
    said = error.user_message or ""
    return "already exists" in said and batch.id in said


def may_have_arrived(error: stripe.StripeError) -> bool:
    """Whether Stripe may have taken the event although the call ended with `error`."""
    if isinstance(
        error, stripe.RateLimitError | stripe.AuthenticationError | stripe.PermissionError
    ):
        return False
    if isinstance(error, stripe.APIConnectionError):
        return not _had_no_connection(error.__cause__)
    return True


def _had_no_connection(error: BaseException | None) -> bool:
    cause = error.args[0] if error is not None and error.args else None
    return isinstance(getattr(cause, "reason", None), NewConnectionError | ConnectTimeoutError)


def pause_of(error: stripe.StripeError) -> float | None:
    """The seconds for which Stripe asks to be left alone; None: it does not say."""
    given = error.headers.get("retry-after", "") if error.headers else ""
    return float(given) if given.isdecimal() else None


def said_by(error: stripe.StripeError) -> str:
    """An error in a line, for people."""
    what = error.code or type(error).__name__
    message = " ".join((error.user_message or "").split())
    return f"{error.http_status or 'no answer'} {what}: {message}"


def _result(sent: int, usages: int, left: Outlook, settings: Settings) -> dict[str, Any]:
    """The result of the job, with its reasons in the log, too."""
    job, why = current_job(), None
    if settings.stripe_api_key is None:
        why = "STRIPE_API_KEY is not set: usage is kept, and nothing is sent."
    elif left.waits_until is not None:
        why = f"To be tried again at {left.waits_until:%Y-%m-%d %H:%M} UTC. {left.error}"
    if why is not None:
        job.log(why, level="warning")
    for number, what in (
        (left.too_old, "usages are older than the 35 days that Stripe takes"),
        (left.failed, "batches were refused by Stripe"),
        (left.held, "batches may have arrived or not: a person has to look"),
    ):
        if number:
            job.log(f"{number} {what}; see GET /v1/usage/batches", level="warning")
    return {
        "batches": sent,
        "usages": usages,
        "pending": left.pending,
        "too_old": left.too_old,
        "failed": left.failed,
        "held": left.held,
        "why": why,
    }
