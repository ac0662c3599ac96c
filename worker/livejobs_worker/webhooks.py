"""`livejobs.webhook`: tells somebody else's server that a job is over, until it has heard it.

The job is made with the end that it tells of, see `livejobs.webhooks`: what is sent, and the id by
which a receiver knows it again, are the same in each try. It is signed as Standard Webhooks says,
https://www.standardwebhooks.com, and sent by `courier`.
"""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from celery import Task, shared_task
from standardwebhooks import Webhook

from livejobs import JobTask, Settings, __version__, current_job, get_settings
from livejobs.claims import persist
from livejobs.database import get_database
from livejobs.errors import WebhookError
from livejobs.statements import WEBHOOK_TASK
from livejobs.webhook_settings import owner_secret
from livejobs.webhook_urls import parse
from livejobs.webhooks import disable_default

from .courier import Answer, carry

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
PAUSES: Final = (5.0, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 8 * HOUR, 8 * HOUR)
"""Before each further try, in seconds: together they last a day."""
JITTER: Final = 0.1
"""By so much of itself a pause may be longer, so that not all come back at once."""
GONE: Final = 410
HEEDED: Final = (429, 503)
"""With these a receiver may say when to come back."""


@shared_task(
    name=WEBHOOK_TASK,
    base=JobTask,
    bind=True,
    max_retries=len(PAUSES),
    acks_late=True,
    on_lost="retry",
)
def send(self: Task, webhook_id: str, url: str, event: str) -> dict[str, int]:
    """Send a webhook; where it is not taken, try again later.

    Args:
        webhook_id: What the receiver knows it by, the same in each try.
        url: Where to.
        event: The body.

    Returns:
        The HTTP status of the answer.

    Raises:
        WebhookError: It was not taken, and is not tried again.
    """
    job, settings, host = current_job(), get_settings(), parse(url).host
    job.progress(stage="send", message=f"try {self.request.retries + 1}, {host}")
    headers = signed(webhook_id, event, settings, job.owner)
    try:
        answer = carry(url, headers, event.encode(), settings.webhook_networks)
    except WebhookError as error:
        if error.code != "webhook_unreachable":
            raise  # it would be the same the next time
        raise try_later(self, error) from error
    if answer.status // 100 == 2:
        return {"status": answer.status}
    refused = WebhookError(f"http_{answer.status}", f"{host} answered {answer.status}.")
    if answer.status == GONE:
        persist(lambda _: get_database().run(disable_default(job.owner, url)), job.id)
        raise refused
    raise try_later(self, refused, asked_for(answer))


def try_later(task: Task, error: WebhookError, at_least: float = 0.0) -> Exception:
    """Have the job run again after its pause, or fail by `error` if there is none left.

    Args:
        at_least: Seconds that the receiver has asked for.
    """
    pause = (*PAUSES, 0.0)[task.request.retries] * (1 + random.uniform(0, JITTER))
    again: Exception = task.retry(exc=error, countdown=max(pause, at_least))
    return again


def asked_for(answer: Answer, now: datetime | None = None) -> float:
    """Seconds after which a receiver wants the next try, a day at most; 0: it has not said."""
    if answer.status not in HEEDED or not answer.retry_after:
        return 0.0
    try:
        seconds = float(answer.retry_after)
    except ValueError:
        try:
            moment = parsedate_to_datetime(answer.retry_after)
        except ValueError:
            return 0.0
        seconds = (moment.replace(tzinfo=UTC) - (now or datetime.now(UTC))).total_seconds()
    return min(max(seconds, 0.0), DAY) if math.isfinite(seconds) else 0.0


def signed(
    webhook_id: str, event: str, settings: Settings, owner: str | None = None
) -> dict[str, str]:
    """The headers of a webhook that is sent now, with a signature by each secret.

    Args:
        owner: Whose receivers may know a secret of their own only.

    Raises:
        WebhookError: There is no secret.
    """
    if not settings.webhook_secret:
        raise WebhookError("webhook_not_set_up", "The worker has no LIVEJOBS_WEBHOOK_SECRET.")
    now = datetime.now(UTC)
    secrets = [secret.get_secret_value() for secret in settings.webhook_secret]
    if owner is not None:
        secrets += [owner_secret(secret, owner) for secret in secrets]
    signers = map(Webhook, secrets)
    return {
        "content-type": "application/json",
        "user-agent": f"livejobs/{__version__}",
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(each.sign(webhook_id, now, event) for each in signers),
    }
