"""`send_email`: a mail, or one for each of many people, as a job of the built-in worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypedDict

from celery import Celery
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from .dispatch import enqueue
from .mails import MailError, address
from .views import JobView

SEND_TASK: Final = "mail.send"
SEND_MANY_TASK: Final = "mail.send_many"


class Template(TypedDict, total=False):
    """A Jinja2 template that is given and not looked up; `text` or `html` is needed."""

    subject: str
    text: str
    html: str


class Recipient(TypedDict, total=False):
    """Somebody who gets a mail of their own: `to` is needed.

    Attributes:
        to: One address or several.
        context: What the template says of them; it goes before the context of all.
    """

    to: str | Sequence[str]
    context: Mapping[str, Any]


async def send_email(
    to: str | Sequence[str] | None = None,
    subject: str | None = None,
    *,
    text: str | None = None,
    html: str | None = None,
    template: str | Template | None = None,
    context: Mapping[str, Any] | None = None,
    cc: str | Sequence[str] = (),
    bcc: str | Sequence[str] = (),
    recipients: Sequence[Recipient] | None = None,
    app: Celery | None = None,
    queue: str | None = None,
    owner: str | None = None,
    tags: Mapping[str, str] | None = None,
    idempotency_key: str | None = None,
    session: AsyncSession | Session | None = None,
) -> JobView:
    """Create the job that sends a mail, or a mail to each of many recipients.

    Args:
        to: One address or several, which see each other; ``Ada <ada@example.com>`` works too.
        subject: Needed, unless the template has one. With a template it is one itself.
        text, html: The content as it is; one of them, or both as alternatives.
        template: Name of a template in ``LIVEJOBS_MAIL_TEMPLATES``, or a template; in place of
            `text` and `html`.
        context: What the template is filled with.
        recipients: In place of `to`: each gets a mail of their own. The job has children then.
        app, queue, owner, tags, idempotency_key, session: As for `livejobs.enqueue`.

    Raises:
        MailError: It cannot be a mail.
        IdempotencyConflict, DatabaseUnavailable, MessageError: As `livejobs.enqueue` does.
    """
    content = {"subject": subject, "text": text, "html": html, "template": template}
    letter: dict[str, Any] = {key: value for key, value in content.items() if value is not None}
    letter |= {"context": dict(context or {}), "cc": _list(cc), "bcc": _list(bcc)}
    people: Sequence[Recipient] = [{"to": to or ()}] if recipients is None else recipients
    everybody = [
        {"to": _list(each.get("to", ())), "context": dict(each.get("context", {}))}
        for each in people
    ]
    _check(letter, everybody, to is not None and recipients is not None)
    return await enqueue(
        SEND_TASK if recipients is None else SEND_MANY_TASK,
        [letter, everybody],
        app=app,
        queue=queue,
        owner=owner,
        tags=tags,
        idempotency_key=idempotency_key,
        session=session,
    )


def _list(addresses: str | Sequence[str]) -> list[str]:
    return [addresses] if isinstance(addresses, str) else list(addresses)


def _check(letter: Mapping[str, Any], people: Sequence[Mapping[str, Any]], both: bool) -> None:
    """Say at once what the worker would say later."""
    template: Any = letter.get("template")
    copies = [*letter["cc"], *letter["bcc"]]
    written = "text" in letter or "html" in letter
    inline = isinstance(template, Mapping)
    if both or not people or not all(each["to"] for each in people):
        raise MailError("mail_invalid", "Say whom it is to: `to`, or `recipients` with one each.")
    if (len(people) > 1 or both) and copies:
        raise MailError("mail_invalid", "Mails to many recipients have no cc and bcc.")
    if written == (template is not None):
        raise MailError("mail_invalid", "A mail needs text or html, or a template.")
    if inline and not ("text" in template or "html" in template):
        raise MailError("mail_invalid", "A template needs text or html.")
    if "subject" not in letter and (written or (inline and "subject" not in template)):
        raise MailError("mail_invalid", "A mail needs a subject.")
    if not letter.get("subject", "").isprintable():
        raise MailError("mail_invalid", "A subject is one line of text.")
    for each in [*copies, *(each for person in people for each in person["to"])]:
        address(each)
