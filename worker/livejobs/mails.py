"""Mails as the database knows them: who is to get which, and how far each has come.

A mail goes out once. Its row stands before anybody talks to a mail server; the mark SENDING is
committed before the content is handed over, and SENT after the server has taken it. Each step is a
compare-and-set, so of two executions of a job only one sends. A mail that is found as SENDING was
in the hands of a worker that died, or of a connection that broke: whether it went out nobody can
know. It is not sent again until a person runs its job again.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from datetime import datetime
from email.errors import MessageError
from email.headerregistry import Address
from email.policy import SMTP
from pathlib import Path
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

from sqlalchemy import Index, Integer, Row, Table, Text, and_, func, literal, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.sql.base import Executable
from sqlalchemy.sql.expression import ColumnElement

from .errors import LivejobsError
from .models import SCHEMA_TOKEN, Base, UtcDateTime, db_now
from .settings import Settings
from .statements import events, jobs

Rows = Sequence[Row[Any]]
Batch = tuple[Executable, list[dict[str, Any]] | dict[str, Any]]
Steps = Generator[Executable | Batch, Rows, Row[Any] | None]

WAITING: Final = "waiting"
SENDING: Final = "sending"
SENT: Final = "sent"
REFUSED: Final = "refused"
MAX_ADDRESS_CHARACTERS: Final = 320
MAX_ERROR_CHARACTERS: Final = 500


class MailError(LivejobsError):
    """A mail that cannot be sent.

    Attributes:
        code: `mail_invalid`: it cannot be made; `mail_refused`: the server does not take it, for
            good; `mail_in_doubt`: nobody knows whether it went out; `mail_postponed`: the server
            may take it later; `mail_server_away`: there is no connection to it;
            `mail_server_unusable`: it does not take us.
    """

    def __init__(self, code: str, message: str) -> None:
        # Both are the exception's args, so that it survives pickling between processes.
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return self.message


class MailRow(Base):
    """A mail of a job."""

    __tablename__ = "livejobs_mails"
    __table_args__ = (
        Index("ix_livejobs_mails_owner", "owner"),
        Index("ix_livejobs_mails_created_at", "created_at"),
    )

    job_id: Mapped[str] = mapped_column(Text, primary_key=True)
    ordinal: Mapped[int] = mapped_column(Integer, primary_key=True, doc="Within its job, from 0.")
    owner: Mapped[str] = mapped_column(Text, doc="Empty: nobody's.")
    message_id: Mapped[str] = mapped_column(Text, doc="Its header Message-ID.")
    recipients: Mapped[str] = mapped_column(Text, doc="Addresses, comma separated.")
    state: Mapped[str] = mapped_column(Text, doc="waiting, sending, sent or refused.")
    worker: Mapped[str | None] = mapped_column(Text, doc="The claim that sends it, or sent it.")
    tries: Mapped[int] = mapped_column(Integer, doc="How often its content was handed over.")
    error: Mapped[str | None] = mapped_column(Text, doc="What the server said last.")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    changed_at: Mapped[datetime] = mapped_column(UtcDateTime)


mails: Final[Table] = Base.metadata.tables[f"{SCHEMA_TOKEN}.livejobs_mails"]


def prepare(owner: str, job_id: str, ordinal: int, message_id: str, recipients: str) -> Steps:
    """A program that notes a mail before it is sent; returns its row, as it stands.

    One that was refused, or is in doubt, waits again if a person has run the job again since.
    """
    yield (
        insert(mails)
        .values(
            job_id=job_id,
            ordinal=ordinal,
            owner=owner,
            message_id=message_id,
            recipients=recipients,
            state=WAITING,
            tries=0,
            created_at=db_now(),
            changed_at=db_now(),
        )
        .on_conflict_do_nothing()
    )
    asked_for = select(literal(1)).where(
        events.c.job_id == job_id, events.c.kind == "requeued", events.c.at > mails.c.changed_at
    )
    over = mails.c.state.in_([SENDING, REFUSED])
    again = and_(_is(job_id, ordinal), over, asked_for.correlate(mails).exists())
    yield update(mails).where(again).values(state=WAITING, changed_at=db_now())
    return (yield select(mails).where(_is(job_id, ordinal)))[0]


def begin(job_id: str, ordinal: int, worker: str) -> Steps:
    """A program that marks a mail as being sent by one claim; None: another one has it."""
    free = or_(
        mails.c.state == WAITING,
        # An answer to a COMMIT was lost, and this claim asks once more.
        and_(mails.c.state == SENDING, mails.c.worker == worker),
    )
    values = {"state": SENDING, "worker": worker, "tries": mails.c.tries + 1}
    return (yield from _change(and_(_is(job_id, ordinal), free), **values))


def end(job_id: str, ordinal: int, worker: str, state: str, error: str | None = None) -> Steps:
    """A program that notes what became of a mail: SENT, REFUSED, or WAITING to be tried again.

    Args:
        error: What the server said, if it did not take it.
    """
    mine = or_(mails.c.state == WAITING, mails.c.worker == worker)
    said = None if error is None else error[:MAX_ERROR_CHARACTERS]
    where = and_(_is(job_id, ordinal), mails.c.state != SENT, mine)
    return (yield from _change(where, state=state, worker=worker, error=said))


def counts(parent_id: str) -> Generator[Executable | Batch, Rows, dict[str, int]]:
    """A program that counts the mails of a job's children by state."""
    children = select(jobs.c.id).where(jobs.c.parent_id == parent_id)
    rows = yield (
        select(mails.c.state, func.count().label("n"))
        .where(mails.c.job_id.in_(children))
        .group_by(mails.c.state)
    )
    return {row.state: row.n for row in rows}


