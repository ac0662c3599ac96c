"""The wheel, in an empty venv outside of the clone, does what the clone does."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from tests.support.wheel import run, running_up

STRANGERS_APP = '''
"""Somebody's Celery app, which knows nothing of this project's layout."""
import time
from celery import Celery
from livejobs import JobTask, current_job

app = Celery("shop", task_cls=JobTask)

@app.task(name="shop.import")
def import_orders(rows):
    for row in current_job().track(range(rows)):
        time.sleep(0.05)
    return {"rows": rows}
'''


def test_wheel_holds_all_that_is_needed_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "livejobs/migrations/versions/0001_jobs.py" in names
    assert "livejobs_worker/demo/field-guide.pdf" in names
    assert "livejobs/py.typed" in names
    assert "livejobs_server/web/client/index.js" in names
    assert "livejobs_server/web/static/home.js" in names
    assert "livejobs_server/web/templates/frame.html" in names
    assert {name.split("/")[0] for name in names} == {
        "livejobs",
        "livejobs_worker",
        "livejobs_server",
        next(name.split("/")[0] for name in names if ".dist-info/" in name),
    }


@pytest.mark.timeout(600)
def test_demo_of_the_wheel_ends_well(commands: Path, tmp_path: Path) -> None:
    output = run(commands / "livejobs", "demo", cwd=tmp_path)
    assert "All agree." in output
    assert "marzipan" in output


@pytest.mark.timeout(600)
def test_up_of_the_wheel_runs_a_strangers_app(commands: Path, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(STRANGERS_APP)
    command = [str(commands / "livejobs"), "up", "--app", "shop:app"]
    with running_up(command, tmp_path, LIVEJOBS_TASKS="shop.*"):
        job_id = run(
            *(commands / "livejobs", "submit", "shop.import", "rows=20", "--watch"),
            cwd=tmp_path,
            seconds=60,
        )
        listed = run(commands / "livejobs", "list", "--status", "completed", cwd=tmp_path)
        assert job_id.strip()[:8] in listed
