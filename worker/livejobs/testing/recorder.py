"""A recorder of what viewers would be told."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from ..entries import Cursor
from ..live import Outcome, Publication
from ..reporter import publishing_to
from ..views import JobMessage, JobView, LogMessage, OutputMessage, ServerMessage, server_message

Entry = LogMessage | OutputMessage
"""An entry of a job: lines of its log, or a piece of its output."""


class Recorder:
    """Takes the place of Redis and keeps the messages that viewers would get.

    Attributes:
        messages: All messages, in the order of their publication.
    """

    def __init__(self) -> None:
        self.messages: list[ServerMessage] = []

    def publish(self, publication: Publication) -> Outcome:
        """Keep what would be published."""
        job_id, attempt = publication.job_id, publication.attempt
        for entry in publication.entries:
            cursor = str(Cursor(attempt, entry.n))
            fields = json.loads("{" + entry.body)
            self._keep({"type": entry.kind, "id": cursor, "job_id": job_id, **fields})
        cursor = str(Cursor(attempt, publication.last_n))
        if publication.progress is not None:
            report = publication.progress
            fields = {"attempt": attempt, "seq": report.seq, "progress": json.loads(report.json)}
            self._keep({"type": "progress", "id": cursor, "job_id": job_id, **fields})
        if publication.view is not None:
            view = publication.view
            job = json.loads(view.before + view.progress + view.after)
            self._keep({"type": "job", "id": cursor, "job": job})
        return Outcome(True, attempt, 0)

    def close(self) -> None:
        """There is nothing to close."""

    def of(self, job_id: str) -> list[ServerMessage]:
        """The messages about one job."""
        return [message for message in self.messages if _job_of(message) == job_id]

    @property
    def views(self) -> list[JobView]:
        """The view that a viewer of each job ends with, in the order in which jobs appeared."""
        told = [message.job for message in self.messages if isinstance(message, JobMessage)]
        return list({view.job_id: view for view in sorted(told, key=_version)}.values())

    def view(self, job_id: str) -> JobView:
        """The view a viewer ends with.

        Raises:
            LookupError: Nothing was published about this job.
        """
        views = [message.job for message in self.of(job_id) if isinstance(message, JobMessage)]
        if not views:
            raise LookupError(f"nothing was published about job {job_id}")
        return max(views, key=_version)

    def entries(self, job_id: str) -> list[Entry]:
        """The job's log and output, of all its attempts."""
        return [message for message in self.of(job_id) if isinstance(message, Entry)]

    def lines(self, job_id: str) -> list[str]:
        """The text of the job's log lines."""
        return lines_of(self.entries(job_id))

    def output(self, job_id: str, stream: str | None = None) -> str:
        """The job's output."""
        return output_of(self.entries(job_id), stream)

    def _keep(self, fields: dict[str, Any]) -> None:
        self.messages.append(server_message.validate_python(fields))


@contextlib.contextmanager
def recording() -> Iterator[Recorder]:
    """Record what viewers would be told, in place of Redis; the database stays as it is set."""
    recorder = Recorder()
    with publishing_to(recorder):
        yield recorder


def lines_of(entries: list[Entry]) -> list[str]:
    """The text of the log lines among entries."""
    return [line.text for entry in entries if isinstance(entry, LogMessage) for line in entry.lines]


def output_of(entries: list[Entry], stream: str | None) -> str:
    """The output among entries."""
    pieces = [entry for entry in entries if isinstance(entry, OutputMessage)]
    return "".join(piece.text for piece in pieces if piece.stream == stream)


def _version(view: JobView) -> int:
    return view.version


def _job_of(message: ServerMessage) -> str | None:
    return (
        message.job.job_id if isinstance(message, JobMessage) else getattr(message, "job_id", None)
    )
