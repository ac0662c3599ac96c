"""What the demo saw: who agrees with the database, and what the search found."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from livejobs.views import JobView, Status
from livejobs.watching import Picture

TransportName = Literal["websocket", "sse", "poll"]
TRANSPORTS: Final[tuple[TransportName, ...]] = ("websocket", "sse", "poll")

_HEADINGS: Final = {
    "websocket": "WebSocket",
    "sse": "SSE",
    "poll": "polling",
    "rest": "REST",
    "row": "database",
}


@dataclass(slots=True)
class Seen:
    """One job, and what each source says of it in the end.

    Attributes:
        job_id: The job.
        name: The document, or the task.
        token: A token good for this job only, as a browser would have.
        pictures: What each transport showed.
        rest: The view by REST.
        row: The view made from the row in the database: the truth.
    """

    job_id: str
    name: str
    token: str = field(repr=False)
    pictures: dict[TransportName, Picture] = field(default_factory=dict)
    rest: JobView | None = None
    row: JobView | None = None

    def sources(self) -> dict[str, JobView | None]:
        """The final view of each source, the truth last."""
        views: dict[str, JobView | None] = dict.fromkeys(TRANSPORTS)
        for name, picture in self.pictures.items():
            views[name] = picture.view
        return {**views, "rest": self.rest, "row": self.row}


def disagreements(job: Seen) -> dict[str, str]:
    """What is not as it must be, by source; empty where all is well."""
    wrong: dict[str, str] = {}
    for source, view in job.sources().items():
        if why := _why_wrong(view, job.row):
            wrong[source] = why
    reference = job.pictures.get("websocket")
    for name, picture in job.pictures.items():
        if not (picture.over and picture.complete):
            wrong.setdefault(name, "it did not show all until the end")
        elif reference and (picture.lines, picture.outputs) != (
            reference.lines,
            reference.outputs,
        ):
            wrong.setdefault(name, "its log or output is not that of the WebSocket")
    return wrong


def _why_wrong(view: JobView | None, truth: JobView | None) -> str | None:
    if view is None or truth is None:
        return "it shows nothing"
    if view.status is not Status.COMPLETED:
        reason = f": {view.error.message}" if view.error else ""
        return f"it says {view.status}{reason}"
    shown, true = view.model_dump(mode="json"), truth.model_dump(mode="json")
    fields = [name for name in true if shown[name] != true[name]]
    return f"other {', '.join(fields)} than the database" if fields else None


def print_table(console: Console, jobs: Sequence[Seen]) -> bool:
    """Print a line for each job with a tick for each source; whether all agree."""
    yes, no = ("✓", "✗") if console.encoding.lower().startswith("utf") else ("yes", "NO")
    table = Table(title="Final views", title_justify="left", title_style="bold", box=None)
    table.add_column("job", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("log lines", justify="right", no_wrap=True)
    for heading in _HEADINGS.values():
        table.add_column(heading, justify="center", no_wrap=True)
    problems: list[str] = []
    for job in jobs:
        wrong = disagreements(job)
        ticks = [
            Text(no, style="bold red") if source in wrong else Text(yes, style="green")
            for source in _HEADINGS
        ]
        lines = max((len(picture.lines) for picture in job.pictures.values()), default=0)
        status = "unknown" if job.row is None else str(job.row.status)
        table.add_row(Text(job.name), status, str(lines), *ticks)
        problems += [f"{job.name}, {_HEADINGS[source]}: {why}" for source, why in wrong.items()]
    console.print(table)
    for problem in problems:
        console.print(Text(problem, style="red"), soft_wrap=True)
    return not problems


def print_hits(console: Console, query: str, hits: Sequence[dict[str, Any]]) -> None:
    """Print what a search found, the hits in bold."""
    console.print(Text(f"Search for {query!r}:", style="bold"))
    for hit in hits:
        page = "" if hit["page"] is None else f", page {hit['page']}"
        console.print(Text(f"  {hit['name']}{page}", style="cyan"))
        console.print(Padding(_marked(hit["snippet"]), (0, 0, 0, 4)))


def _marked(snippet: str) -> Text:
    """A snippet, which is HTML, as text with its marks in bold."""
    text = Text()
    for number, part in enumerate(re.split(r"</?mark>", snippet)):
        words = " ".join(html.unescape(part).split("\n"))
        text.append(words, style="bold yellow" if number % 2 else "")
    return text
