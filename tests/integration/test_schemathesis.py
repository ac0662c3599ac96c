"""Whatever the OpenAPI document allows or forbids is sent to a real server: it never breaks.

Requests are made up by schemathesis, as documented and not; those for one job meet now an unknown
job, now one that is over, so that the endpoints are reached behind their first check.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import hypothesis
import pytest
import requests
import schemathesis
from hypothesis import strategies as st
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from livejobs import attempts, transitions
from livejobs.database import Database
from livejobs.entries import Entry
from livejobs.settings import Settings
from livejobs.statements import Reported
from livejobs.transitions import NewJob
from livejobs_server import create_key
from livejobs_server.openapi import openapi_document
from tests.support.server import http_server
from tests.support.waiting import wait_until

EXAMPLES = 12
"""Requests for each operation and each way of making them up."""
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


def job_that_is_over(database: Database) -> str:
    """A completed job of Alice's with an entry; returns its id."""
    job_id = uuid4().hex
    made = NewJob(id=job_id, task="demo.led", queue="celery", message={"x": 1}, owner="alice")
    line = '"lines":[{"at":"2024-11-15T10:30:00.000Z","level":"info","text":"x"}]}'
    reported = Reported(
        progress={"current": 1, "data": {}}, seq=1, entries=[Entry(1, "log", line)], last_n=1
    )
    database.run(transitions.create(made))
    database.run(attempts.claim(job_id, None, job_id, 60.0))
    assert database.run(attempts.complete(job_id, 1, {"x": [1]}, reported)) is not None
    return job_id


@pytest.mark.timeout(400)
def test_server_answers_whatever_is_asked_without_breaking(
    settings: Settings, database: Database, tmp_path: Path
) -> None:
    key, _ = create_key(database, "alice", ["read", "write"])
    admin, _ = create_key(database, "root", ["admin"])
    log = tmp_path / "server.log"
    # Without it the endpoint of batches says rightly that it is not set up, which is 501.
    model = {"LIVEJOBS_LLM_BASE_URL": "http://127.0.0.1:9/v1", "LIVEJOBS_LLM_MODEL": "none"}
    stripe = {"STRIPE_API_KEY": "sk_test_none", "STRIPE_WEBHOOK_SECRET": "whsec_none"}
    with http_server(settings, log, env=stripe | model) as url, requests.Session() as session:
        wait_until(lambda: httpx.get(f"{url}/readyz").is_success, description="it is ready")
        sent = 0
        for found in schemathesis.openapi.from_dict(openapi_document()).get_all_operations():
            for mode in GenerationMode:
                cases = found.ok().as_strategy(generation_mode=mode)
                sent += hold(cases, database, url, session, [key, admin])
        assert sent > 200
        assert httpx.get(f"{url}/readyz").is_success
    assert "Traceback" not in log.read_text()


def hold(
    cases: st.SearchStrategy[Case[Any]],
    database: Database,
    url: str,
    session: requests.Session,
    keys: list[str],
) -> int:
    """Send what is made up for one operation, and look at every answer; returns how many."""
    sent = 0

    @hypothesis.settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    )
    @hypothesis.given(case=cases, known=st.booleans(), key=st.sampled_from(keys))
    def send(case: Case[Any], known: bool, key: str) -> None:
        nonlocal sent
        sent += 1
        if known and "job_id" in (case.path_parameters or {}):
            case.path_parameters["job_id"] = job_that_is_over(database)
        headers: dict[str, Any] = {"Authorization": f"Bearer {key}"}
        # OpenAPI 3.1 cannot say what the events of a stream hold; asyncapi.yaml does.
        checks = CHECKS[:-1] if case.path.endswith("/events") else CHECKS
        case.call_and_validate(url, session, headers, checks=checks, timeout=60)

    # A request without any part cannot be made up wrongly.
    with contextlib.suppress(hypothesis.errors.Unsatisfiable):
        send()
    return sent
