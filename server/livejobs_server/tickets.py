"""Tickets: credentials for one use in a URL, where nothing else can be sent.

Those of `issue_ticket` open streams and show jobs. Those of `issue_sign_in` do nothing but sign
somebody in to the pages. Neither passes for the other.
"""

from __future__ import annotations

import secrets
from collections.abc import Generator
from datetime import datetime
from typing import Final, NamedTuple, TypeVar

from sqlalchemy import Table, delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql.base import Executable

from livejobs.models import SCHEMA_TOKEN, Ticket, db_now
from livejobs.statements import Batch, Rows

from .keys import hash_secret
from .sessions import SignIn
from .viewer import Viewer

T = TypeVar("T")
Steps = Generator[Executable | Batch, Rows, T]

TICKET_SECONDS: Final = 30.0
SIGN_IN_SECONDS: Final = 3600.0
"""Time to open the page that `livejobs up` names."""
MAX_TICKET_CHARACTERS: Final = 128
_SIGN_IN: Final = "sign-in:"
"""Goes before what is hashed, so that the tickets for signing in are found by nothing else."""
_tickets: Final[Table] = Ticket.metadata.tables[f"{SCHEMA_TOKEN}.livejobs_tickets"]


class NewTicket(NamedTuple):
    """A ticket just made.

    Attributes:
        ticket: What goes into the URL.
        expires_at: When it ends if it is not used.
    """

    ticket: str
    expires_at: datetime


def issue_ticket(viewer: Viewer) -> Steps[NewTicket]:
    """A program that makes a ticket for `viewer`; it clears away those that were never used."""
    ticket = secrets.token_urlsafe(32)
    yield delete(_tickets).where(_tickets.c.expires_at < db_now())
    rows = yield (
        insert(_tickets)
        .values(
            hash=hash_secret(ticket),
            viewer=viewer.to_json(),
            expires_at=db_now(TICKET_SECONDS),
        )
        .returning(_tickets.c.expires_at)
    )
    return NewTicket(ticket, rows[0].expires_at)


def find_ticket(ticket: str) -> Steps[bool]:
    """A program that reads whether a ticket can be redeemed; rubbish shall cost no write."""
    rows = yield select(_tickets.c.hash).where(
        _tickets.c.hash == hash_secret(ticket), _tickets.c.expires_at > db_now()
    )
    return bool(rows)


def redeem_ticket(ticket: str) -> Steps[Viewer | None]:
    """A program that uses a ticket up; None where it was used before or has ended."""
    rows = yield (
        delete(_tickets)
        .where(_tickets.c.hash == hash_secret(ticket), _tickets.c.expires_at > db_now())
        .returning(_tickets.c.viewer)
    )
    return Viewer.from_json(rows[0].viewer) if rows else None


def issue_sign_in(sign_in: SignIn) -> Steps[NewTicket]:
    """A program that makes a ticket for signing in to the pages."""
    ticket = secrets.token_urlsafe(32)
    rows = yield (
        insert(_tickets)
        .values(
            hash=hash_secret(_SIGN_IN + ticket),
            viewer=sign_in.viewer.to_json() | {"key_id": sign_in.key_id},
            expires_at=db_now(SIGN_IN_SECONDS),
        )
        .returning(_tickets.c.expires_at)
    )
    return NewTicket(ticket, rows[0].expires_at)


def redeem_sign_in(ticket: str) -> Steps[SignIn | None]:
    """A program that uses up a ticket for signing in; None where it is none, or not any more."""
    if not (yield from find_ticket(_SIGN_IN + ticket)):
        return None
    rows = yield (
        delete(_tickets)
        .where(_tickets.c.hash == hash_secret(_SIGN_IN + ticket))
        .returning(_tickets.c.viewer)
    )
    if not rows:
        return None
    return SignIn(Viewer.from_json(rows[0].viewer), rows[0].viewer["key_id"])
