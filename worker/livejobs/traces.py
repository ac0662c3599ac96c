"""OpenTelemetry spans: from the call that starts a job to its execution and its viewers.

The span of the request around that call is FastAPI's own, or an instrumentation's. Where
`opentelemetry-api` is not installed, or no SDK is set up, nothing happens. The context goes along
in the headers of the Celery message, as the process's propagators write it, and is kept with the
message in the job's row.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from celery.exceptions import Ignore, Reject, Retry

try:
    from opentelemetry import propagate, trace
except ImportError:  # It is an extra.
    trace = None  # type: ignore[assignment]

LIBRARY = "livejobs"
JOB_ID = "livejobs.job_id"
TASK = "livejobs.task"
QUEUE = "livejobs.queue"
ATTEMPT = "livejobs.attempt"
"""Attributes of the spans."""


def are_on() -> bool:
    """Whether spans go anywhere: an SDK was set up in this process."""
    if trace is None:
        return False
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def carried(source: Mapping[str, Any]) -> dict[str, str]:
    """What of a message's headers is the context of a trace."""
    if not are_on():
        return {}
    fields = propagate.get_global_textmap().fields
    found = {field: source.get(field) for field in fields}
    return {field: value for field, value in found.items() if isinstance(value, str)}


@contextlib.contextmanager
def sending(task: str, job_id: str, headers: dict[str, Any]) -> Iterator[None]:
    """A job is made: its message carries the context on.

    Args:
        headers: Of the message; the context is added where nobody did.
    """
    if not are_on():
        yield
        return
    with trace.get_tracer(LIBRARY).start_as_current_span(
        f"enqueue {task}", kind=trace.SpanKind.PRODUCER, attributes={JOB_ID: job_id, TASK: task}
    ):
        if not carried(headers):
            propagate.inject(headers)
        yield


@contextlib.contextmanager
def running(
    task: str, job_id: str, attempt: int, queue: str, headers: Mapping[str, Any]
) -> Iterator[None]:
    """An execution of a job; an error of the task is the span's.

    Args:
        headers: Of the message.
    """
    if not are_on():
        yield
        return
    attributes: dict[str, str | int] = {JOB_ID: job_id, TASK: task, ATTEMPT: attempt, QUEUE: queue}
    with trace.get_tracer(LIBRARY).start_as_current_span(
        f"run {task}",
        context=propagate.extract(carried(headers)),
        kind=trace.SpanKind.CONSUMER,
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield
        except (Ignore, Reject, Retry):
            raise  # It goes on elsewhere, or later.
        except Exception as error:
            span.record_exception(error)
            span.set_status(trace.Status(trace.StatusCode.ERROR, type(error).__name__))
            raise


def delivered(task: str, job_id: str, began: int, ended: int, headers: Mapping[str, Any]) -> None:
    """The end of a job was handed to those who watch it.

    Args:
        began: When it was heard, in nanoseconds since the epoch.
        ended: When all had been written to.
        headers: Of the job's message.
    """
    if not are_on():
        return
    span = trace.get_tracer(LIBRARY).start_span(
        f"deliver {task}",
        context=propagate.extract(carried(headers)),
        kind=trace.SpanKind.PRODUCER,
        attributes={JOB_ID: job_id, TASK: task},
        start_time=began,
    )
    span.end(ended)
