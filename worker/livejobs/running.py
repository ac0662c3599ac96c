"""What a running job reports, held until a reporter takes it; no I/O happens here.

A call stores a value and returns: it never waits or touches the network, and raises nothing but
what ends the task, `JobInterrupted`. The buffers are bounded: the newest progress always survives,
and what had to be dropped of log and output becomes one line that says so.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple, TypeVar

from .entries import Entry, ProgressReport, feed_channels
from .errors import JobCancelled, JobLost
from .family import Parent
from .pieces import MAX_LINE_CHARACTERS, Line, Piece, bodies, shortened
from .rollup import MOST, hand_in
from .statements import Along, Reported
from .views import MAX_PROGRESS_DATA_BYTES, format_time, storable, to_json

T = TypeVar("T")

MAX_BUFFER_BYTES = 4 * 1024 * 1024
"""Text of log and output that may wait in one job."""
COPY_ATTEMPTS = 5
"""How often progress data is read that the task changes meanwhile."""
RATE_SECONDS = 10.0
"""The rate is that of about so long."""

_log = logging.getLogger("livejobs.reporter")


class _Call(NamedTuple):
    current: Any
    total: Any
    message: Any
    stage: Any
    data: dict[str, Any]


def _never() -> None:
    return None


class RunningJob(Parent):
    """One execution of a job, for the code that does the work.

    Attributes:
        id: The job's id.
        attempt: Which execution this is, from 1.
        owner: Whose job it is.
        worker: Name of this claim, unique.
        feeds: Channels on which its progress is published beside the job's own.
        result: What `livejobs.track()` keeps as the job's result, JSON data.
    """

    def __init__(
        self,
        job_id: str,
        attempt: int,
        worker: str,
        *,
        owner: str = "",
        parent_id: str | None = None,
        keep: int = 10_000,
        cancel_at_report: bool = False,
        version: int = 0,
    ) -> None:
        super().__init__()
        self.id = job_id
        self.attempt = attempt
        self.worker = worker
        self.owner = owner
        self.parent_id = parent_id
        self.feeds = feed_channels(owner, parent_id)
        self.result: Any = None
        self.along: list[Along] = []  # what is committed with the job's completion
        self.outer: RunningJob | None = None  # the job in whose code this one runs
        self.replaced = False  # by other tasks, the last of which goes on under this id
        self.celery_state: tuple[str | None, Any] = (None, None)  # of the last update_state
        self.version = version  # of the row, as known here; 0: unknown
        self.thread = threading.get_ident()  # where the task's own code runs
        self._lost = False
        self.doubted = False  # whether it stands is being looked up
        self._cancel_requested = False
        self._stops = False  # it was lost or a cancel was requested, once
        self.next_message: Any = None  # of a retry, until its transition is made
        self._keep = keep
        self._cancel_at_report = cancel_at_report
        self._told: set[int] = set()  # threads that know they are to stop
        # A plain tuple of what `_Call` holds: making that one takes longer than all the rest.
        self._latest: tuple[Any, Any, Any, Any, dict[str, Any]] | None = None
        self._wake: Callable[[], None] = _never
        self._quiet = False
        self._attends = False  # it is quiet, or stops: the next report has more to do
        self._stage: str | None = None
        self.sending = threading.Lock()  # one publication at a time keeps the job's order
        self._taking = threading.Lock()  # held while reports are numbered; before `_lock`
        self._lock = threading.Lock()  # held for a moment only: the task waits for it
        self._buffer: deque[Line | Piece] = deque()
        self._buffered = 0
        self._dropped = 0
        self._taken: tuple[Any, Any, Any, Any, dict[str, Any]] | None = None
        self._progress: dict[str, Any] | None = None
        self._seq = 0
        self._sent_seq = 0
        self._saved_seq = 0
        self._last_n = 0
        self._unsent: list[Entry] = []
        self._unsaved: list[Entry] = []
        self._unsaved_bytes = 0
        self._rate = _Rate()

    # -- for the task ----------------------------------------------------------------------------

    def progress(
        self,
        current: float | None = None,
        total: float | None = None,
        *,
        message: str | None = None,
        stage: str | None = None,
        **data: Any,
    ) -> None:
        """Say how far the job is.

        Args:
            current: Items done; None: as before.
            total: Items in all; None: unknown.
            message: One line for people.
            stage: One word for what the job is doing.
            **data: Anything else to show, JSON data, up to 4 kB.

        Raises:
            JobLost, JobCancelled: As `report` says.
        """
        self._latest = (current, total, message, stage, data)
        # This is all that most calls do, so it is written out, here and in `report`.
        if self._attends:
            self._reported()

    def report(
        self, current: Any, total: Any, message: Any, stage: Any, data: dict[str, Any]
    ) -> None:
        """`progress` for a caller whose data may have any names.

        Raises:
            JobLost: The job has been given to another worker. Each thread is told once, so that
                the task's cleaning up may report too.
            JobCancelled: Somebody asked for a cancel, and `LIVEJOBS_CANCEL_AT_REPORT` is set.
        """
        self._latest = (current, total, message, stage, data)
        if self._attends:
            self._reported()

    def log(self, text: str, level: str = "info") -> None:
        """Add a line to the job's log; raises as `report` does."""
        self._append(lambda: Line(format_time(datetime.now(UTC)), str(level), str(text)))
        self._reported()

    def output(self, text: str, stream: str | None = None) -> None:
        """Add a piece of the result while it is made, such as a model's tokens.

        Args:
            text: The piece; pieces of a stream follow each other without anything between.
            stream: Name of the stream where a job has several.
        """
        self._append(lambda: Piece(None if stream is None else str(stream), str(text)))
        self._reported()

    def track(
        self,
        items: Iterable[T],
        total: float | None = None,
        *,
        stage: str | None = None,
        message: str | None = None,
    ) -> Iterator[T]:
        """Iterate over `items` and report each as one done.

        Args:
            items: What to work on.
            total: How many there are; by default their length, where they have one.

        Raises:
            JobCancelled: Somebody asked for the job to be cancelled.
            JobLost: The job has been given to another worker.
        """
        if total is None and isinstance(items, Sized):
            total = len(items)
        self.progress(0, total, stage=stage, message=message)
        for done, item in enumerate(items, start=1):
            self.check()
            yield item
            self.progress(done, total, stage=stage, message=message)

    def complete_with(self, program: Along) -> None:
        """Have statements executed in the transaction that completes the job: with it, or never.

        Args:
            program: Called in that transaction, again where it is tried again; a generator that
                yields statements, such as ``lambda: livejobs.usage.record(NewUsage(…))``. What it
                raises fails the job.
        """
        self.along.append(program)

    def hand_in(self, **numbers: int) -> None:
        """Have whole numbers added to the sums that this job's parent shows: when it completes.

        Without a parent it does nothing. What was handed in stays, also where this job is deleted.
        """
        for name, number in numbers.items():
            if abs(number) > MOST or number != int(number):
                raise ValueError(f"{name} has to be a whole number up to {MOST}, not {number!r}")
        if self.parent_id is not None:
            self.along.append(partial(hand_in, self.parent_id, numbers))

    @property
    def cancelled(self) -> bool:
        """Whether somebody has asked for the job to be cancelled."""
        return self.cancel_requested

    def check(self) -> None:
        """Raise `JobCancelled` or `JobLost` where the job should not go on."""
        if self.lost or self.cancel_requested:
            self._told.add(threading.get_ident())
            raise JobLost(self.id) if self.lost else JobCancelled(self.id)

    def _reported(self) -> None:
        """Wake the reporter out of its rest; end a task that is to stop."""
        if self._quiet:
            self._wake()
        stop = self.lost or (self.cancel_requested and self._cancel_at_report)
        if stop and threading.get_ident() not in self._told:
            self.check()

    def _append(self, make: Callable[[], Line | Piece]) -> None:
        try:
            item = make()
        except Exception:
            _log.warning("job %s reported something that is no text", self.id, exc_info=True)
            return
        # Of a line that is too long, numbering shows where it was cut.
        most = MAX_LINE_CHARACTERS + 1 if isinstance(item, Line) else MAX_BUFFER_BYTES
        text = item.text[:most]
        with self._lock:
            room = MAX_BUFFER_BYTES - self._buffered
            if room < len(text) or (most < len(item.text) and isinstance(item, Piece)):
                self._dropped += 1
                text = text[: max(room, 0)]
                if not text:
                    return
            self._buffer.append(item._replace(text=text))
            self._buffered += len(text)

    # -- for the reporter ------------------------------------------------------------------------

    def listen(self, wake: Callable[[], None]) -> None:
        """`wake` is called at the first report after `rest()`."""
        self._wake = wake
        self.rest(quiet=True)

    @property
    def lost(self) -> bool:
        """Whether the claim does not stand any more."""
        return self._lost

    @lost.setter
    def lost(self, lost: bool) -> None:
        self._lost = lost
        self._stops = self._stops or lost
        self._attends = self._attends or self._stops

    @property
    def cancel_requested(self) -> bool:
        """Whether somebody asked for a cancel."""
        return self._cancel_requested

    @cancel_requested.setter
    def cancel_requested(self, requested: bool) -> None:
        self._cancel_requested = requested
        self._stops = self._stops or requested
        self._attends = self._attends or self._stops

    def rest(self, quiet: bool) -> None:
        """Set whether the next report is the first after a silence."""
        self._quiet = quiet
        self._attends = quiet or self._stops
        # Another thread may have had it stop since it was asked: then it had not said so yet.
        if self._stops:
            self._attends = True

    @property
    def has_unsent(self) -> bool:
        """Whether there is something Redis does not have."""
        return (
            self._latest is not self._taken
            or self._seq > self._sent_seq
            or bool(self._buffer or self._unsent)
        )

    @property
    def has_unsaved(self) -> bool:
        """Whether there is something the database does not have."""
        return self._seq > self._saved_seq or bool(self._unsaved)

    @property
    def last_n(self) -> int:
        """Number of the last entry."""
        return self._last_n

    def take(self, everything: bool = False) -> tuple[list[Entry], ProgressReport | None]:
        """Number what has been reported; returns what Redis does not have.

        Args:
            everything: At the end of the job: even if much waits for the database.
        """
        with self._taking:
            self._take_progress()
            if everything or self._unsaved_bytes < MAX_BUFFER_BYTES:
                self._number()
            with self._lock:
                unsent = list(self._unsent)
                progress = self._progress if self._seq > self._sent_seq else None
                seq = self._seq
        return unsent, None if progress is None else ProgressReport(seq, to_json(progress))

    def sent(self, entries: list[Entry], report: ProgressReport | None) -> None:
        """Redis has these."""
        with self._lock:
            del self._unsent[: len(entries)]
            if report is not None:
                self._sent_seq = max(self._sent_seq, report.seq)

    def not_sent(self) -> None:
        """Redis is away: of what waits for it, no more than a bound is kept.

        The database gets every entry all the same, and viewers get from there what is dropped.
        """
        with self._lock:
            while len(self._unsent) > 1 and _size(self._unsent) > MAX_BUFFER_BYTES:
                del self._unsent[: len(self._unsent) // 2]

    def reported(self) -> Reported:
        """What the database does not have."""
        with self._lock:
            return Reported(
                progress=self._progress if self._seq > self._saved_seq else None,
                seq=self._seq,
                entries=tuple(self._unsaved),
                last_n=self._last_n,
                keep=self._keep,
            )

    def saved(self, reported: Reported) -> None:
        """The database has these."""
        with self._lock:
            del self._unsaved[: len(reported.entries)]
            self._unsaved_bytes = _size(self._unsaved)
            self._saved_seq = max(self._saved_seq, reported.seq)

    def _take_progress(self) -> None:
        """Make the newest progress readable; the caller holds `_taking`."""
        latest = self._latest
        if latest is None or latest is self._taken:
            return
        try:
            progress = self._readable(_Call(*latest))
        except Exception:
            _log.warning("job %s reported progress that cannot be shown", self.id, exc_info=True)
        else:
            with self._lock:
                self._progress = progress
                self._seq += 1
        self._taken = latest

    def _readable(self, call: _Call) -> dict[str, Any]:
        before = self._progress or {}
        current = before.get("current", 0) if call.current is None else _number(call.current)
        total = None if call.total is None else _number(call.total)
        stage = before.get("stage") if call.stage is None else shortened(call.stage, 100)
        if stage != before.get("stage") or current < before.get("current", 0):
            self._rate = _Rate()
        rate = self._rate.add(current, time.monotonic())
        fraction = eta = None
        if total is not None and total > 0:
            fraction = round(min(max(current / total, 0.0), 1.0), 4)
            if rate:
                eta = round(max(total - current, 0) / rate, 1)
        return {
            "current": current,
            "total": total,
            "fraction": fraction,
            "stage": stage,
            "message": None if call.message is None else shortened(call.message),
            "rate": rate,
            "eta_seconds": eta,
            "data": self._small(call.data) if call.data else {},
        }

    def _small(self, data: dict[str, Any]) -> dict[str, Any]:
        plain = self._copied(data)
        if len(to_json(plain).encode()) <= MAX_PROGRESS_DATA_BYTES:
            return plain
        _log.warning("job %s: progress data over %d bytes is left out", self.id, 4096)
        return {}

    def _copied(self, data: dict[str, Any]) -> dict[str, Any]:
        """`data` as plain JSON data; empty where it cannot be read, so that the rest is shown."""
        for attempt in range(1, COPY_ATTEMPTS + 1):
            try:
                plain: dict[str, Any] = storable(data)
                return plain
            except RuntimeError:
                # The task changes it while it is read here.
                if attempt == COPY_ATTEMPTS:
                    _log.warning("job %s: progress data that keeps changing is left out", self.id)
            except Exception:
                _log.warning(
                    "job %s: progress data that cannot be shown is left out", self.id, exc_info=True
                )
                break
        return {}

    def _number(self) -> None:
        """Turn the buffer into numbered entries; the caller holds `_taking`."""
        with self._lock:
            buffer, self._buffer = self._buffer, deque()
            dropped, self._dropped = self._dropped, 0
            self._buffered = 0
        if dropped:
            text = f"{dropped} reports were dropped: they came faster than they could go out"
            buffer.append(Line(format_time(datetime.now(UTC)), "warning", text))
        entries = [
            Entry(n, kind, body) for n, (kind, body) in enumerate(bodies(buffer), self._last_n + 1)
        ]
        with self._lock:
            self._last_n += len(entries)
            self._unsent += entries
            self._unsaved += entries
            self._unsaved_bytes += _size(entries)


current: ContextVar[RunningJob | None] = ContextVar("livejobs_current", default=None)
"""The job whose code is running here."""


def find_running(job_id: str) -> RunningJob | None:
    """The job of this id whose code is running here, perhaps around another one's."""
    job = current.get()
    while job is not None and job.id != job_id:
        job = job.outer
    return job


class _Rate:
    """Items per second over the last while."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque()

    def add(self, current: float, now: float) -> float | None:
        """Add a sample; returns the rate, None while there is too little to tell."""
        samples = self._samples
        samples.append((now, current))
        while len(samples) > 2 and samples[1][0] <= now - RATE_SECONDS:
            samples.popleft()
        since, first = samples[0]
        if now - since < 0.2 or current <= first:
            return None
        return float(f"{(current - first) / (now - since):.3g}")


def _size(entries: list[Entry]) -> int:
    return sum(len(entry.body) for entry in entries)


def _number(value: Any) -> float | int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        value = float(value)
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError("progress has to be a finite number")
    return int(value) if isinstance(value, int) or value.is_integer() else float(value)
