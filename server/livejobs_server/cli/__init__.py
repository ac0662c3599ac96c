"""The command line: `livejobs …`.

Each command imports what it needs when it runs, so that those for which the base install is enough
work with it, and `livejobs --help` is quick.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from livejobs.errors import LivejobsError

from . import jobs, keys, running, upkeep, watching, webhooks
from .console import complain, say
from .extras import MissingExtra, extra_of

app = typer.Typer(
    name="livejobs",
    help="Every background job, live.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
running.add_to(app)
jobs.add_to(app)
watching.add_to(app)
upkeep.add_to(app)
app.add_typer(keys.app, name="keys")
app.add_typer(webhooks.app, name="webhooks")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        say(f"livejobs {version('livejobs')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Every background job, live."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    Args:
        arguments: Instead of those of the process.
    """
    try:
        app(args=None if arguments is None else list(arguments))
    except ModuleNotFoundError as error:
        extra = extra_of(error.name or "")
        if extra is None:
            raise
        complain(str(MissingExtra(extra)))
        sys.exit(1)
    except LivejobsError as error:
        complain(str(error))
        sys.exit(1)
    except BrokenPipeError:
        # Whoever read our output has had enough, `| head` for example.
        sys.stderr.close()
        sys.exit(1)
