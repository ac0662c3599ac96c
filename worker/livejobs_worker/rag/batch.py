"""`rag.ingest_many`: thousands of files as one job, with a child for each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from livejobs import current_job
from livejobs_worker.app import app

from .ingest import ingest, uploaded

MOST_FAILURES: Final = 100
"""So many are named in the result; `GET /v1/jobs?parent=…&status=failed` has all."""


@app.task(name="rag.ingest_many")
def ingest_many(upload: str, total: int, language: str | None = None) -> None:
    """Have each file of a list ingested by a child; no worker is held meanwhile.

    Args:
        upload: A file in the folder of uploads: on each line a JSON object with the `upload` and
            the `name` of a document.
        total: How many there are.
        language: Of all of them; None: as the settings say.

    Raises:
        IngestError: The list is gone.
    """
    job = current_job()
    job.progress(0, total, stage="files", message=f"{total} files are handed out")
    files = ((line["upload"], line["name"], job.owner) for line in _lines(upload))
    named = {} if language is None else {"language": language}
    job.spawn_many(ingest, files, named, on_children_done=report.s(total))


@app.task(name="rag.report")
def report(total: int) -> dict[str, Any]:
    """What goes on after the children: how many files became documents, and which did not.

    Returns:
        `files`, of these `done` and `failed`, and `failures` with `n`, `job_id` and `message` of
        the first ones.
    """
    job, done = current_job(), 0
    failures: list[dict[str, Any]] = []
    for child in job.children():
        done += child.status == "completed"
        if child.status != "completed" and len(failures) < MOST_FAILURES:
            message = (child.error or {}).get("message", f"It was {child.status}.")
            failures.append({"n": child.ordinal, "job_id": child.job_id, "message": message})
            job.log(message, level="warning")
    failed = total - done
    job.progress(total, total, stage="files", message=f"{done} of {total} done, {failed} failed")
    return {"files": total, "done": done, "failed": failed, "failures": failures}


def _lines(upload: str) -> Iterator[dict[str, str]]:
    with uploaded(upload, "this list of files").open("rb") as file:
        for line in file:
            yield json.loads(line)
