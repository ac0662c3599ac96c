"""`livejobs submit | list | cancel | retry | why | stack`: jobs by REST."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Annotated, Any

import typer

from .client import DEFAULT_DATA_DIR as DEFAULT
from .client import DataDirOption, KeyOption, Server, UrlOption, find_server
from .console import complain, say
from .watching import follow

JobId = Annotated[str, typer.Argument(metavar="ID", help="The job.")]
JobIds = Annotated[list[str], typer.Argument(metavar="ID...", help="The jobs.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(submit)
    app.command("list")(list_jobs)
    app.command()(cancel)
    app.command()(retry)
    app.command()(why)
    app.command()(stack)


def submit(
    task: Annotated[str, typer.Argument(help="The task's name, e.g. demo.count.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ARG|NAME=ARG]...",
            help="Its arguments: JSON where they are JSON, else text.",
        ),
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A tag, key=value; repeat it.")] = None,
    run_at: Annotated[
        datetime | None, typer.Option(help="Not before this time, ISO 8601.", show_default=False)
    ] = None,
    priority: Annotated[int | None, typer.Option(min=0, max=9)] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Watch it to its end.")] = False,
    url: UrlOption = None,
    key: KeyOption = None,
    data_dir: DataDirOption = DEFAULT,
) -> None:
    """Start a task that the server lets REST clients start; prints the job's id."""
    server = find_server(url, key, data_dir)
    body = _new_job(task, arguments or [], tag or [], run_at, priority)
    accepted = server.request("POST", "/v1/jobs", json=body)
    say(accepted["job_id"])
    if watch:
        raise typer.Exit(follow(server, [accepted["job_id"]]))


def _new_job(
    task: str,
    arguments: list[str],
    tags: list[str],
    run_at: datetime | None,
    priority: int | None,
) -> dict[str, Any]:
    body: dict[str, Any] = {"task": task, "args": [], "kwargs": {}, "tags": {}}
    for argument in arguments:
        name, separator, value = argument.partition("=")
        if separator and name.isidentifier():
            body["kwargs"][name] = _value(value)
        else:
            body["args"].append(_value(argument))
    for tag in tags:
        name, separator, value = tag.partition("=")
        if not separator:
            raise typer.BadParameter(f"{tag!r} is not key=value", param_hint="--tag")
        body["tags"][name] = value
    if run_at is not None:
        body["run_at"] = run_at.astimezone().isoformat()
    if priority is not None:
        body["priority"] = priority
    return body


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def list_jobs(
    status: Annotated[list[str] | None, typer.Option(help="In this status; repeat it.")] = None,
    task: Annotated[str | None, typer.Option(help="Of this task.")] = None,
    queue: Annotated[str | None, typer.Option(help="In this queue.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="With this tag, key=value.")] = None,
    parent: Annotated[str | None, typer.Option(help="Children of this job.")] = None,
    query: Annotated[str | None, typer.Option("--query", "-q", help="Holding this text.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most jobs to show.")] = 20,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line, for programs.")
    ] = False,
    url: UrlOption = None,
    key: KeyOption = None,
    data_dir: DataDirOption = DEFAULT,
) -> None:
    """List jobs, the newest first."""
    filters = {
        "status": status,
        "task": task,
        "queue": queue,
        "tag": tag,
        "parent": parent,
        "q": query,
    }
    given = {name: value for name, value in filters.items() if value}
    jobs = _pages(find_server(url, key, data_dir), given, limit)
    if as_json:
        for job in jobs:
            say(json.dumps(job, ensure_ascii=False))
    else:
        _print_table(jobs)


def _pages(server: Server, filters: dict[str, Any], limit: int) -> list[dict[str, Any]]:
    jobs: list[dict[str, Any]] = []
    page: str | None = None
    while len(jobs) < limit:
        parameters = filters | {"limit": min(500, limit - len(jobs))}
        if page is not None:
            parameters["page"] = page
        answer = server.request("GET", "/v1/jobs", params=parameters)
        jobs += answer["items"]
        page = answer["next"]
        if page is None:
            break
    return jobs


def _print_table(jobs: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from livejobs.views import JobView

    from .bars import STYLES, progress_text

    if not jobs:
        complain("there are no such jobs")
        return
    table = Table(box=None, pad_edge=False)
    for column in ("id", "task", "status", "progress", "created"):
        table.add_column(column, no_wrap=column in {"id", "status"}, overflow="fold")
    for job in map(JobView.model_validate, jobs):
        table.add_row(
            Text(job.job_id),
            Text(job.task),
            Text(job.status, style=STYLES[job.status]),
            Text(progress_text(job)),
            Text(f"{job.created_at.astimezone():%Y-%m-%d %H:%M:%S}"),
        )
    # In a pipe there is no width to fit into.
    width = None if sys.stdout.isatty() else 200
    Console(width=width, highlight=False).print(table)


def cancel(
    ids: JobIds, url: UrlOption = None, key: KeyOption = None, data_dir: DataDirOption = DEFAULT
) -> None:
    """Cancel jobs: pending ones at once, running ones as soon as they notice."""
    _each(ids, "/cancel", find_server(url, key, data_dir))


def retry(
    ids: JobIds, url: UrlOption = None, key: KeyOption = None, data_dir: DataDirOption = DEFAULT
) -> None:
    """Run failed or cancelled jobs again, under the same ids."""
    _each(ids, "/retry", find_server(url, key, data_dir))


def _each(ids: list[str], action: str, server: Server) -> None:
    """Ask for each job; what cannot be done for one does not keep the others from it."""
    from livejobs.errors import UnknownJob

    from .client import RequestRefused

    failed = False
    for job_id in ids:
        try:
            job = server.job("POST", job_id, action)
        except (RequestRefused, UnknownJob) as error:
            complain(str(error))
            failed = True
        else:
            asked = ", cancel requested" if job["cancel_requested"] else ""
            say(f"{job['job_id']} {job['status']}{asked}")
    if failed:
        raise typer.Exit(1)


def why(
    job_id: JobId, url: UrlOption = None, key: KeyOption = None, data_dir: DataDirOption = DEFAULT
) -> None:
    """Say in one sentence why a job is not moving; needs scope admin."""
    say(find_server(url, key, data_dir).job("GET", job_id, "/why")["reason"])


def stack(
    job_id: JobId, url: UrlOption = None, key: KeyOption = None, data_dir: DataDirOption = DEFAULT
) -> None:
    """Show where the code of a running job stands; needs scope admin."""
    found = find_server(url, key, data_dir).job("GET", job_id, "/stack")
    say(f"{found['worker']}, process {found['pid']}, the newest call last:")
    say(found["stack"].rstrip())
