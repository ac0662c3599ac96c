"""`mail.send`: mails go out by SMTP, each once; without a mail server, into a maildir.

A job sends a mail, or some of a batch, over one connection. What the server refuses for good (5xx)
fails; what may go later (4xx, no connection) is retried, and those that went out are left alone. A
mail of which nobody knows whether it went out waits for a person, see `livejobs.mails`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, Final

from celery import Task

from livejobs import current_job
from livejobs.claims import persist
from livejobs.database import Steps, get_database
from livejobs.mails import (
    REFUSED,
    SENDING,
    SENT,
    WAITING,
    MailError,
    address,
    begin,
    counts,
    end,
    message_id,
    prepare,
)
from livejobs.running import RunningJob
from livejobs.settings import get_settings
from livejobs_worker.app import app

from .letters import compose, everybody
from .post import Post, open_post

SLICE: Final = 50
"""Mails that a child of a batch sends over its connection."""
RETRIES: Final = 28
"""After 1, 2, 4 … 60 minutes: for about a day."""


@app.task(name="mail.send", bind=True, max_retries=RETRIES)
def send(self: Task, letter: dict[str, Any], recipients: list[dict[str, Any]]) -> dict[str, int]:
    """Send a mail to each of some recipients.

    Args:
        letter: `subject`, `text`, `html`, `template`, `context`, `cc` and `bcc`, as `send_email`
            takes them; what is missing is left out.
        recipients: `to` and `context` of each.

    Raises:
        MailError: Not all could be sent; the log has each.
    """
    job, sent, errors = current_job(), 0, []
    with contextlib.closing(open_post(get_settings())) as post:
        for ordinal, recipient in enumerate(job.track(recipients, stage="send")):
            try:
                send_once(post, job, ordinal, letter, recipient)
                sent += 1
            except MailError as error:
                job.log(str(error), level="warning")
                errors.append(error)
                if error.code in ("mail_server_away", "mail_server_unusable"):
                    break  # so it would be for the others
    later = [error for error in errors if error.code in ("mail_server_away", "mail_postponed")]
    if later:
        raise self.retry(exc=later[0], countdown=60 * min(2**self.request.retries, 60))
    if errors:
        text = f"{len(recipients) - sent} of {len(recipients)} mails were not sent. {errors[0]}"
        raise MailError(errors[0].code, text)
    return {"sent": sent}


@app.task(name="mail.send_many")
def send_many(letter: dict[str, Any], recipients: list[dict[str, Any]]) -> None:
    """Have children send the mails of a batch, each some over one connection."""
    slices = (recipients[at : at + SLICE] for at in range(0, len(recipients), SLICE))
    calls = ((letter, some) for some in slices)
    current_job().spawn_many(send, calls, on_children_done=report.s(len(recipients)))


@app.task(name="mail.report")
def report(recipients: int) -> dict[str, int]:
    """What goes on after the children: how many mails were sent, refused, or are in doubt."""
    found = get_database().read(counts(current_job().id))
    sent, refused, doubtful = (found.get(state, 0) for state in (SENT, REFUSED, SENDING))
    unsent = recipients - sent - refused - doubtful
    return {"sent": sent, "refused": refused, "in_doubt": doubtful, "not_sent": unsent}


def send_once(
    post: Post,
    job: RunningJob,
    ordinal: int,
    letter: Mapping[str, Any],
    recipient: Mapping[str, Any],
) -> None:
    """Send one mail of a job, unless it went out before.

    Raises:
        MailError: It was not sent, or nobody knows.
    """

    def commit(program: Callable[[], Steps[Any]]) -> Any:
        return persist(lambda _: get_database().run(program()), job.id)

    def hand_over() -> None:
        if commit(lambda: begin(job.id, ordinal, job.worker)) is None:
            raise MailError("mail_in_doubt", "another worker sends it")

    sender = address(get_settings().mail_from)
    known_as = message_id(job.id, ordinal, sender.domain)
    mail = compose(letter, recipient, known_as)
    addresses = [address(each).addr_spec for each in everybody(letter, recipient)]
    to = ", ".join(addresses)
    row = commit(lambda: prepare(job.owner, job.id, ordinal, known_as, to))
    if row.state == SENT:
        return
    if row.state == REFUSED:
        raise MailError("mail_refused", row.error or "")
    if row.state == SENDING:
        raise MailError(
            "mail_in_doubt",
            f"{to}: it may have gone out when a worker or a connection broke; nobody knows. Look "
            f"for {known_as}, or run the job again to send it once more.",
        )
    try:
        post.send(mail, sender.addr_spec, addresses, hand_over)
    except MailError as error:
        told, state = str(error), REFUSED if error.code == "mail_refused" else WAITING
        if error.code != "mail_in_doubt":
            commit(lambda: end(job.id, ordinal, job.worker, state, told))
        raise
    commit(lambda: end(job.id, ordinal, job.worker, SENT))
