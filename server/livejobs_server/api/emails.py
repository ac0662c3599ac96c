"""E-mail: a mail, or one for each of many people, becomes a job."""

from __future__ import annotations

from typing import Annotated, Any, Self

from fastapi import APIRouter, Request, Response
from pydantic import AfterValidator, Field, StringConstraints, model_validator

from livejobs.emails import send_email
from livejobs.mails import MAX_ADDRESS_CHARACTERS, MailError, address

from ..dependencies import Creator
from ..idempotency import IdempotencyKey, fingerprint, once
from ..problems import ApiProblem
from ..services import Services
from ..tokens import job_token
from ..viewer import Viewer
from .answers import Accepted
from .fields import Body, Json, Server, Text

router = APIRouter(prefix="/v1/emails", tags=["e-mail"])


def _address(text: str) -> str:
    try:
        address(text)
    except MailError as error:
        raise ValueError(str(error)) from error
    return text


def _line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("it is not one line of text")
    return text


Address = Annotated[
    str, StringConstraints(max_length=MAX_ADDRESS_CHARACTERS), AfterValidator(_address)
]
Addresses = Annotated[list[Address], Field(max_length=100)]
Subject = Annotated[Text, Field(max_length=1000), AfterValidator(_line)]
Context = dict[Text, Json]


class InlineTemplate(Body):
    """A Jinja2 template that is given and not looked up."""

    subject: Subject | None = None
    text: Text | None = None
    html: Text | None = None


class EmailRecipient(Body):
    """Somebody who gets a mail of their own."""

    to: Annotated[Addresses, Field(min_length=1)]
    context: Context = Field({}, description="What the template says of them.")


class NewEmailBody(Body):
    """A mail, to `to`; or one to each of `recipients`."""

    to: Addresses = Field([], description="Who get the mail, and see each other.")
    cc: Addresses = Field([])
    bcc: Addresses = Field([])
    recipients: Annotated[list[EmailRecipient], Field(max_length=10_000)] | None = Field(
        None, description="In place of `to`: each gets a mail of their own, by a child of the job."
    )
    subject: Subject | None = None
    text: Text | None = None
    html: Text | None = None
    template: Annotated[str, Field(pattern=r"^\w[\w-]*(/\w[\w-]*)*$")] | InlineTemplate | None = (
        Field(None, description="Name of a template of the server's; for admins also a template.")
    )
    context: Context = Field({}, description="What the template is filled with.")

    @model_validator(mode="after")
    def _can_be_a_mail(self) -> Self:
        template, written = self.template, self.text is not None or self.html is not None
        if bool(self.to) == bool(self.recipients):
            raise ValueError("it needs either to or recipients")
        if self.recipients and (self.cc or self.bcc):
            raise ValueError("mails to recipients have no cc and bcc")
        if written == (template is not None):
            raise ValueError("it needs either text or html, or a template")
        inline = template if isinstance(template, InlineTemplate) else None
        if inline is not None and inline.text is None and inline.html is None:
            raise ValueError("a template needs text or html")
        if self.subject is None and (written or (inline is not None and inline.subject is None)):
            raise ValueError("it needs a subject")
        return self


@router.post("", status_code=202, response_model=Accepted)
async def send_an_email(
    body: NewEmailBody,
    request: Request,
    response: Response,
    server: Server,
    viewer: Creator,
    key: IdempotencyKey,
) -> Accepted:
    """Send a mail, or one to each of many people; the answer names the job at once."""
    if isinstance(body.template, InlineTemplate) and not viewer.is_admin:
        raise ApiProblem("scope_missing", "A template in a request needs the scope admin.")
    wanted = fingerprint("emails", body.model_dump(mode="json"))
    async with once(server.database, viewer.owner, key, wanted) as this:
        if this.answer is None:
            await server.quotas.take(viewer.owner)
            this.made = await _create(server, body, viewer, this.nonce if key else None)
        answer = this.answer or this.made or {}
    # It carries a token.
    response.headers["Cache-Control"] = "no-store"
    path = request.url.path.rstrip("/").removesuffix("emails")
    response.headers["Location"] = f"{path}jobs/{answer['job_id']}"
    return Accepted(**answer, token=job_token(viewer, answer["job_id"], server.settings))


async def _create(
    server: Services, body: NewEmailBody, viewer: Viewer, nonce: str | None
) -> dict[str, Any]:
    given = body.model_dump(exclude_none=True)
    if "recipients" in given:
        del given["to"]
    view = await send_email(**given, app=server.celery, owner=viewer.owner, idempotency_key=nonce)
    return {"job_id": view.job_id, "status": view.status}
