"""The OpenAPI document in the reference is what the code says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from livejobs.settings import Settings
from livejobs_server.endpoints import build_endpoints
from livejobs_server.openapi import openapi_document, openapi_text

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "openapi.json"
PUBLIC = {"/healthz", "/readyz", "/v1/session", "/v1/stripe/webhook"}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return openapi_document()


def operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(path, op) for path, item in document["paths"].items() for op in item.values()]


def test_document_in_the_reference_is_that_of_the_code() -> None:
    assert REFERENCE.read_text("utf-8") == openapi_text(), (
        "run `python -m livejobs_server.openapi docs/reference/openapi.json`"
    )


def test_settings_change_nothing_in_the_document(document: dict[str, Any]) -> None:
    other = Settings(max_payload_bytes=2048, allowed_origins=("https://x.example",), tasks=("*",))
    assert build_endpoints(other, documented=False).openapi() == document


def test_every_operation_is_explained_and_names_its_problems(document: dict[str, Any]) -> None:
    for path, operation in operations(document):
        assert operation["description"], path
        for status in ("4XX", "5XX"):
            (kind,) = operation["responses"][status]["content"]
            assert kind == "application/problem+json", path


def test_every_operation_asks_for_credentials_but_for_those_named(
    document: dict[str, Any],
) -> None:
    for path, operation in operations(document):
        assert ("security" in operation) is (path not in PUBLIC), path


def test_operations_have_short_names_of_their_own(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, operation in operations(document)]
    assert len(set(names)) == len(names)
    assert all(name.isidentifier() and len(name) < 30 for name in names)


def test_every_reference_in_the_document_leads_somewhere(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    text = json.dumps(document)
    for part in text.split('"$ref": "#/components/schemas/')[1:]:
        assert part.partition('"')[0] in schemas
    assert text.count('"$ref": "') == text.count('"$ref": "#/components/schemas/')
