"""The pytest plugin, in runs of pytest of their own."""

from __future__ import annotations

import os
from importlib.metadata import entry_points
from typing import Any

import pytest

pytest_plugins = ["pytester"]

TASKS = """
from celery import Celery
from livejobs import JobTask, current_job

app = Celery("shop", task_cls=JobTask, broker="redis://127.0.0.1:1/0")

@app.task
def bake(loaves):
    current_job().log("baking")
    return loaves

@app.task
def order(loaves):
    return bake.delay(loaves).id
"""
TESTS = """
from celery import Celery
from livejobs.testing import assert_enqueued
from tasks import bake, order

def test_run(livejobs_run):
    view, entries = livejobs_run(bake, [3])
    assert (view.status, view.result) == ("completed", 3)
    assert entries[0].lines[0].text == "baking"

def test_eager(livejobs_eager):
    Celery("other")  # the current one from here on
    result = order.delay(2)
    assert [view.task for view in livejobs_eager.views] == ["tasks.order", "tasks.bake"]
    assert livejobs_eager.lines(result.get()) == ["baking"]

def test_enqueued(livejobs_enqueued):
    order.delay(5)
    assert len(livejobs_enqueued) == 1
    assert_enqueued(order, [5])

def test_enqueued_and_run(livejobs_enqueued, livejobs_run):
    view, _ = livejobs_run(order, [4], owner="ada")
    job = assert_enqueued(bake, [4], owner="ada")
    assert job.job_id == view.result
"""
LIGHT = """
import sys

def test_without_a_fixture_of_livejobs():
    heavy = {"celery", "kombu", "sqlalchemy", "pydantic", "redis", "livejobs.testing"}
    assert heavy & set(sys.modules) == set()
    assert "livejobs.pytest_plugin" in sys.modules
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: Any) -> pytest.Pytester:
    """An empty folder, in which pytest takes nothing from the run around it."""
    for name in list(os.environ):
        if name.startswith(("PYTEST_", "COV_", "COVERAGE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyprojecttoml("[tool.pytest.ini_options]\naddopts = '-p livejobs -W error'\n")
    return pytester


def test_plugin_is_found_by_its_entry_point() -> None:
    (found,) = entry_points(group="pytest11", name="livejobs")
    assert found.value == "livejobs.pytest_plugin"


def test_fixtures_work_without_servers(project: pytest.Pytester) -> None:
    project.makepyfile(tasks=TASKS, test_tasks=TESTS)
    project.runpytest_subprocess().assert_outcomes(passed=4)


def test_app_of_the_fixtures_can_be_chosen(project: pytest.Pytester) -> None:
    project.makepyfile(tasks=TASKS)
    project.makeconftest(
        """
        import pytest
        import tasks
        from celery import Celery

        other = Celery("other")

        @pytest.fixture
        def livejobs_app():
            return other
        """
    )
    project.makepyfile(
        """
        from tasks import app

        def test_eager(livejobs_app, livejobs_eager):
            assert livejobs_app.conf.task_always_eager
            assert not app.conf.task_always_eager
        """
    )
    project.runpytest_subprocess().assert_outcomes(passed=1)


def test_plugin_is_light_where_it_is_not_used(project: pytest.Pytester) -> None:
    project.makepyfile(LIGHT)
    project.runpytest_subprocess("-p", "no:pytester").assert_outcomes(passed=1)


def test_fixtures_are_explained(project: pytest.Pytester) -> None:
    result = project.runpytest_subprocess("--fixtures")
    result.stdout.fnmatch_lines(
        [f"{name} *" for name in ("livejobs_app", "livejobs_eager", "livejobs_enqueued")]
    )