def _is(job_id: str, ordinal: int) -> ColumnElement[bool]:
    return and_(mails.c.job_id == job_id, mails.c.ordinal == ordinal)


def _change(where: ColumnElement[bool], **values: Any) -> Steps:
    rows = yield update(mails).where(where).values(changed_at=db_now(), **values).returning(mails)
    return rows[0] if rows else None


# -- what mails are known by -----------------------------------------------------------------------


def mail_name(job_id: str, ordinal: int) -> str:
    """What a mail is called; it is the same whenever its job is run."""
    return uuid5(NAMESPACE_URL, f"livejobs:mail:{job_id}:{ordinal}").hex


def message_id(job_id: str, ordinal: int, domain: str) -> str:
    """The Message-ID of a mail."""
    return f"<{mail_name(job_id, ordinal)}@{domain}>"


def address(text: str) -> Address:
    """One address, ``ada@example.com`` or ``Ada Lovelace <ada@example.com>``.

    Raises:
        MailError: It is something else: several, none, with a line break, or one whose local part
            is not ASCII.
    """
    wrong = MailError("mail_invalid", f"{text[:80]!r} is not one e-mail address.")
    if len(text) > MAX_ADDRESS_CHARACTERS or not text.isprintable():
        raise wrong
    try:
        header: Any = SMTP.header_factory("to", text)
        [found], [group] = header.addresses, header.groups
        domain = found.domain.encode("idna").decode("ascii")
        found.username.encode("ascii")
        made = Address(found.display_name, found.username, domain)
    except (ValueError, IndexError, MessageError):  # the parser stumbles over some texts
        raise wrong from None
    if header.defects or group.display_name is not None or not (made.username and domain):
        raise wrong
    # An encoded word may hold what the text itself does not.
    if not str(made).isprintable():
        raise wrong
    return made


def maildir(settings: Settings) -> Path:
    """Where mails are written while no mail server is set."""
    return settings.data_dir / "mail"


def remove_mail_files(rows: Rows, settings: Settings) -> None:
    """Delete mails from the maildir.

    Args:
        rows: `job_id` and `ordinal` of each.
    """
    names = {mail_name(row.job_id, row.ordinal) for row in rows}
    for part in ("new", "cur"):
        # In `cur`, a mail program has added what was done with it.
        for path in (maildir(settings) / part).glob("*"):
            if path.name.partition(":")[0] in names:
                path.unlink(missing_ok=True)


def job_is_gone(seconds: float) -> ColumnElement[bool]:
    """The condition that the job of a mail is no longer there, for a mail at least so old."""
    job = select(jobs.c.id).where(jobs.c.id == mails.c.job_id)
    return and_(mails.c.created_at < db_now(-seconds), ~job.correlate(mails).exists())
