"""The wire: what is written for other languages is current, and all who compose messages agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from jsonschema import Draft202012Validator

from livejobs import views
from livejobs.entries import view_report
from livejobs.views import JobView, ServerMessage, Wire, server_message
from livejobs_server.push import wire
from livejobs_server.push.closes import (
    BUSY,
    DONE,
    INVALID,
    LATER,
    NO_CREDENTIALS,
    RESTART,
    STALLED,
    UNKNOWN,
)
from livejobs_server.snapshots import entry_message

from ..fixtures.asyncapi import asyncapi_document
from ..fixtures.examples import EXAMPLES, JOB, JOBS
from ..fixtures.written import MESSAGES, written_files

ROOT = Path(__file__).parents[2]
PROTOCOL = (ROOT / "docs/reference/protocol.md").read_text(encoding="utf-8")

MODELS = get_args(get_args(ServerMessage)[0])
EVERY_EXAMPLE = [(kind, example) for kind in EXAMPLES for example in EXAMPLES[kind]]


def wire_name(model: type[Any]) -> str:
    return str(model.model_fields["type"].default)


# -- written for others --------------------------------------------------------------------------


@pytest.mark.parametrize("name", written_files())
def test_written_file_is_current(name: str) -> None:
    assert (ROOT / name).read_text(encoding="utf-8") == written_files()[name], (
        "write it anew: python -m tests.fixtures"
    )


def test_every_message_has_a_file_and_every_file_a_message() -> None:
    files = {path.stem for path in (ROOT / MESSAGES).glob("*.json")}
    assert files == {wire_name(model) for model in MODELS} == set(EXAMPLES)


@pytest.mark.parametrize(("kind", "example"), EVERY_EXAMPLE)
def test_example_is_read_back_as_itself(kind: str, example: Any) -> None:
    text = example.model_dump_json()
    assert server_message.validate_json(text) == example
    assert json.loads(text)["type"] == kind


@pytest.mark.parametrize("model", MODELS)
def test_every_field_is_filled_in_some_example(model: type[Any]) -> None:
    filled: set[str] = set()
    for example in EXAMPLES[wire_name(model)]:
        filled |= {name for name, value in example if value is not None}
    assert filled == set(model.model_fields)


def test_every_field_of_the_view_is_filled_in_some_example() -> None:
    filled: set[str] = set()
    for message in JOBS:
        filled |= {name for name, value in message.job if value not in (None, {}, "", False)}
    assert filled == set(JobView.model_fields)


# -- AsyncAPI ------------------------------------------------------------------------------------


def schema_of(name: str) -> Draft202012Validator:
    document = asyncapi_document()
    reference = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    return Draft202012Validator(reference)


@pytest.mark.parametrize(("kind", "example"), EVERY_EXAMPLE)
def test_example_fits_its_schema(kind: str, example: Any) -> None:
    validator = schema_of(type(example).__name__)
    validator.validate(example.model_dump(mode="json"))
    assert not validator.is_valid({"type": kind + "?"})


def test_asyncapi_names_every_message_and_op() -> None:
    document = yaml.safe_load((ROOT / "docs/reference/asyncapi.yaml").read_text(encoding="utf-8"))
    names = {message["name"] for message in document["components"]["messages"].values()}
    ops = {"auth", "subscribe", "unsubscribe", "ping"}
    assert names == {wire_name(model) for model in MODELS} | ops | {"WatchBody"}


def test_asyncapi_references_lead_somewhere() -> None:
    document = asyncapi_document()
    references = set(find_references(document))
    assert references
    for reference in references:
        found = document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]


def find_references(part: Any) -> list[str]:
    if isinstance(part, dict):
        own = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
        return own + [found for value in part.values() for found in find_references(value)]
    if isinstance(part, list):
        return [found for value in part for found in find_references(value)]
    return []


# -- those who compose messages without the models -------------------------------------------------


def same(payload: bytes, message: Wire) -> bool:
    return bool(json.loads(payload) == message.model_dump(mode="json"))


@pytest.mark.parametrize("message", JOBS)
def test_view_composed_around_its_progress_is_the_models_own(message: views.JobMessage) -> None:
    report = view_report(message.job, 3)
    view = (report.before + report.progress + report.after).encode()
    attempt, n = (int(part) for part in message.id.split("-"))
    frame = wire.job_frame(JOB, view, attempt, n, message.job.version, 3, report.final)
    assert same(frame.payload, message)
    assert frame.kind == ("final" if message.job.status.is_final else "job")


@pytest.mark.parametrize("message", [*EXAMPLES["log"], *EXAMPLES["output"]])
def test_entry_composed_out_of_its_row_is_the_models_own(message: Any) -> None:
    fields = message.model_dump(mode="json", exclude={"type", "id", "job_id"})
    body = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))[1:]
    attempt, n = (int(part) for part in message.id.split("-"))
    assert same(entry_message(JOB, attempt, n, message.type, body), message)


def test_frames_of_the_hub_are_the_models_own() -> None:
    told = EXAMPLES["subscribed"]
    assert same(wire.subscribed_frame(JOB, True).payload, told[0])
    assert same(wire.subscribed_frame(JOB, False, 7).payload, told[1])
    assert same(wire.end_frame(JOB, 1, 14).payload, EXAMPLES["end"][0])
    assert same(wire.ping_frame().payload, EXAMPLES["ping"][0])
    assert same(wire.missing_frame(JOB, 7).payload, EXAMPLES["problem"][0])


# -- the reference -------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_protocol_explains_every_message(model: type[Any]) -> None:
    assert f'"type":"{wire_name(model)}"' in PROTOCOL


@pytest.mark.parametrize("model", [views.JobView, views.Progress, views.JobError, views.Children])
def test_protocol_explains_every_field_of_a_view(model: type[Wire]) -> None:
    assert [name for name in model.model_fields if f"`{name}`" not in PROTOCOL] == []


@pytest.mark.parametrize(
    "close", [DONE, RESTART, LATER, INVALID, NO_CREDENTIALS, UNKNOWN, STALLED, BUSY]
)
def test_protocol_explains_every_close_code(close: Any) -> None:
    assert f"| {close.code} |" in PROTOCOL
    assert len(close.reason.encode()) <= 123


@pytest.mark.parametrize(
    "code",
    [
        "unknown_job", "invalid_cursor", "invalid_request", "unknown_op", "unknown_feed",
        "forbidden_feed", "too_many_subscriptions", "unauthenticated", "other_owner", "unavailable",
    ],
)  # fmt: skip
def test_protocol_explains_every_problem_of_a_connection(code: str) -> None:
    assert f"| `{code}` |" in PROTOCOL
