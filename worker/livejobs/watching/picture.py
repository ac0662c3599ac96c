"""What a viewer knows of a job, built up message by message."""

from __future__ import annotations

from ..entries import START, Cursor
from ..views import (
    EndMessage,
    JobMessage,
    JobView,
    LogLine,
    LogMessage,
    OutputMessage,
    ProgressMessage,
    ServerMessage,
    SubscribedMessage,
)


class Picture:
    """A job as seen so far; feed it every message of `watch()`.

    Attributes:
        view: The newest view, with the newest progress in it; None before the first.
        lines: The log of the running attempt.
        outputs: Text put out by the running attempt, by stream; None is the unnamed one.
        complete: False when retention has thrown away entries that were asked for.
        over: Whether the job has ended and everything about it has come.
    """

    def __init__(self) -> None:
        self.view: JobView | None = None
        self.lines: list[LogLine] = []
        self.outputs: dict[str | None, str] = {}
        self.complete = True
        self.over = False
        self._attempt = START.attempt

    def apply(self, message: ServerMessage) -> None:
        """Take in the next message."""
        match message:
            case SubscribedMessage():
                self.complete = self.complete and message.recovered
            case JobMessage():
                self._enter(message.job.attempt)
                self.view = message.job
            case ProgressMessage():
                if self.view is not None and message.attempt == self.view.attempt:
                    self.view = self.view.model_copy(update={"progress": message.progress})
            case LogMessage():
                self._enter(Cursor.parse(message.id).attempt)
                self.lines.extend(message.lines)
            case OutputMessage():
                self._enter(Cursor.parse(message.id).attempt)
                text = self.outputs.get(message.stream, "") + message.text
                self.outputs[message.stream] = text
            case EndMessage():
                self.over = True

    def _enter(self, attempt: int) -> None:
        """Begin afresh with a new attempt: it says everything again."""
        if attempt > self._attempt:
            self._attempt = attempt
            self.lines = []
            self.outputs = {}
