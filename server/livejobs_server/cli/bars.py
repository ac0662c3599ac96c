"""Jobs on the screen: live bars on a terminal, plain lines anywhere else."""

from __future__ import annotations

from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

from livejobs.views import JobView, Status

STYLES = {
    Status.PENDING: "dim",
    Status.PROCESSING: "cyan",
    Status.COMPLETED: "green",
    Status.FAILED: "bold red",
    Status.CANCELLED: "yellow",
}

_PLAIN_STEP = 0.25
"""Fraction of progress after which a plain line is worth writing."""


def progress_text(job: JobView) -> str:
    """A job's progress in one short line."""
    progress = job.progress
    if job.error is not None and job.status is Status.FAILED:
        return job.error.message.partition("\n")[0]
    if progress is None:
        return ""
    total = "" if progress.total is None else f"/{progress.total:g}"
    words = [f"{progress.current:g}{total}", progress.stage, progress.message]
    return " ".join(word for word in words if word)


class Board(Protocol):
    """Shows jobs while they run; used as a context manager.

    Rows have a key of their own: one job may have several, one for each transport.
    """

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def add(self, key: str, label: str) -> None:
        """Add a row."""

    def show(self, key: str, job: JobView) -> None:
        """Show a row's job as it is now."""

    def note(self, text: str) -> None:
        """Write a line above the rows."""


def make_board(console: Console) -> Board:
    """The board that fits where `console` writes to."""
    return LiveBoard(console) if console.is_terminal else PlainBoard(console)


class LiveBoard:
    """Bars that move.

    Args:
        console: A terminal.
    """

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            _StatusColumn(),
            _DetailColumn(),
            console=console,
        )
        self._rows: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def add(self, key: str, label: str) -> None:
        """Add a row."""
        self._rows[key] = self._progress.add_task(label, total=None, job=None)

    def show(self, key: str, job: JobView) -> None:
        """Show a row's job as it is now."""
        completed, total = _amount(job)
        self._progress.update(self._rows[key], completed=completed, total=total, job=job)

    def note(self, text: str) -> None:
        """Write a line above the bars."""
        self._progress.console.print(Text(text))


class PlainBoard:
    """A line for each change worth one.

    Args:
        console: Where to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._labels: dict[str, str] = {}
        self._shown: dict[str, tuple[Status, int]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def add(self, key: str, label: str) -> None:
        """Add a row."""
        self._labels[key] = label

    def show(self, key: str, job: JobView) -> None:
        """Write a line where the status changed or a good piece of work was done."""
        completed, total = _amount(job)
        state = (job.status, int(completed / total / _PLAIN_STEP) if total else 0)
        if self._shown.get(key) == state:
            return
        self._shown[key] = state
        detail = progress_text(job)
        self.note(f"{self._labels[key]}  {job.status}" + (f"  {detail}" if detail else ""))

    def note(self, text: str) -> None:
        """Write a line."""
        self._console.print(Text(text), soft_wrap=True)


def _amount(job: JobView) -> tuple[float, float | None]:
    """How much is done of how much; a job that completed is done whatever it reported last."""
    progress = job.progress
    if job.status is Status.COMPLETED:
        return 1.0, 1.0
    if progress is None or not progress.total:
        return 0.0, 1.0 if job.status.is_final else None
    return float(progress.current), float(progress.total)


class _StatusColumn(ProgressColumn):
    """The status in its colour."""

    def render(self, task: Task) -> Text:
        job: JobView | None = task.fields["job"]
        if job is None:
            return Text("connecting", style="dim")
        return Text(job.status, style=STYLES[job.status])


class _DetailColumn(ProgressColumn):
    """What the job says it is doing, and how long that may take."""

    def render(self, task: Task) -> Text:
        job: JobView | None = task.fields["job"]
        if job is None:
            return Text("")
        text = progress_text(job)
        eta = job.progress.eta_seconds if job.progress and not job.status.is_final else None
        if eta is not None:
            text += f"  {eta:.0f} s left"
        return Text(text, no_wrap=True, overflow="ellipsis")
