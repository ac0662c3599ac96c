"""`livejobs keys create | list | revoke`: API keys, straight in the database."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated

import typer

from .client import DEFAULT_DATA_DIR, DataDirOption
from .console import complain, say
from .storage import open_database

app = typer.Typer(help="API keys.", no_args_is_help=True)

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Scope(StrEnum):
    """What a key is good for."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


@app.command()
def create(
    owner: Annotated[str, typer.Option(help="Whose jobs it is good for.")],
    scope: Annotated[
        list[Scope] | None,
        typer.Option(
            help="read (see jobs), write (start and change them), admin (everybody's); repeat it. "
            "Default: read and write."
        ),
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="Good for so long, like 12h or 90d; default: no end.")
    ] = None,
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
) -> None:
    """Make a key; this is the only time that it is shown."""
    ends = None if expires is None else datetime.now(UTC) + _duration(expires)
    scopes = [str(each) for each in scope or (Scope.READ, Scope.WRITE)]
    from ..keys import create_key

    with open_database(data_dir) as database:
        made = create_key(database, owner, scopes, ends)
    say(made.key)
    complain(f"this is key {made.key_id} of {owner}; it will not be shown again")


@app.command("list")
def show(
    owner: Annotated[str | None, typer.Option(help="Only theirs.")] = None,
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
) -> None:
    """List keys, the newest first; the keys themselves are not known any more."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ..keys import list_keys

    with open_database(data_dir) as database:
        rows = list_keys(database, owner)
    if not rows:
        complain("there are no keys")
        return
    table = Table("id", "owner", "scopes", "created", "expires", "state", box=None, pad_edge=False)
    for row in rows:
        cells = (
            row.key_id,
            row.owner,
            ",".join(row.scopes),
            _day(row.created_at),
            _day(row.expires_at) if row.expires_at else "never",
            _state(row.revoked_at, row.expires_at),
        )
        table.add_row(*map(Text, cells))
    Console(highlight=False).print(table)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, as in the list.")],
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
) -> None:
    """End a key now."""
    from ..keys import revoke_key

    with open_database(data_dir) as database:
        revoked = revoke_key(database, key_id)
    if not revoked:
        complain(f"there is no key {key_id} that still works")
        raise typer.Exit(1)
    say(f"{key_id} revoked")


def _duration(text: str) -> timedelta:
    match = re.fullmatch(r"(\d{1,6})([mhdw])", text)
    if match is None:
        raise typer.BadParameter(
            f"{text!r} is no duration: a number and m, h, d or w", param_hint="--expires"
        )
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def _day(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M}"


def _state(revoked_at: datetime | None, expires_at: datetime | None) -> str:
    if revoked_at is not None:
        return "revoked"
    if expires_at is not None and expires_at <= datetime.now(UTC):
        return "expired"
    return "good"
