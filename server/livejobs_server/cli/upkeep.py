"""`livejobs cleanup | purge`: remove what has had its time, or all that is a person's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer

from .client import DEFAULT_DATA_DIR, DataDirOption
from .console import complain, say
from .storage import open_database


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(cleanup)
    app.command()(purge)


def cleanup(
    dry_run: Annotated[bool, typer.Option(help="Only count what would be removed.")] = False,
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
) -> None:
    """Remove expired credentials, jobs past retention and files that nobody needs, now.

    Beat has a worker do the same every day.
    """
    from livejobs import get_settings, track
    from livejobs.cleanup import Cleanup
    from livejobs.live import Live
    from livejobs.reporter import stop_reporter

    with open_database(data_dir) as database:
        live = Live(get_settings())
        try:
            with track("livejobs.cleanup", owner="") as job:
                run = Cleanup(database, live, get_settings(), dry_run=dry_run)
                job.result = counts = run.run(job)
        finally:
            stop_reporter()
            live.close()
    _print(counts)
    if dry_run:
        complain("nothing was removed: this was a dry run")


def purge(
    owner: Annotated[str, typer.Option(help="Whose things.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
) -> None:
    """Remove everything of an owner: keys, sessions, jobs, documents and uploads."""
    from livejobs import get_settings
    from livejobs.live import Live
    from livejobs.purge import purge as remove_all

    if not owner:
        raise typer.BadParameter("an owner is needed", param_hint="--owner")
    if not yes:
        typer.confirm(f"Remove all that is {owner}'s, for good?", abort=True, err=True)
    with open_database(data_dir) as database:
        live = Live(get_settings())
        try:
            counts = remove_all(database, live, get_settings(), owner)
        finally:
            live.close()
    _print(counts)


def _print(counts: Mapping[str, int]) -> None:
    for kind, count in counts.items():
        say(f"{count:>8}  {kind.replace('_', ' ')}")
