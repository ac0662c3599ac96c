"""`livejobs watch`: jobs live on the terminal."""

from __future__ import annotations

import asyncio
import sys
from enum import StrEnum
from typing import Annotated, Any

import typer

from .client import DEFAULT_DATA_DIR, DataDirOption, KeyOption, Server, UrlOption, find_server
from .console import complain


class Way(StrEnum):
    """How messages come in."""

    AUTO = "auto"
    WEBSOCKET = "websocket"
    SSE = "sse"
    POLL = "poll"


def add_to(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("watch")(watch)


def watch(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="The jobs.")],
    log: Annotated[bool, typer.Option("--log", help="Show their log lines.")] = False,
    output: Annotated[
        bool, typer.Option("--output", help="Write what they put out to standard output.")
    ] = False,
    transport: Annotated[
        Way, typer.Option(help="auto: WebSocket, else server-sent events, else polling.")
    ] = Way.AUTO,
    url: UrlOption = None,
    key: KeyOption = None,
    data_dir: DataDirOption = DEFAULT_DATA_DIR,
) -> None:
    """Watch jobs to their end; exits with 0 when all completed, with 1 when one did not."""
    server = find_server(url, key, data_dir)
    raise typer.Exit(follow(server, ids, log=log, output=output, transport=transport))


def follow(
    server: Server,
    ids: list[str],
    *,
    log: bool = False,
    output: bool = False,
    transport: str = "auto",
) -> int:
    """Watch jobs on the terminal; returns the exit code."""
    from rich.console import Console

    from .bars import PlainBoard, make_board

    # Bars go to standard error: what the jobs put out can be piped on.
    console = Console(stderr=True, highlight=False)
    # Text on the same terminal would tear the bars.
    mixed = output and sys.stdout.isatty()
    board = PlainBoard(console) if mixed else make_board(console)
    with board:
        session = _Session(server, board, log, output, transport)
        try:
            completed = asyncio.run(session.follow_all(list(dict.fromkeys(ids))))
        except KeyboardInterrupt:
            return 130
    return 0 if completed else 1


class _Session:
    """Follows some jobs at once, all shown on one board."""

    def __init__(self, server: Server, board: Any, log: bool, output: bool, transport: str) -> None:
        self.server = server
        self.board = board
        self.log = log
        self.output = output
        self.transport: Any = transport

    async def follow_all(self, ids: list[str]) -> bool:
        """Follow each to its end; whether all completed."""
        for job_id in ids:
            self.board.add(job_id, job_id)
        results = await asyncio.gather(*map(self._follow, ids))
        return all(results)

    async def _follow(self, job_id: str) -> bool:
        from livejobs.errors import LivejobsError
        from livejobs.views import Status
        from livejobs.watching import Picture
        from livejobs.watching import watch as messages

        picture = Picture()
        try:
            async for message in messages(
                job_id,
                url=self.server.url,
                api_key=self.server.key,
                transport=self.transport,
                entries=self.log or self.output,
                on_connection=lambda event: self._tell(job_id, event),
            ):
                picture.apply(message)
                self._show(job_id, message, picture)
        except LivejobsError as error:
            complain(str(error))
            return False
        return picture.view is not None and picture.view.status is Status.COMPLETED

    def _show(self, job_id: str, message: Any, picture: Any) -> None:
        from livejobs.views import LogMessage, OutputMessage

        if isinstance(message, LogMessage) and self.log:
            for line in message.lines:
                self.board.note(f"{job_id}  {line.level}: {line.text}")
        elif isinstance(message, OutputMessage) and self.output:
            sys.stdout.write(message.text)
            sys.stdout.flush()
        elif picture.view is not None:
            self.board.show(job_id, picture.view)

    def _tell(self, job_id: str, event: Any) -> None:
        if event.connected or not event.reason:
            return
        when = f"in {event.delay:.0f} s" if event.delay >= 1 else "now"
        self.board.note(
            f"{job_id}  connection lost ({event.reason}), trying {event.transport} {when}"
        )
