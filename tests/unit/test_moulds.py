"""Jobs that are cast from a first one are what Celery would have built."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery, signature
from celery.signals import before_task_publish
from hypothesis import given
from hypothesis import strategies as st

from livejobs import JobTask
from livejobs.errors import MessageError
from livejobs.moulds import Mould
from livejobs.recording import JobOptions, build, build_first, build_many

NAME = "casts.work"
JOB_OPTIONS = JobOptions(owner="ada", tags={"k": "v"}, max_attempts=3, rerun_when_lost=True)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
ARGUMENTS = st.recursive(
    PLAIN, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)


def make_app() -> Any:
    app = Celery("casts", broker="memory://", task_cls=JobTask, set_as_current=False)
    app.conf.task_ignore_result = True

    @app.task(shared=False, name=NAME, max_retries=2)
    def work(*args: Any, **kwargs: Any) -> None:
        pass

    return app


@pytest.fixture
def app() -> Iterator[Any]:
    """An app of which nothing looks at each message."""
    app = make_app()
    yield app
    app.close()


APP = make_app()


def first_of(app: Celery, **options: Any) -> Mould | None:
    """A mould, made by a job with other arguments."""
    return build_first(app, NAME, ("first",), {"k": "first"}, JOB_OPTIONS, options)[1]


def same(app: Celery, args: Any, kwargs: dict[str, Any], **options: Any) -> None:
    """What is cast is what Celery builds."""
    mould, job_id = first_of(app, **options), str(uuid4())
    assert mould is not None
    whole = build(app, NAME, args, kwargs, JOB_OPTIONS, options | {"task_id": job_id})
    assert mould.cast(job_id, args, kwargs) == whole


@given(st.lists(ARGUMENTS, max_size=5), st.dictionaries(st.text(), ARGUMENTS, max_size=2))
def test_cast_is_what_celery_builds(args: list[Any], kwargs: dict[str, Any]) -> None:
    same(APP, args, kwargs)
    same(APP, tuple(args), kwargs)


@pytest.mark.parametrize(
    "options",
    [
        {"queue": "slow", "priority": 7},
        {"serializer": "pickle"},
        {"link": [signature(NAME, (1,))], "root_id": "root", "parent_id": "parent"},
        {"chain": [signature(NAME, (2,))], "time_limit": 5, "headers": {"x": "y"}},
        {"compression": "zlib", "ignore_result": True, "shadow": "other"},
    ],
)
def test_cast_keeps_the_options_of_the_first(app: Any, options: dict[str, Any]) -> None:
    same(app, (1, "two"), {"three": [4.5]}, **options)


def test_long_arguments_are_shown_as_celery_shows_them(app: Any) -> None:
    same(app, ("x" * 90,) * 20, {})
    same(app, tuple(range(500)), {})


def test_casts_do_not_share_what_differs(app: Any) -> None:
    news = build_many(app, NAME, [(1,), (2,), (3,)], JOB_OPTIONS, {})
    assert [new.message["headers"]["argsrepr"] for new in news] == ["(1,)", "(2,)", "(3,)"]
    assert [new.message["headers"]["id"] for new in news] == [new.id for new in news]
    assert [new.message["properties"]["correlation_id"] for new in news] == [it.id for it in news]
    assert len({new.id for new in news}) == 3


def test_arguments_that_cannot_be_sent_are_refused_by_name(app: Any) -> None:
    mould = first_of(app)
    assert mould is not None
    with pytest.raises(MessageError):
        mould.cast("id", (object(),))
    with pytest.raises(TypeError):
        mould.cast("id", "text")


def test_nothing_is_cast_where_a_router_sees_each_call(app: Any) -> None:
    seen = []

    def route(name: str, args: Any, kwargs: Any, options: Any, **_: Any) -> dict[str, str]:
        seen.append(args)
        return {"queue": f"q{args[0]}"}

    app.conf.task_routes = (route,)
    news = build_many(app, NAME, [(1,), (2,)], JOB_OPTIONS, {})
    assert [new.queue for new in news] == ["q1", "q2"]
    assert seen == [(1,), (2,)]


def test_routes_by_name_are_cast(app: Any) -> None:
    app.conf.task_routes = {"casts.*": {"queue": "routed"}}
    assert first_of(app) is not None
    assert [it.queue for it in build_many(app, NAME, [(1,), (2,)], JOB_OPTIONS, {})] == [
        "routed"
    ] * 2


def test_nothing_is_cast_where_a_signal_sees_each_message(app: Any) -> None:
    seen = []

    @before_task_publish.connect(weak=False)
    def see(headers: Any = None, **_: Any) -> None:
        seen.append(headers["id"])
        headers["mark"] = len(seen)

    try:
        news = build_many(app, NAME, [(1,), (2,)], JOB_OPTIONS, {})
    finally:
        before_task_publish.disconnect(see)
    assert [new.message["headers"]["mark"] for new in news] == [1, 2]
    assert seen == [new.id for new in news]


@pytest.mark.parametrize("options", [{"expires": 60}, {"countdown": 60}])
def test_nothing_is_cast_that_depends_on_when_it_is_built(
    app: Any, options: dict[str, Any]
) -> None:
    assert first_of(app, **options) is None


def test_nothing_is_cast_where_sendings_are_told(app: Any) -> None:
    app.conf.task_send_sent_event = True
    assert first_of(app) is None


def test_child_keeps_its_ordinal(app: Any) -> None:
    options = dataclasses.replace(JOB_OPTIONS, parent_id="parent", ordinal=0)
    mould = build_first(app, NAME, (), {}, options, {})[1]
    assert mould is not None
    new = mould.cast("id", (), {}, 7)
    assert (new.parent_id, new.ordinal) == ("parent", 7)
