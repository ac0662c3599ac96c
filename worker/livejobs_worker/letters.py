"""Mails as they are written: headers, copies, and text from Jinja2 templates, in a sandbox."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from typing import Any, Final

from jinja2 import FileSystemLoader, StrictUndefined, Template, TemplateNotFound
from jinja2.sandbox import ImmutableSandboxedEnvironment

from livejobs.mails import MailError, address
from livejobs.settings import get_settings

POLICY: Final = SMTP.clone(cte_type="7bit")
"""Lines as SMTP has them, of ASCII only; it refuses a header that has a line break."""


def compose(letter: Mapping[str, Any], recipient: Mapping[str, Any], known_as: str) -> EmailMessage:
    """The mail to a recipient; whoever gets a blind copy is not in it.

    Raises:
        MailError: The template or an address cannot be used, or a header would have a line break.
    """
    subject, text, html = written(letter, recipient)
    mail = EmailMessage(POLICY)
    try:
        mail["From"] = address(get_settings().mail_from)
        mail["To"] = [address(each) for each in recipient["to"]]
        if letter.get("cc"):
            mail["Cc"] = [address(each) for each in letter["cc"]]
        mail["Subject"] = subject
        mail["Date"] = datetime.now(UTC)
        mail["Message-ID"] = known_as
    except ValueError as error:
        raise MailError("mail_invalid", f"A header cannot be written: {error}.") from error
    if text is not None:
        mail.set_content(text)
    if html is not None:
        (mail.set_content if text is None else mail.add_alternative)(html, subtype="html")
    return mail


def everybody(letter: Mapping[str, Any], recipient: Mapping[str, Any]) -> list[str]:
    """All who get the mail."""
    return [*recipient["to"], *letter.get("cc", ()), *letter.get("bcc", ())]


def written(
    letter: Mapping[str, Any], recipient: Mapping[str, Any]
) -> tuple[str, str | None, str | None]:
    """Subject, text and HTML of the mail, from its template if it has one."""
    template = letter.get("template")
    if template is None:
        return letter["subject"], letter.get("text"), letter.get("html")
    context = {**letter.get("context", {}), **recipient.get("context", {})}
    try:
        parts = _rendered(template, letter.get("subject"), context)
    except Exception as error:  # whatever the code in a template raises
        why = f"The template cannot be used: {type(error).__name__}: {error}"
        raise MailError("mail_invalid", why) from error
    title, text, html = (parts.get(kind) for kind in ("subject", "text", "html"))
    if title is None or (text is None and html is None):
        raise MailError("mail_invalid", "The template has no subject, or neither text nor HTML.")
    return title.strip(), text, html


def _rendered(
    template: str | Mapping[str, str], subject: str | None, context: Mapping[str, Any]
) -> dict[str, str]:
    """What the parts of a template become; of one with a name, they are files in the folder."""
    parts: dict[str, str] = {}
    for kind, suffix in (("subject", ".subject.txt"), ("text", ".txt"), ("html", ".html")):
        environment = _environment(escape=kind == "html")
        found: Template | None = None
        if kind == "subject" and subject is not None:
            found = environment.from_string(subject)
        elif isinstance(template, str):
            found = _look_up(environment, template + suffix)
        elif kind in template:
            found = environment.from_string(template[kind])
        if found is not None:
            parts[kind] = found.render(context)
    return parts


def _environment(*, escape: bool) -> ImmutableSandboxedEnvironment:
    folder = get_settings().mail_templates
    return ImmutableSandboxedEnvironment(
        # It leaves its folder for no name.
        loader=FileSystemLoader([] if folder is None else folder),
        undefined=StrictUndefined,
        autoescape=escape,
    )


def _look_up(environment: ImmutableSandboxedEnvironment, name: str) -> Template | None:
    try:
        return environment.get_template(name)
    except TemplateNotFound:
        return None
