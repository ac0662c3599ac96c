"""OpenTelemetry spans of a job: its request, its enqueueing, its executions, its viewers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from celery.exceptions import Ignore, Retry
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from livejobs import traces
from livejobs.database import AsyncDatabase
from livejobs.reads import job as job_of
from livejobs.settings import Settings, configure

from ..support.led_jobs import MESSAGE, MakeJob
from ..support.live_server import on_sqlite, receive_until, running_server, subscribe
from ..support.waiting import wait_until, wait_until_async
from ..support.worker import celery_worker

pytest_plugins = ["tests.support.live_stack", "tests.support.rest"]

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
CALLER = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """All spans of this process."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    yield exporter
    provider.shutdown()


def named(spans: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    """Finished spans by name."""
    return {span.name: span for span in spans.get_finished_spans()}


def trace_of(span: ReadableSpan) -> str:
    return format(span.context.trace_id, "032x")


def ancestors(span: ReadableSpan, spans: InMemorySpanExporter) -> set[int]:
    """The spans around a span."""
    parents = {each.context.span_id: each.parent for each in spans.get_finished_spans()}
    found, parent = set[int](), span.parent
    while parent is not None:
        found.add(parent.span_id)
        parent = parents.get(parent.span_id)
    return found


@on_sqlite
async def test_request_and_enqueueing_are_spans_of_the_callers_trace(
    spans: InMemorySpanExporter, alice: httpx.AsyncClient, async_database: AsyncDatabase
) -> None:
    response = await alice.post("/v1/jobs", json={"task": "demo.led"}, headers=CALLER)
    job_id = response.json()["job_id"]
    found = named(spans)
    request, sent = found["POST /v1/jobs"], found["enqueue demo.led"]
    assert (request.kind, sent.kind) == (SpanKind.SERVER, SpanKind.PRODUCER)
    assert trace_of(request) == trace_of(sent) == TRACE
    assert request.parent is not None
    assert format(request.parent.span_id, "016x") == PARENT
    assert request.context.span_id in ancestors(sent, spans)
    assert sent.attributes is not None
    assert sent.attributes[traces.JOB_ID] == job_id
    # The message carries it on, whoever sends it later.
    row = await async_database.read(job_of(job_id))
    assert row is not None
    expected = f"00-{TRACE}-{sent.context.span_id:016x}-01"
    assert row.message["headers"]["traceparent"] == expected


@on_sqlite
async def test_end_that_viewers_are_told_is_a_span_of_the_jobs_trace(
    spans: InMemorySpanExporter, settings: Settings, make_job: MakeJob, seam: dict[str, Any]
) -> None:
    job = await make_job(message=MESSAGE | {"headers": CALLER})
    await job.claim()
    async with running_server(settings, **seam) as server, server.socket() as socket:
        await subscribe(socket, job.id)
        await job.complete()
        await receive_until(socket, "end")
        await wait_until_async(lambda: "deliver demo.led" in named(spans), description="the span")
    told = named(spans)["deliver demo.led"]
    assert trace_of(told) == TRACE
    assert told.attributes is not None
    assert told.attributes[traces.JOB_ID] == job.id
    assert told.start_time is not None
    assert told.end_time is not None
    assert told.start_time <= told.end_time


def test_error_of_a_task_is_its_spans(spans: InMemorySpanExporter) -> None:
    def run(error: Exception) -> None:
        with traces.running("demo", "j", 2, "q", CALLER):
            raise error

    for error in (ValueError("no"), Retry(), Ignore()):
        with pytest.raises(type(error)):
            run(error)
    failed, *others = spans.get_finished_spans()
    assert (failed.name, failed.kind, trace_of(failed)) == ("run demo", SpanKind.CONSUMER, TRACE)
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.status.description == "ValueError"
    assert [event.name for event in failed.events] == ["exception"]
    assert [span.status.status_code for span in others] == [StatusCode.UNSET] * 2


@on_sqlite
def test_execution_in_a_worker_is_a_span_of_the_callers_trace(
    spans: InMemorySpanExporter, settings: Settings, tmp_path: Path, jobs_app: Any
) -> None:
    written = tmp_path / "spans"
    app, env = "tests.support.traced_app", {"TRACES": str(written)}

    def runs() -> list[dict[str, Any]]:
        lines = written.read_text().splitlines() if written.exists() else []
        found = [json.loads(line) for line in lines]
        return [span for span in found if span["name"].startswith("run ")]

    with celery_worker(settings, tmp_path / "log", app, concurrency=1, env=env):
        with trace.get_tracer("test").start_as_current_span("caller") as caller:
            job_id = jobs_app.add.delay(1, 2).id
            jobs_app.flaky.delay(1)
        wait_until(lambda: len(runs()) >= 3, description="the spans", seconds=30)
    expected = f"0x{caller.get_span_context().trace_id:032x}"
    assert {span["context"]["trace_id"] for span in runs()} == {expected}
    attempts = sorted(
        (span["attributes"][traces.JOB_ID] == job_id, span["attributes"][traces.ATTEMPT])
        for span in runs()
    )
    assert attempts == [(False, 1), (False, 2), (True, 1)]


@pytest.fixture
def jobs_app(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The app of the worker, on this side."""
    monkeypatch.setenv("REDIS_URL", settings.redis_url)
    from ..support import jobs_app

    configure(**settings.model_dump())
    return jobs_app


def test_nothing_is_traced_without_an_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    headers: dict[str, Any] = {}
    for missing in (trace, None):
        monkeypatch.setattr(traces, "trace", missing)
        assert not traces.are_on()
        with (
            traces.sending("t", "j", headers),
            traces.running("t", "j", 1, "q", CALLER),
        ):
            traces.delivered("t", "j", 1, 2, CALLER)
        assert (headers, traces.carried(CALLER)) == ({}, {})


def test_sdk_works_where_the_library_is_not_installed() -> None:
    program = "import sys; sys.modules['opentelemetry'] = None; import livejobs.traces as t; "
    subprocess.run([sys.executable, "-c", program + "assert not t.are_on()"], check=True)
