"""`livejobs webhooks set | show | remove | secret`: owners' default webhooks, in the database."""

from __future__ import annotations

from typing import Annotated

import typer

from ..data_dir import find_kept
from .client import DEFAULT_DATA_DIR, DataDirOption
from .console import complain, say
from .storage import open_database

app = typer.Typer(help="Completion webhooks.", no_args_is_help=True)

OwnerOption = Annotated[str, typer.Option(help="Whose jobs it tells of.")]


@app.command("set")
def set_url(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where the webhooks go.")],
    owner: OwnerOption,
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
) -> None:
    """Tell a URL of the ends of an owner's jobs that name no other."""
    from livejobs import get_settings
    from livejobs.webhooks import require_possible, set_default

    with open_database(data_dir) as database:
        # The secret to sign with is the workers'.
        require_possible(url, get_settings())
        database.run(set_default(owner, url))
    say(f"{owner}: {url}")


@app.command()
def show(owner: OwnerOption, data_dir: DataDirOption = DEFAULT_DATA_DIR) -> None:
    """Print an owner's default."""
    from livejobs.webhooks import find_default

    with open_database(data_dir) as database:
        row = database.read(find_default(owner))
    if row is None:
        complain(f"{owner} has no default webhook")
        raise typer.Exit(1)
    say(row.url)
    if row.disabled_at is not None:
        complain("its receiver answered 410, and is told nothing more: set it again to enable it")


@app.command()
def remove(owner: OwnerOption, data_dir: DataDirOption = DEFAULT_DATA_DIR) -> None:
    """Remove an owner's default."""
    from livejobs.webhooks import remove_default

    with open_database(data_dir) as database:
        removed = database.run(remove_default(owner))
    if not removed:
        complain(f"{owner} has no default webhook")
        raise typer.Exit(1)
    say(f"{owner} is told nothing more")


@app.command()
def secret(
    owner: Annotated[
        str | None, typer.Option(help="Print the secret for this owner's receivers instead.")
    ] = None,
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
) -> None:
    """Make a secret for `LIVEJOBS_WEBHOOK_SECRET`, and print it."""
    from livejobs import get_settings
    from livejobs.settings import configure
    from livejobs.webhook_settings import new_secret, owner_secret
    from livejobs.webhooks import require_secret

    if owner is None:
        say(new_secret())
        return
    settings = get_settings()
    kept = find_kept(data_dir, "webhook-secret")
    if not settings.webhook_secret and kept is not None:
        settings = configure(webhook_secret=kept)
    say(owner_secret(require_secret(settings), owner))
