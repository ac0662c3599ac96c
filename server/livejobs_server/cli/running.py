"""`livejobs up | demo | server | worker | keeper | beat | migrate`: the parts, or all of them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from .console import say
from .extras import require

PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}

AppOption = Annotated[
    str, typer.Option("--app", "-A", help="The Celery app, as `celery -A` takes it.")
]
WebOption = Annotated[
    str | None,
    typer.Option("--web", help="Serve this app of yours, as uvicorn takes it, like web:app."),
]
BUILT_IN_APP = "livejobs_worker.app"


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(up)
    app.command()(demo)
    app.command()(server)
    app.command(context_settings=PASS_ON)(worker)
    app.command(context_settings=PASS_ON)(beat)
    app.command()(keeper)
    app.command()(migrate)


def up(
    host: Annotated[str | None, typer.Option(help="Address of the server.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Its port; 0: any that is free.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder for all that is kept; default .livejobs.")
    ] = None,
    app: AppOption = BUILT_IN_APP,
    web: WebOption = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Processes of the worker; default 2.")
    ] = None,
    worker: Annotated[bool, typer.Option(help="Run a worker.")] = True,
    beat: Annotated[bool, typer.Option(help="Run Celery beat.")] = True,
    model: Annotated[
        bool, typer.Option(help="Run a small language model, unless LIVEJOBS_LLM_BASE_URL is set.")
    ] = True,
) -> None:
    """Run everything on this machine: Valkey, database, worker, beat and server.

    REDIS_URL and DATABASE_URL, where they are set, take the place of the embedded Valkey and of
    SQLite. Ctrl-C stops everything; a second one kills it.
    """
    require("embedded", "server", *(["worker"] if app == BUILT_IN_APP else []))
    from livejobs.settings import get_settings

    from ..system import Plan
    from .up import run_up

    settings = get_settings()
    plan = Plan(
        host=settings.host if host is None else host,
        port=settings.port if port is None else port,
        data_dir=data_dir or settings.data_dir,
        app=app,
        web=web,
        concurrency=concurrency or settings.worker_concurrency,
        worker=worker,
        beat=beat,
        model=model,
    )
    raise typer.Exit(run_up(plan))


def demo(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The server's port; 0: any that is free.")
    ] = 0,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that all of it may take.")] = 110.0,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the data folder.")] = False,
    kill: Annotated[
        str | None, typer.Option(hidden=True, help="Kill this child in the middle, for tests.")
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show the log lines of all parts.")
    ] = False,
) -> None:
    """See it work: real documents, watched over WebSocket, SSE and polling at once.

    Everything runs on free ports in a temporary folder. Exits with 0 only if all three
    transports, REST and the database agree on each job.
    """
    require("embedded", "server", "worker")
    from ..demo import DemoPlan, run_demo

    plan = DemoPlan(port=port, timeout=timeout, keep=keep, kill=kill, verbose=verbose)
    raise typer.Exit(run_demo(plan))


def server(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Server processes.")] = 1,
    web: WebOption = None,
    member: Annotated[
        str | None, typer.Option(hidden=True, help="Which of several processes this is.")
    ] = None,
) -> None:
    """Run the server: REST, WebSocket, SSE."""
    require("server")
    from livejobs.logs import configure_logging
    from livejobs.settings import get_settings

    from ..group import serve_group
    from ..members import Member
    from ..serving import Serving, serve

    settings = get_settings()
    configure_logging(settings.log_format, settings.log_level)
    serving = Serving(
        host=settings.host if host is None else host,
        port=settings.port if port is None else port,
        web=web,
    )
    if workers > 1:
        command = [sys.executable, "-m", "livejobs_server.cli", "server"]
        options = [] if web is None else [f"--web={web}"]
        raise typer.Exit(
            serve_group(serving, workers, settings.drain_linger, [*command, *options, "--member"])
        )
    this = None if member is None else Member.from_text(member)
    raise typer.Exit(serve(serving, settings, this))


def worker(
    context: typer.Context,
    app: AppOption = BUILT_IN_APP,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Processes; default 2.")] = None,
) -> None:
    """Run a Celery worker; further options are Celery's own."""
    if app == BUILT_IN_APP:
        require("worker")
    from livejobs.settings import get_settings

    settings = get_settings()
    count = concurrency or settings.worker_concurrency
    options = [f"--loglevel={settings.log_level}", f"--concurrency={count}", *context.args]
    _become_celery(app, "worker", options)


def beat(context: typer.Context, app: AppOption = BUILT_IN_APP) -> None:
    """Run Celery beat; further options are Celery's own."""
    if app == BUILT_IN_APP:
        require("worker")
    from livejobs.settings import get_settings

    _become_celery(app, "beat", [f"--loglevel={get_settings().log_level}", *context.args])


def _become_celery(app: str, command: str, options: list[str]) -> None:
    sys.stdout.flush()
    arguments = [sys.executable, "-m", "celery", "-A", app, command, *options]
    os.execv(sys.executable, arguments)


def keeper(
    app: Annotated[
        str | None,
        typer.Option(
            "--app",
            "-A",
            help="The Celery app whose broker the jobs go to; default: the broker of the settings.",
        ),
    ] = None,
) -> None:
    """Run a keeper alone: it sends what is due and takes back what is lost.

    Each server and each worker has one already.
    """
    from livejobs.keeper import Keeper
    from livejobs.logs import configure_logging
    from livejobs.settings import get_settings

    from .keeping import celery_app, check_database, until_stopped

    sending = celery_app(app)
    settings = get_settings()
    configure_logging(settings.log_format, settings.log_level)
    check_database(settings)
    until_stopped(Keeper(settings, sending, "keeper"))


def migrate() -> None:
    """Bring the database's tables to the shape that this version needs."""
    from livejobs.database import migrate as run_migrations

    say(f"the database is at revision {run_migrations()}")
